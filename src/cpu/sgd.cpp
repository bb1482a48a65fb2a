#include <cmath>
#include <limits>
#include <vector>

#include "shrike/core/threads.hpp"
#include "shrike/nn/optim.hpp"

namespace shrike::kernels {

void sgd_step(Cpu, const SgdSlice* slices, std::size_t count, float momentum, float clip_norm, const float* norm) {
  if (!std::isfinite(*norm)) return;
  const bool clipped = clip_norm > 0 && *norm > clip_norm;
  const float grad_scale = clipped ? static_cast<float>(static_cast<double>(clip_norm) / static_cast<double>(*norm)) : 1.0f;
  for (std::size_t s = 0; s < count; ++s) {
    const SgdSlice slice = slices[s];
    parallel_for(slice.n, 1 << 15, [=](std::int64_t begin, std::int64_t end) {
      float* __restrict w = slice.weight;
      float* __restrict m = slice.momentum;
      const float* __restrict g = slice.grad;
      for (std::int64_t i = begin; i < end; ++i) {
        m[i] = momentum * m[i] + (grad_scale * g[i] + slice.weight_decay * w[i]);
        w[i] -= slice.lr * m[i];
      }
    });
  }
}

void moving_average_step(Cpu, const SgdSlice* slices, std::size_t count) {
  for (std::size_t s = 0; s < count; ++s) {
    const SgdSlice slice = slices[s];
    parallel_for(slice.n, 1 << 15, [=](std::int64_t begin, std::int64_t end) {
      float* __restrict average = slice.weight;
      const float* __restrict value = slice.grad;
      for (std::int64_t i = begin; i < end; ++i) average[i] += slice.lr * (value[i] - average[i]);
    });
  }
}

// Blocks of fixed size are summed in eight lanes each, then one after another: the order does not depend on the threads.
void gradient_norm(Cpu, const SgdSlice* slices, std::size_t count, const float* loss, float* norm) {
  constexpr std::int64_t block = 1 << 16;
  constexpr int lanes = 8;
  double sum = 0;
  for (std::size_t s = 0; s < count; ++s) {
    const SgdSlice slice = slices[s];
    std::vector<double> parts(static_cast<std::size_t>((slice.n + block - 1) / block));
    parallel_for(static_cast<std::int64_t>(parts.size()), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t part = begin; part < end; ++part) {
        const std::int64_t first = part * block;
        const std::int64_t last = std::min(first + block, slice.n);
        double lane[lanes] = {};
        std::int64_t i = first;
        for (; i + lanes <= last; i += lanes) {
          for (int k = 0; k < lanes; ++k) lane[k] += static_cast<double>(slice.grad[i + k]) * slice.grad[i + k];
        }
        for (; i < last; ++i) lane[0] += static_cast<double>(slice.grad[i]) * slice.grad[i];
        for (const double x : lane) parts[static_cast<std::size_t>(part)] += x;
      }
    });
    for (const double part : parts) sum += part;
  }
  const bool good = loss == nullptr || std::isfinite(*loss);
  *norm = good ? static_cast<float>(std::sqrt(sum)) : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace shrike::kernels
