#include <cmath>
#include <type_traits>

#include "greatest_codes.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/ops/roi.hpp"

namespace shrike::kernels {
namespace {

// Pixels begin .. end-1 of each bin along one axis.
struct Bins {
  std::int64_t start;
  float size;
  std::int64_t extent;

  std::int64_t begin(std::int64_t bin) const { return clip(std::floor(static_cast<float>(bin) * size)); }
  std::int64_t end(std::int64_t bin) const { return clip(std::ceil(static_cast<float>(bin + 1) * size)); }

 private:
  std::int64_t clip(float offset) const {
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(offset) + start, 0, extent);
  }
};

// A scaled corner as a whole pixel, ties away from zero. Far outside any map (or NaN) is as good as a million pixels away.
std::int64_t to_pixel(float corner, float scale) {
  constexpr float far = 1 << 20;
  const float pixel = std::round(corner * scale);
  return static_cast<std::int64_t>(pixel > -far ? std::min(pixel, far) : -far);
}

Bins bins(float low, float high, float scale, std::int64_t count, std::int64_t extent) {
  const std::int64_t start = to_pixel(low, scale);
  const std::int64_t length = std::max<std::int64_t>(to_pixel(high, scale) - start + 1, 1);
  return {start, static_cast<float>(length) / static_cast<float>(count), extent};
}

// The image of a region, or -1.
std::int64_t image_of(const RoiSizes& s, const float* roi) {
  return roi[0] >= 0.0f && roi[0] < static_cast<float>(s.images) ? static_cast<std::int64_t>(roi[0]) : -1;
}

struct Window {
  std::int64_t row_begin, row_end, column_begin, column_end;
};

// The greatest of `n` channels over a window that is not empty, and where it was first seen. With n known to the compiler the
// running values stay in registers.
template <class N> void greatest(N n, const Window& w, const RoiSizes& s, const float* x, float* y, std::int32_t* argmax) {
  constexpr std::int64_t most = 32;
  float best[most];
  std::int32_t place[most];
  const float* first = x + (w.row_begin * s.width + w.column_begin) * s.channels;
  for (std::int64_t c = 0; c < n; ++c) {
    best[c] = first[c];
    place[c] = static_cast<std::int32_t>(w.row_begin * s.width + w.column_begin);
  }
  for (std::int64_t row = w.row_begin; row < w.row_end; ++row) {
    for (std::int64_t column = w.column_begin; column < w.column_end; ++column) {
      const std::int64_t at = row * s.width + column;
      const float* pixel = x + at * s.channels;
      for (std::int64_t c = 0; c < n; ++c) {
        const bool greater = (pixel[c] > best[c]) | (pixel[c] != pixel[c]);
        best[c] = greater ? pixel[c] : best[c];
        place[c] = greater ? static_cast<std::int32_t>(at) : place[c];
      }
    }
  }
  for (std::int64_t c = 0; c < n; ++c) {
    y[c] = best[c];
    argmax[c] = place[c];
  }
}

// Rows of bins of a chunk, with so many outputs together.
std::int64_t row_grain(const RoiSizes& s, std::int64_t outputs) {
  return std::max<std::int64_t>(outputs / std::max<std::int64_t>(s.out_width * s.channels, 1), 1);
}

template <class T> void roi_pool_codes(const RoiSizes& s, const T* x, const float* rois, T* y) {
  parallel_for(s.rois * s.out_height, row_grain(s, 1 << 16), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      const float* roi = rois + item / s.out_height * 5;
      const std::int64_t image = image_of(s, roi);
      const Bins rows = bins(roi[2], roi[4], s.spatial_scale, s.out_height, s.height);
      const Bins columns = bins(roi[1], roi[3], s.spatial_scale, s.out_width, s.width);
      const std::int64_t bin_row = item % s.out_height;
      for (std::int64_t bin = 0; bin < s.out_width; ++bin) {
        T* best = y + (item * s.out_width + bin) * s.channels;
        const Window window{rows.begin(bin_row), rows.end(bin_row), columns.begin(bin), columns.end(bin)};
        if (image < 0 || window.row_begin >= window.row_end || window.column_begin >= window.column_end) {
          std::fill(best, best + s.channels, T{});
        } else {
          const std::int64_t corner = (image * s.height + window.row_begin) * s.width + window.column_begin;
          greatest_codes(window.row_end - window.row_begin, window.column_end - window.column_begin, s.width * s.channels,
                         s.channels, x + corner * s.channels, best);
        }
      }
    }
  });
}

}  // namespace

