#include "shrike/ops/loss.hpp"

#include <cmath>

#include "shrike/core/threads.hpp"

namespace shrike::kernels {
namespace {

// The sum of part(begin, end) over blocks of [0, n) of `block` elements, in order of the blocks.
template <class F> double sum_blocks(std::int64_t n, std::int64_t block, const F& part) {
  const std::int64_t blocks = (n + block - 1) / block;
  std::vector<double> sums(static_cast<std::size_t>(blocks));
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      sums[static_cast<std::size_t>(b)] = part(b * block, std::min(n, (b + 1) * block));
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// Sums term(i, &gradient[i]) times the weight of i, and scales the gradient likewise.
template <class F> void weighted_loss(std::int64_t n, const float* weight, float* loss, float* gradient, const F& term) {
  const float even = n > 0 ? static_cast<float>(1.0 / static_cast<double>(n)) : 0.0f;
  const double total = sum_blocks(n, 4096, [&](std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      gradient[i] = 0.0f;
      if (weight != nullptr && weight[i] == 0.0f) continue;
      const double value = term(i, gradient[i]);
      gradient[i] *= weight != nullptr ? weight[i] : even;
      sum += weight != nullptr ? value * weight[i] : value;
    }
    return sum;
  });
  *loss = static_cast<float>(weight != nullptr || n == 0 ? total : total / static_cast<double>(n));
}

}  // namespace

void softmax_cross_entropy_forward(Cpu, const CrossEntropySizes& s, const float* logits, const std::int32_t* labels,
                                   float* loss, float* gradient) {
  std::int64_t count = 0;
  for (std::int64_t row = 0; row < s.rows; ++row) {
    if (labels[row] == s.ignore_index) continue;
    ++count;
    SHRIKE_CHECK(labels[row] >= 0 && labels[row] < s.classes, "softmax_cross_entropy: label ", labels[row], " in row ", row,
                 ": expected 0 to ", s.classes - 1, " or ", s.ignore_index, " to ignore");
  }
  const auto scale = static_cast<float>(1.0 / static_cast<double>(std::max<std::int64_t>(count, 1)));
  const double total = sum_blocks(s.rows, 64, [&](std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t row = begin; row < end; ++row) {
      const float* x = logits + row * s.classes;
      float* dx = gradient + row * s.classes;
      if (labels[row] == s.ignore_index) {
        std::fill(dx, dx + s.classes, 0.0f);
        continue;
      }
      float top = x[0];
      for (std::int64_t i = 1; i < s.classes; ++i) top = x[i] > top ? x[i] : top;
      double denominator = 0;
      for (std::int64_t i = 0; i < s.classes; ++i) {
        dx[i] = std::exp(x[i] - top);
        denominator += dx[i];
      }
      const auto factor = static_cast<float>(scale / denominator);
      for (std::int64_t i = 0; i < s.classes; ++i) dx[i] *= factor;
      dx[labels[row]] -= scale;
      sum += std::log(denominator) - (static_cast<double>(x[labels[row]]) - top);
    }
    return sum;
  });
  *loss = static_cast<float>(count > 0 ? total / static_cast<double>(count) : 0.0);
}

void bce_with_logits_forward(Cpu, std::int64_t n, const float* logits, const float* target, const float* weight, float* loss,
                             float* gradient) {
  weighted_loss(n, weight, loss, gradient, [=](std::int64_t i, float& dx) {
    const float x = logits[i];
    const float small = std::exp(-std::fabs(x));  // at most 1: never overflows
    dx = (x >= 0.0f ? 1.0f : small) / (1.0f + small) - target[i];
    return std::max(x, 0.0f) - static_cast<double>(x) * target[i] + std::log1p(small);
  });
}

void smooth_l1_forward(Cpu, std::int64_t n, float beta, const float* prediction, const float* target, const float* weight,
                       float* loss, float* gradient) {
  weighted_loss(n, weight, loss, gradient, [=](std::int64_t i, float& dx) {
    const float d = prediction[i] - target[i];
    const double size = std::fabs(d);
    if (size < beta) {
      dx = d / beta;
      return 0.5 * size * size / beta;
    }
    dx = d > 0.0f ? 1.0f : d < 0.0f ? -1.0f : d;  // NaN stays NaN
    return size - 0.5 * beta;
  });
}

void sum_forward(Cpu, std::int64_t n, const float* x, float* y) {
  *y = static_cast<float>(sum_blocks(n, 1 << 14, [=](std::int64_t begin, std::int64_t end) {
    constexpr int lanes = 16;  // side by side, so that the additions need not wait for each other
    double sums[lanes] = {};
    std::int64_t i = begin;
    for (; i + lanes <= end; i += lanes) {
      for (int k = 0; k < lanes; ++k) sums[k] += x[i + k];
    }
    for (; i < end; ++i) sums[0] += x[i];
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
  }));
}

void sum_backward(Cpu, std::int64_t n, const float* dy, float* dx) { fill_f32(Cpu{}, n, *dy, dx); }

void scale_by(Cpu, std::int64_t n, const float* scale, const float* x, float* y) {
  parallel_for(n, 1 << 15, [=](std::int64_t begin, std::int64_t end) {
    const float factor = *scale;
    for (std::int64_t i = begin; i < end; ++i) y[i] = x[i] * factor;
  });
}

}  // namespace shrike::kernels
