#include "shrike/ops/resample.hpp"

#include "shrike/core/threads.hpp"

namespace shrike::kernels {
namespace {

std::vector<std::int64_t> sources(std::int64_t size, std::int64_t out_size) {
  std::vector<std::int64_t> result(static_cast<std::size_t>(out_size));
  for (std::int64_t i = 0; i < out_size; ++i) result[static_cast<std::size_t>(i)] = nearest_source(i, size, out_size);
  return result;
}

std::int64_t row_grain(const ResampleSizes& s) {
  return std::max<std::int64_t>(1, (1 << 15) / std::max<std::int64_t>(1, s.out_width * s.channels));
}

}  // namespace

void upsample_nearest_forward(Cpu, const ResampleSizes& s, const float* x, float* y) {
  const auto rows = sources(s.height, s.out_height);
  const auto columns = sources(s.width, s.out_width);
  parallel_for(s.images * s.out_height, row_grain(s), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t image = row / s.out_height;
      const std::int64_t source = rows[static_cast<std::size_t>(row % s.out_height)];
      const float* from = x + (image * s.height + source) * s.width * s.channels;
      float* to = y + row * s.out_width * s.channels;
      for (std::int64_t j = 0; j < s.out_width; ++j) {
        const float* pixel = from + columns[static_cast<std::size_t>(j)] * s.channels;
        std::copy(pixel, pixel + s.channels, to + j * s.channels);
      }
    }
  });
}

// Sources never decrease, so the places that read a row are a run: each thread owns rows of dx.
void upsample_nearest_backward(Cpu, const ResampleSizes& s, const float* dy, float* dx) {
  const auto rows = sources(s.height, s.out_height);
  const auto columns = sources(s.width, s.out_width);
  parallel_for(s.images * s.height, row_grain(s), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t image = row / s.height;
      float* to = dx + row * s.width * s.channels;
      std::fill(to, to + s.width * s.channels, 0.0f);
      const auto run = std::equal_range(rows.begin(), rows.end(), row % s.height);
      for (auto i = run.first; i != run.second; ++i) {
        const float* from = dy + (image * s.out_height + (i - rows.begin())) * s.out_width * s.channels;
        for (std::int64_t j = 0; j < s.out_width; ++j) {
          const float* __restrict in = from + j * s.channels;
          float* __restrict sum = to + columns[static_cast<std::size_t>(j)] * s.channels;
          for (std::int64_t c = 0; c < s.channels; ++c) sum[c] += in[c];
        }
      }
    }
  });
}

}  // namespace shrike::kernels
