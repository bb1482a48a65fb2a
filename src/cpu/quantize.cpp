#include "shrike/ops/quantize.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "int8_kernels.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::kernels {
namespace {

constexpr std::int64_t grain = 1 << 15;

// Calls f(begin, end, s) for runs of elements that share the channel's scale s, in parallel.
template <class F> void for_runs(const QuantizeSizes& sizes, const float* scale, const F& f) {
  if (sizes.inner == 0) return;
  parallel_for(sizes.channels * sizes.inner, grain, [&](std::int64_t begin, std::int64_t end) {
    while (begin < end) {
      const std::int64_t channel = begin / sizes.inner;
      const std::int64_t stop = std::min(end, (channel + 1) * sizes.inner);
      f(begin, stop, std::abs(scale[channel]));
      begin = stop;
    }
  });
}

// clamp(rint(x / s)); NaN stays NaN.
inline float code_of(float x, float s, float low, float high) {
  const float q = std::nearbyint(x / s);
  return q < low ? low : q > high ? high : q;
}

template <class Q> void from_codes(const QuantizeSizes& sizes, const Q* q, const float* scale, float* y) {
  for_runs(sizes, scale, [=](std::int64_t begin, std::int64_t end, float s) {
    for (std::int64_t i = begin; i < end; ++i) y[i] = static_cast<float>(q[i]) * s;
  });
}

}  // namespace

void fake_quantize_forward(Cpu, const QuantizeSizes& sizes, const float* x, const float* scale, float* y) {
  const auto low = static_cast<float>(sizes.low), high = static_cast<float>(sizes.high);
  for_runs(sizes, scale, [=](std::int64_t begin, std::int64_t end, float s) {
    if (s == 0) {
      std::copy(x + begin, x + end, y + begin);
    } else {
      for (std::int64_t i = begin; i < end; ++i) y[i] = code_of(x[i], s, low, high) * s;
    }
  });
}

void fake_quantize_backward(Cpu, const QuantizeSizes& sizes, float factor, const float* x, const float* scale, const float* dy,
                            float* dx, float* dscale) {
  const auto low = static_cast<float>(sizes.low), high = static_cast<float>(sizes.high);
  if (dx != nullptr) {
    for_runs(sizes, scale, [=](std::int64_t begin, std::int64_t end, float s) {
      if (s == 0) {
        std::copy(dy + begin, dy + end, dx + begin);
        return;
      }
      for (std::int64_t i = begin; i < end; ++i) {
        const float q = std::nearbyint(x[i] / s);
        dx[i] = q >= low && q <= high ? dy[i] : 0.0f;
      }
    });
  }
  if (dscale == nullptr) return;
  // The sum's order must not depend on the number of threads: blocks of one size, added up in their order.
  constexpr std::int64_t block = 1 << 14;
  const std::int64_t blocks = (sizes.inner + block - 1) / block;
  std::vector<double> sums(static_cast<std::size_t>(sizes.channels * blocks));
  const std::int64_t each = std::clamp<std::int64_t>(sizes.inner, 1, block);
  parallel_for(sizes.channels * blocks, std::max<std::int64_t>(grain / each, 1), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      const std::int64_t channel = b / blocks;
      const std::int64_t begin = channel * sizes.inner + b % blocks * block;
      const std::int64_t end = std::min(begin + block, (channel + 1) * sizes.inner);
      const float s = std::abs(scale[channel]);
      double sum = 0;
      for (std::int64_t i = begin; i < end && s != 0; ++i) {
        const float v = x[i] / s;
        const float q = std::nearbyint(v);
        const float slope = q < low ? low : q > high ? high : q - v;
        sum += static_cast<double>(dy[i]) * slope;
      }
      sums[static_cast<std::size_t>(b)] = sum;
    }
  });
  for (std::int64_t channel = 0; channel < sizes.channels; ++channel) {
    double sum = 0;
    for (std::int64_t b = 0; b < blocks; ++b) sum += sums[static_cast<std::size_t>(channel * blocks + b)];
    dscale[channel] = static_cast<float>(sum * (scale[channel] < 0 ? -factor : factor));
  }
}

