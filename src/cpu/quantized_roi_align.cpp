// RoIAlign of codes and of halves, step by step as ops/roi.hpp defines it; compiled without contraction of multiplications and
// additions.
#include <cmath>
#include <vector>

#include "scratch.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/ops/roi.hpp"
#include "simd.hpp"

namespace shrike::kernels {
namespace {

// One sample along one axis: its two pixels and their weights.
struct Sample {
  std::int64_t low, high;
  float low_weight, high_weight;
};

// The samples of a bin that count; `all` is how many there are.
struct Axis {
  float start = 0, size = 0;
  std::int64_t samples = 0, extent = 0;

  Axis(float low, float high, const RoiSizes& s, std::int64_t bins, std::int64_t pixels) : extent(pixels) {
    const float offset = s.aligned ? 0.5f : 0.0f;
    const float begin = std::fmaf(low, s.spatial_scale, -offset);
    float length = std::fmaf(high, s.spatial_scale, -offset) - begin;
    if (!s.aligned) length = std::max(length, 1.0f);
    const float bin_size = length / static_cast<float>(bins);
    if (extent == 0 || !std::isfinite(begin) || !std::isfinite(bin_size)) return;
    start = begin;
    size = bin_size;
    samples = s.sampling_ratio > 0
                  ? s.sampling_ratio
                  : static_cast<std::int64_t>(std::clamp(std::ceil(bin_size), 0.0f, static_cast<float>(1 << 30)));
  }

