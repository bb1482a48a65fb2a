// RoIAlign is separable: a bin's mean is a weighted sum over some rows of weighted sums over some columns. Weights of samples
// that fall on the same row or column are added up first, so a pixel is read once for each row of bins.
#include <cmath>

#include "isa.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/ops/roi.hpp"

namespace shrike::kernels {
namespace {

// Along one axis, the pixels that a region reads, and for every bin its taps: indices into them, with weights.
struct Axis {
  struct Tap {
    std::int32_t slot;
    float weight;
  };
  std::vector<std::int32_t> pixels;
  std::vector<Tap> taps;
  std::vector<std::size_t> ends;  // of each bin's taps

  const Tap* begin(std::int64_t bin) const { return taps.data() + (bin > 0 ? ends[static_cast<std::size_t>(bin - 1)] : 0); }
  const Tap* end(std::int64_t bin) const { return taps.data() + ends[static_cast<std::size_t>(bin)]; }

  void build(float low, float high, const RoiSizes& s, std::int64_t bins, std::int64_t extent);

 private:
  void sample(float at, std::int64_t extent, float weight, std::size_t first_tap);
  void add(std::int32_t pixel, float weight, std::size_t first_tap);
};

void Axis::build(float low, float high, const RoiSizes& s, std::int64_t bins, std::int64_t extent) {
  pixels.clear();
  taps.clear();
  ends.assign(static_cast<std::size_t>(bins), 0);
  const float offset = s.aligned ? 0.5f : 0.0f;
  const float start = low * s.spatial_scale - offset;
  float length = high * s.spatial_scale - offset - start;
  if (!s.aligned) length = std::max(length, 1.0f);
  const float bin_size = length / static_cast<float>(bins);
  if (extent == 0 || !std::isfinite(start) || !std::isfinite(bin_size)) return;
  const auto samples = s.sampling_ratio > 0
                           ? s.sampling_ratio
                           : static_cast<std::int64_t>(std::clamp(std::ceil(bin_size), 0.0f, static_cast<float>(1 << 30)));
  for (std::int64_t bin = 0; bin < bins; ++bin) {
    const std::size_t first_tap = taps.size();
    const float bin_start = start + static_cast<float>(bin) * bin_size;
    // Of the samples of a huge region only those near the map are looked at.
    const double step = static_cast<double>(bin_size) / static_cast<double>(samples);
    double from = 0;
    double to = static_cast<double>(samples);
    if (step > 0) {
      from = std::max(from, std::floor((-1.0 - bin_start) / step) - 2.0);
      to = std::min(to, std::ceil((static_cast<double>(extent) - bin_start) / step) + 2.0);
    }
    if (from < to) {
      for (auto i = static_cast<std::int64_t>(from); static_cast<double>(i) < to; ++i) {
        const float at = bin_start + (static_cast<float>(i) + 0.5f) * bin_size / static_cast<float>(samples);
        sample(at, extent, 1.0f / static_cast<float>(samples), first_tap);
      }
    }
    ends[static_cast<std::size_t>(bin)] = taps.size();
  }
}

void Axis::sample(float at, std::int64_t extent, float weight, std::size_t first_tap) {
  if (at < -1.0f || at > static_cast<float>(extent)) return;
  at = std::max(at, 0.0f);
  const auto low = static_cast<std::int32_t>(at);
  const auto last = static_cast<std::int32_t>(extent - 1);
  if (low >= last) return add(last, weight, first_tap);
  const float fraction = at - static_cast<float>(low);
  add(low, weight * (1.0f - fraction), first_tap);
  if (fraction > 0.0f) add(low + 1, weight * fraction, first_tap);
}

void Axis::add(std::int32_t pixel, float weight, std::size_t first_tap) {
  std::size_t slot = pixels.size();
  if (slot > 0 && pixel <= pixels.back()) {  // most often new ones are greater
    while (slot > 0 && pixels[slot - 1] != pixel) --slot;
    slot = slot > 0 ? slot - 1 : pixels.size();
  }
  if (slot == pixels.size()) pixels.push_back(pixel);
  for (std::size_t i = taps.size(); i > first_tap; --i) {
    if (taps[i - 1].slot == static_cast<std::int32_t>(slot)) {
      taps[i - 1].weight += weight;
      return;
    }
  }
  taps.push_back({static_cast<std::int32_t>(slot), weight});
}

struct Axes {
  Axis rows, columns;