void quantize_forward(Cpu, const QuantizeSizes& sizes, const float* x, const float* scale, void* q) {
  const auto encode = int8::kernels().encode;
  const auto low = static_cast<float>(sizes.low), high = static_cast<float>(sizes.high);
  for_runs(sizes, scale, [=](std::int64_t begin, std::int64_t end, float s) {
    encode(end - begin, x + begin, s, low, high, static_cast<std::uint8_t*>(q) + begin);
  });
}

void dequantize_forward(Cpu, const QuantizeSizes& sizes, const void* q, const float* scale, float* y) {
  if (sizes.low < 0) {
    from_codes(sizes, static_cast<const std::int8_t*>(q), scale, y);
  } else {
    from_codes(sizes, static_cast<const std::uint8_t*>(q), scale, y);
  }
}

void min_max_rows(Cpu, std::int64_t rows, std::int64_t inner, const float* x, float* range, std::int64_t* not_finite) {
  std::mutex mutex;  // guards range and not_finite; least, greatest and a count come out the same in any order
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (std::int64_t row = 0; row < rows; ++row) range[2 * row] = inf, range[2 * row + 1] = -inf;
  *not_finite = 0;
  if (inner > 0) {
    parallel_for(rows * inner, grain, [&](std::int64_t begin, std::int64_t end) {
      while (begin < end) {
        const std::int64_t row = begin / inner;
        const std::int64_t stop = std::min(end, (row + 1) * inner);
        float low = inf, high = -inf;
        std::int64_t odd = 0;
        for (std::int64_t i = begin; i < stop; ++i) {
          const bool finite = std::abs(x[i]) < inf;
          odd += !finite;
          low = finite && x[i] < low ? x[i] : low;
          high = finite && x[i] > high ? x[i] : high;
        }
        const std::lock_guard lock(mutex);
        range[2 * row] = std::min(range[2 * row], low);
        range[2 * row + 1] = std::max(range[2 * row + 1], high);
        *not_finite += odd;
        begin = stop;
      }
    });
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    if (range[2 * row] > range[2 * row + 1]) range[2 * row] = range[2 * row + 1] = 0;
  }
}

void histogram_abs(Cpu, std::int64_t n, std::int64_t bins, float width, const float* x, std::int64_t* counts) {
  std::mutex mutex;
  const auto last = static_cast<float>(bins - 1);
  parallel_for(n, std::max(grain, 16 * bins), [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int64_t> own(static_cast<std::size_t>(bins));
    for (std::int64_t i = begin; i < end; ++i) ++own[static_cast<std::size_t>(std::min(std::abs(x[i]) / width, last))];
    const std::lock_guard lock(mutex);
    for (std::int64_t b = 0; b < bins; ++b) counts[b] += own[static_cast<std::size_t>(b)];
  });
}

void track_range(Cpu, std::int64_t rows, float share, bool start, const float* range, const std::int64_t* odd,
                 const float* before, const std::int64_t* odd_before, float* after, std::int64_t* odd_after) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const float low = range[2 * r], high = range[2 * r + 1];
    after[4 * r] = start ? low : std::min(before[4 * r], low);
    after[4 * r + 1] = start ? high : std::max(before[4 * r + 1], high);
    after[4 * r + 2] = start ? low : std::fma(share, low - before[4 * r + 2], before[4 * r + 2]);
    after[4 * r + 3] = start ? high : std::fma(share, high - before[4 * r + 3], before[4 * r + 3]);
  }
  *odd_after = *odd + (start ? 0 : *odd_before);
}

void range_scales(Cpu, std::int64_t rows, std::int64_t pitch, int low, int high, const float* range, float* scale) {
  const Dtype dtype = low < 0 ? Dtype::s8 : Dtype::u8;
  SHRIKE_CHECK(high == code_range(dtype).high, "scales for codes ", low, " to ", high);
  for (std::int64_t r = 0; r < rows; ++r) scale[r] = scale_from_range(range[pitch * r], range[pitch * r + 1], dtype);
}

}  // namespace shrike::kernels