  void of_bin(std::int64_t bin, std::vector<Sample>& into) const {
    into.clear();
    // Of the samples of a huge region only those near the map are looked at; the others count as 0.
    double from = 0, to = static_cast<double>(samples);
    const double step = static_cast<double>(size) / static_cast<double>(std::max<std::int64_t>(samples, 1));
    if (samples > 64 && step > 0) {
      // Rounding of (i + 0.5) / samples and of the place moves a sample by less than 2^-20 of the region.
      const double origin = static_cast<double>(start) + static_cast<double>(bin) * size;
      const double slack = 2.0 + std::ldexp(std::abs(origin) + size, -20) / step;
      from = std::max(from, std::floor((-1.0 - origin) / step - slack));
      to = std::min(to, std::ceil((static_cast<double>(extent) - origin) / step + slack));
    }
    if (!(from < to)) return;
    for (auto i = static_cast<std::int64_t>(from); i < static_cast<std::int64_t>(to); ++i) {
      const float part = (static_cast<float>(i) + 0.5f) / static_cast<float>(samples);
      float at = std::fmaf(static_cast<float>(bin) + part, size, start);
      if (!(at >= -1.0f && at <= static_cast<float>(extent))) continue;
      at = std::max(at, 0.0f);
      const auto low = static_cast<std::int64_t>(at);
      if (low >= extent - 1) {
        into.push_back({extent - 1, extent - 1, 1.0f, 0.0f});
      } else {
        const float fraction = at - static_cast<float>(low);
        into.push_back({low, low + 1, 1.0f - fraction, fraction});
      }
    }
  }
};

// A pixel of a bin: where its codes begin, and its weight.
struct Tap {
  std::int64_t at;
  float weight;
};

using simd::Vector, simd::lanes;
template <class T> T nearest(float mean) {
  if constexpr (std::is_same_v<T, Half>) {
    return saturated_half(mean);
  } else {
    constexpr float lowest = std::is_signed_v<T> ? -128.0f : 0.0f, highest = std::is_signed_v<T> ? 127.0f : 255.0f;
    return static_cast<T>(static_cast<std::int32_t>(std::rint(std::clamp(mean, lowest, highest))));
  }
}

// The means of N vectors of channels, whose sums stay in registers.
template <int N, class T> void mean_of_taps(const std::vector<Tap>& taps, float count, const float* x, T* __restrict y) {
  Vector sums[N] = {};
  for (const Tap& tap : taps) {
    const Vector weight = Vector{} + tap.weight;
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) sums[v] = simd::fma(weight, simd::load(x + tap.at + v * lanes), sums[v]);
  }
  float values[N * lanes];
  for (int v = 0; v < N; ++v) simd::store(values + v * lanes, sums[v]);
  for (int c = 0; c < N * lanes; ++c) y[c] = nearest<T>(values[c] / count);
}

template <class T> T mean_of_taps(const std::vector<Tap>& taps, float count, const float* x) {
  float sum = 0;
  for (const Tap& tap : taps) sum = std::fmaf(tap.weight, x[tap.at], sum);
  return nearest<T>(sum / count);
}

// x: the codes, as floats. They are made once: a pixel is read many times.
template <class T> void align_floats(const RoiSizes& s, const float* x, const float* rois, T* y) {
  const std::int64_t outputs = std::max<std::int64_t>(s.out_height * s.out_width * s.channels, 1);
  parallel_for(s.rois, std::max<std::int64_t>((1 << 15) / outputs, 1), [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::vector<Sample>> rows(static_cast<std::size_t>(s.out_height)),
        columns(static_cast<std::size_t>(s.out_width));
    std::vector<Tap> taps;
    for (std::int64_t number = begin; number < end; ++number) {
      const float* roi = rois + number * 5;
      const bool inside = roi[0] >= 0.0f && roi[0] < static_cast<float>(s.images);
      const float* map = x + (inside ? static_cast<std::int64_t>(roi[0]) : 0) * s.height * s.width * s.channels;
      const Axis vertical(roi[2], roi[4], s, s.out_height, s.height), horizontal(roi[1], roi[3], s, s.out_width, s.width);
      const float count = static_cast<float>(vertical.samples) * static_cast<float>(horizontal.samples);
      T* to = y + number * s.out_height * s.out_width * s.channels;
      if (!inside || !(count > 0.0f)) {
        std::fill_n(to, s.out_height * s.out_width * s.channels, T{});
        continue;
      }
      for (std::int64_t i = 0; i < s.out_height; ++i) vertical.of_bin(i, rows[static_cast<std::size_t>(i)]);
      for (std::int64_t j = 0; j < s.out_width; ++j) horizontal.of_bin(j, columns[static_cast<std::size_t>(j)]);
      for (const auto& row_samples : rows) {
        for (const auto& column_samples : columns) {
          taps.clear();
          for (const Sample& row : row_samples) {
            for (const Sample& column : column_samples) {
              const auto add = [&](std::int64_t h, std::int64_t w, float weight) {
                taps.push_back({(h * s.width + w) * s.channels, weight});
              };
              add(row.low, column.low, row.low_weight * column.low_weight);
              add(row.low, column.high, row.low_weight * column.high_weight);
              add(row.high, column.low, row.high_weight * column.low_weight);
              add(row.high, column.high, row.high_weight * column.high_weight);
            }
          }
          std::int64_t c = 0;
          for (; c + 4 * lanes <= s.channels; c += 4 * lanes) mean_of_taps<4>(taps, count, map + c, to + c);
          for (; c + lanes <= s.channels; c += lanes) mean_of_taps<1>(taps, count, map + c, to + c);
          for (; c < s.channels; ++c) to[c] = mean_of_taps<T>(taps, count, map + c);
          to += s.channels;
        }
      }
    }
  });
}

template <class T> void align_codes(const RoiSizes& s, const void* x, const float* rois, void* y) {
  const std::int64_t count = s.images * s.height * s.width * s.channels;
  const Scratch floats(static_cast<std::size_t>(count) * sizeof(float));
  const auto* const from = static_cast<const T*>(x);
  float* const to = floats.data();
  parallel_for(count, 1 << 16, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) to[i] = static_cast<float>(from[i]);
  });
  align_floats(s, to, rois, static_cast<T*>(y));
}

}  // namespace

void quantized_roi_align_forward(Cpu, const RoiSizes& s, Dtype dtype, const void* x, const float* rois, void* y) {
  const auto align = dtype == Dtype::u8   ? align_codes<std::uint8_t>
                     : dtype == Dtype::s8 ? align_codes<std::int8_t>
                                          : align_codes<Half>;
  align(s, x, rois, y);
}

}  // namespace shrike::kernels
