#include "shrike/ops/softmax.hpp"

#include <cmath>

#include "shrike/core/threads.hpp"

namespace shrike::kernels {

void softmax_forward(Cpu, std::int64_t rows, std::int64_t columns, const float* x, float* y) {
  parallel_for(rows, std::max<std::int64_t>(1, 4096 / columns), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const float* in = x + row * columns;
      float* out = y + row * columns;
      float top = in[0];
      for (std::int64_t i = 1; i < columns; ++i) top = in[i] > top ? in[i] : top;
      double sum = 0;
      for (std::int64_t i = 0; i < columns; ++i) {
        out[i] = std::exp(in[i] - top);
        sum += out[i];
      }
      const auto scale = static_cast<float>(1.0 / sum);
      for (std::int64_t i = 0; i < columns; ++i) out[i] *= scale;
    }
  });
}

void softmax_backward(Cpu, std::int64_t rows, std::int64_t columns, const float* y, const float* dy, float* dx) {
  parallel_for(rows, std::max<std::int64_t>(1, 8192 / columns), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t at = row * columns;
      double sum = 0;
      for (std::int64_t i = at; i < at + columns; ++i) sum += static_cast<double>(y[i]) * dy[i];
      for (std::int64_t i = at; i < at + columns; ++i) dx[i] = y[i] * (dy[i] - static_cast<float>(sum));
    }
  });
}

}  // namespace shrike::kernels