void quantized_roi_pool_forward(Cpu, const RoiSizes& s, Dtype dtype, const void* x, const float* rois, void* y) {
  if (dtype == Dtype::u8) {
    roi_pool_codes(s, static_cast<const std::uint8_t*>(x), rois, static_cast<std::uint8_t*>(y));
  } else if (dtype == Dtype::s8) {
    roi_pool_codes(s, static_cast<const std::int8_t*>(x), rois, static_cast<std::int8_t*>(y));
  } else {
    roi_pool_codes(s, static_cast<const Half*>(x), rois, static_cast<Half*>(y));
  }
}

void roi_pool_forward(Cpu, const RoiSizes& s, const float* x, const float* rois, float* y, std::int32_t* argmax) {
  parallel_for(s.rois * s.out_height, row_grain(s, 1 << 14), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      const float* roi = rois + item / s.out_height * 5;
      const std::int64_t image = image_of(s, roi);
      const Bins rows = bins(roi[2], roi[4], s.spatial_scale, s.out_height, s.height);
      const Bins columns = bins(roi[1], roi[3], s.spatial_scale, s.out_width, s.width);
      const std::int64_t row_begin = rows.begin(item % s.out_height);
      const std::int64_t row_end = image < 0 ? row_begin : rows.end(item % s.out_height);
      const float* map = x + image * s.height * s.width * s.channels;
      for (std::int64_t bin = 0; bin < s.out_width; ++bin) {
        float* best = y + (item * s.out_width + bin) * s.channels;
        std::int32_t* place = argmax + (item * s.out_width + bin) * s.channels;
        const std::int64_t column_begin = columns.begin(bin);
        const std::int64_t column_end = columns.end(bin);
        if (row_begin >= row_end || column_begin >= column_end) {
          std::fill(best, best + s.channels, 0.0f);
          std::fill(place, place + s.channels, -1);
          continue;
        }
        const Window window{row_begin, row_end, column_begin, column_end};
        constexpr std::integral_constant<std::int64_t, 32> chunk;
        std::int64_t c = 0;
        for (; c + chunk <= s.channels; c += chunk) greatest(chunk, window, s, map + c, best + c, place + c);
        if (c < s.channels) greatest(s.channels - c, window, s, map + c, best + c, place + c);
      }
    }
  });
}

// A chunk owns some channels and walks all regions in order, so it is to have as many as leave work for several threads.
void roi_pool_backward(Cpu, const RoiSizes& s, const float* dy, const float* rois, const std::int32_t* argmax, float* dx) {
  constexpr std::int64_t block = 16;  // channels of one cache line
  const std::int64_t blocks = (s.channels + block - 1) / block;
  const std::int64_t bins = s.out_height * s.out_width;
  const std::int64_t grain = std::clamp<std::int64_t>(s.images * blocks / 8, 1, 8);
  parallel_for(s.images * blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    while (begin < end) {  // the part of one image
      const std::int64_t image = begin / blocks;
      const std::int64_t first = begin % blocks * block;
      const std::int64_t last = std::min(s.channels, (std::min(end - begin, blocks) + begin % blocks) * block);
      begin += (last - first + block - 1) / block;
      float* map = dx + image * s.height * s.width * s.channels;
      for (std::int64_t i = 0; i < s.height * s.width; ++i) {
        std::fill(map + i * s.channels + first, map + i * s.channels + last, 0.0f);
      }
      for (std::int64_t roi = 0; roi < s.rois; ++roi) {
        if (image_of(s, rois + roi * 5) != image) continue;
        for (std::int64_t bin = roi * bins; bin < (roi + 1) * bins; ++bin) {
          const std::int32_t* place = argmax + bin * s.channels;
          const float* in = dy + bin * s.channels;
          if (place[first] < 0) continue;  // an empty bin is empty in all channels
          for (std::int64_t c = first; c < last; ++c) map[place[c] * s.channels + c] += in[c];
        }
      }
    }
  });
}

}  // namespace shrike::kernels