  void build(const RoiSizes& s, const float* roi) {
    rows.build(roi[2], roi[4], s, s.out_height, s.height);
    columns.build(roi[1], roi[3], s, s.out_width, s.width);
  }
};

std::int64_t image_of(const RoiSizes& s, const float* roi) {
  return roi[0] >= 0.0f && roi[0] < static_cast<float>(s.images) ? static_cast<std::int64_t>(roi[0]) : -1;
}

// to = the sum over taps of weight * (what `from` gives for its slot), n channels. Four taps at a time, so that `to` is written
// a quarter as often.
template <class From> void gather(const cpu::FloatKernels& isa, std::int64_t n, const Axis::Tap* tap, const Axis::Tap* end,
                                  const From& from, float* to) {
  if (tap == end) std::fill(to, to + n, 0.0f);
  for (bool add = false; tap != end; add = true) {
    const auto count = static_cast<int>(std::min<std::ptrdiff_t>(end - tap, 4));
    const float* rows[4];
    float weights[4];
    for (int i = 0; i < count; ++i, ++tap) {
      rows[i] = from(tap->slot);
      weights[i] = tap->weight;
    }
    isa.weighted_sum(n, count, rows, weights, add, to);
  }
}

constexpr std::int64_t channel_block = 128;  // keeps the row of sums in the first-level cache

// Regions of a chunk: some ten microseconds of work.
std::int64_t region_grain(const RoiSizes& s) {
  return std::max<std::int64_t>((1 << 16) / std::max<std::int64_t>(s.out_height * s.out_width * s.channels, 1), 1);
}

}  // namespace

void roi_align_forward(Cpu, const RoiSizes& s, const float* x, const float* rois, float* y) {
  const cpu::FloatKernels& isa = cpu::float_kernels();
  parallel_for(s.rois, region_grain(s), [&](std::int64_t begin, std::int64_t end) {
    Axes axes;
    std::vector<float> sums;
    for (std::int64_t roi = begin; roi < end; ++roi) {
      float* out = y + roi * s.out_height * s.out_width * s.channels;
      const std::int64_t image = image_of(s, rois + roi * 5);
      if (image < 0) {
        std::fill(out, out + s.out_height * s.out_width * s.channels, 0.0f);
        continue;
      }
      axes.build(s, rois + roi * 5);
      const auto& pixels = axes.columns.pixels;
      sums.resize(pixels.size() * channel_block);
      for (std::int64_t first = 0; first < s.channels; first += channel_block) {
        const std::int64_t n = std::min(channel_block, s.channels - first);
        const float* map = x + image * s.height * s.width * s.channels + first;
        for (std::int64_t i = 0; i < s.out_height; ++i) {
          for (std::size_t k = 0; k < pixels.size(); ++k) {
            const auto pixel = [&](std::int32_t slot) {
              return map + (axes.rows.pixels[static_cast<std::size_t>(slot)] * s.width + pixels[k]) * s.channels;
            };
            gather(isa, n, axes.rows.begin(i), axes.rows.end(i), pixel, sums.data() + k * channel_block);
          }
          const auto sum = [&](std::int32_t slot) { return sums.data() + slot * channel_block; };
          for (std::int64_t j = 0; j < s.out_width; ++j) {
            gather(isa, n, axes.columns.begin(j), axes.columns.end(j), sum, out + (i * s.out_width + j) * s.channels + first);
          }
        }
      }
    }
  });
}

// A chunk owns some channels of one image and walks all regions in order.
void roi_align_backward(Cpu, const RoiSizes& s, const float* dy, const float* rois, float* dx) {
  const cpu::FloatKernels& isa = cpu::float_kernels();
  std::vector<Axes> axes(static_cast<std::size_t>(s.rois));
  parallel_for(s.rois, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t roi = begin; roi < end; ++roi) axes[static_cast<std::size_t>(roi)].build(s, rois + roi * 5);
  });
  // Narrower blocks where there would be few; the sums do not depend on it.
  std::int64_t block = channel_block;
  while (block > 32 && s.images * ((s.channels + block - 1) / block) < 8) block /= 2;
  const std::int64_t blocks = (s.channels + block - 1) / block;
  parallel_for(s.images * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> sums;
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t image = item / blocks;
      const std::int64_t first = item % blocks * block;
      const std::int64_t n = std::min(block, s.channels - first);
      float* map = dx + image * s.height * s.width * s.channels + first;
      for (std::int64_t i = 0; i < s.height * s.width; ++i) std::fill(map + i * s.channels, map + i * s.channels + n, 0.0f);
      for (std::int64_t roi = 0; roi < s.rois; ++roi) {
        if (image_of(s, rois + roi * 5) != image) continue;
        const auto& [rows, columns] = axes[static_cast<std::size_t>(roi)];
        const float* in = dy + roi * s.out_height * s.out_width * s.channels + first;
        for (std::int64_t i = 0; i < s.out_height; ++i) {
          sums.assign(columns.pixels.size() * channel_block, 0.0f);
          for (std::int64_t j = 0; j < s.out_width; ++j) {
            const float* from = in + (i * s.out_width + j) * s.channels;
            for (const auto* tap = columns.begin(j); tap != columns.end(j); ++tap) {
              isa.weighted_sum(n, 1, &from, &tap->weight, true, sums.data() + tap->slot * channel_block);
            }
          }
          for (const auto* tap = rows.begin(i); tap != rows.end(i); ++tap) {
            float* row = map + rows.pixels[static_cast<std::size_t>(tap->slot)] * s.width * s.channels;
            for (std::size_t k = 0; k < columns.pixels.size(); ++k) {
              const float* const of_column = sums.data() + k * channel_block;
              isa.weighted_sum(n, 1, &of_column, &tap->weight, true, row + columns.pixels[k] * s.channels);
            }
          }
        }
      }
    }
  });
}

}  // namespace shrike::kernels
