#include "shrike/ops/elementwise.hpp"

#include "shrike/core/threads.hpp"

namespace shrike::kernels {
namespace {

constexpr std::int64_t grain = 1 << 15;

}  // namespace

void relu_forward(Cpu, std::int64_t n, const float* x, float* y) {
  parallel_for(n, grain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) y[i] = x[i] < 0.0f ? 0.0f : x[i];
  });
}

void relu_backward(Cpu, std::int64_t n, const float* y, const float* dy, float* dx) {
  parallel_for(n, grain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) dx[i] = y[i] > 0.0f ? dy[i] : 0.0f;
  });
}

void add_forward(Cpu, std::int64_t n, const float* a, const float* b, bool relu, float* y) {
  parallel_for(n, grain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float sum = a[i] + b[i];
      y[i] = relu && sum < 0.0f ? 0.0f : sum;
    }
  });
}

void scale_forward(Cpu, std::int64_t n, const float* x, float factor, float* y) {
  parallel_for(n, grain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) y[i] = factor * x[i];
  });
}

}  // namespace shrike::kernels
