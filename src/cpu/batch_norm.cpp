#include "shrike/ops/batch_norm.hpp"

#include <cmath>
#include <vector>

#include "columns.hpp"

namespace shrike::kernels {
namespace {

constexpr std::int64_t grain = 1 << 15;  // elements

template <class F> void for_rows(const BatchNormSizes& z, const F& f) {
  parallel_for(z.rows, std::max<std::int64_t>(1, grain / std::max<std::int64_t>(z.c, 1)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t row = begin; row < end; ++row) f(row * z.c);
               });
}

}  // namespace

// One pass over x: sums of (x - s) and (x - s)^2 with the first row as s, so that little cancels.
void batch_norm_statistics(Cpu, const BatchNormSizes& z, double momentum, const float* x, float* mean, float* inv_std,
                           float* running_mean, float* running_var) {
  const std::int64_t c = z.c;
  std::vector<double> sums(static_cast<std::size_t>(2 * c));
  sum_rows(z.rows, 2 * c, sums.data(), [=](std::int64_t row, float* buffer) {
    float* __restrict sum = buffer;
    float* __restrict squares = buffer + c;
    const float* __restrict from = x + row * c;
    for (std::int64_t i = 0; i < c; ++i) {
      const float shifted = from[i] - x[i];
      sum[i] += shifted;
      squares[i] += shifted * shifted;
    }
  });
  const auto n = static_cast<double>(std::max<std::int64_t>(z.rows, 1));
  for (std::int64_t i = 0; i < c; ++i) {
    const double shifted = sums[static_cast<std::size_t>(i)] / n;
    const double m = z.rows > 0 ? static_cast<double>(x[i]) + shifted : 0.0;
    const double var = std::max(0.0, sums[static_cast<std::size_t>(c + i)] / n - shifted * shifted);
    mean[i] = static_cast<float>(m);
    inv_std[i] = static_cast<float>(1.0 / std::sqrt(var + z.eps));
    if (z.rows == 0) continue;
    const double unbiased = var * n / std::max(n - 1.0, 1.0);
    if (running_mean != nullptr) running_mean[i] += static_cast<float>(momentum * (m - static_cast<double>(running_mean[i])));
    if (running_var != nullptr)
      running_var[i] += static_cast<float>(momentum * (unbiased - static_cast<double>(running_var[i])));
  }
}

void batch_norm_inv_std(Cpu, const BatchNormSizes& z, const float* var, float* inv_std) {
  for (std::int64_t i = 0; i < z.c; ++i) inv_std[i] = static_cast<float>(1.0 / std::sqrt(static_cast<double>(var[i]) + z.eps));
}

void batch_norm_forward(Cpu, const BatchNormSizes& z, const float* x, const float* weight, const float* bias, const float* mean,
                        const float* inv_std, float* y) {
  std::vector<float> coefficients(static_cast<std::size_t>(2 * z.c));
  const float* __restrict scale = coefficients.data();
  const float* __restrict shift = scale + z.c;
  for (std::int64_t i = 0; i < z.c; ++i) {
    const float s = weight[i] * inv_std[i];
    coefficients[static_cast<std::size_t>(i)] = s;
    coefficients[static_cast<std::size_t>(z.c + i)] = bias[i] - mean[i] * s;
  }
  for_rows(z, [=, c = z.c, relu = z.relu](std::int64_t at) {
    const float* __restrict from = x + at;
    float* __restrict to = y + at;
    if (relu) {
      for (std::int64_t i = 0; i < c; ++i) {
        const float value = from[i] * scale[i] + shift[i];
        to[i] = value < 0.0f ? 0.0f : value;
      }
    } else {
      for (std::int64_t i = 0; i < c; ++i) to[i] = from[i] * scale[i] + shift[i];
    }
  });
}

// With xhat = (x - mean) inv_std and sums over the n rows: dbias = sum dy, dweight = sum dy xhat, and in training
// dx = weight inv_std (dy - dbias / n - xhat dweight / n), else dx = weight inv_std dy.
void batch_norm_backward(Cpu, const BatchNormSizes& z, bool training, const float* x, const float* weight, const float* mean,
                         const float* inv_std, const float* y, const float* dy, float* dx, float* dweight, float* dbias) {
  const std::int64_t c = z.c;
  std::vector<double> sums(static_cast<std::size_t>(2 * c));
  if (dweight != nullptr || dbias != nullptr || (training && dx != nullptr)) {
    sum_rows(z.rows, 2 * c, sums.data(), [=](std::int64_t row, float* buffer) {
      float* __restrict of_dy = buffer;
      float* __restrict of_product = buffer + c;
      const float* __restrict g = dy + row * c;
      const float* __restrict out = y == nullptr ? g : y + row * c;
      const float* __restrict from = x + row * c;
      for (std::int64_t i = 0; i < c; ++i) {
        const float gradient = y == nullptr || out[i] > 0.0f ? g[i] : 0.0f;
        of_dy[i] += gradient;
        of_product[i] += gradient * (from[i] - mean[i]);
      }
    });
  }
  std::vector<float> coefficients(static_cast<std::size_t>(3 * c));  // dx = a dy + b x + d
  float* a = coefficients.data();
  float* b = a + c;
  float* d = b + c;
  const auto n = static_cast<double>(std::max<std::int64_t>(z.rows, 1));
  for (std::int64_t i = 0; i < c; ++i) {
    const double sum = sums[static_cast<std::size_t>(i)];
    const double product = sums[static_cast<std::size_t>(c + i)] * static_cast<double>(inv_std[i]);
    if (dbias != nullptr) dbias[i] = static_cast<float>(sum);
    if (dweight != nullptr) dweight[i] = static_cast<float>(product);
    a[i] = weight[i] * inv_std[i];
    b[i] = training ? -a[i] * inv_std[i] * static_cast<float>(product / n) : 0.0f;
    d[i] = training ? -a[i] * static_cast<float>(sum / n) - b[i] * mean[i] : 0.0f;
  }
  if (dx == nullptr) return;
  for_rows(z, [=, ca = static_cast<const float*>(a), cb = static_cast<const float*>(b),
               cd = static_cast<const float*>(d)](std::int64_t at) {
    const float* __restrict g = dy + at;
    const float* __restrict out = y == nullptr ? g : y + at;
    const float* __restrict from = x + at;
    float* __restrict to = dx + at;
    for (std::int64_t i = 0; i < c; ++i) {
      const float gradient = y == nullptr || out[i] > 0.0f ? g[i] : 0.0f;
      to[i] = ca[i] * gradient + (cb[i] * from[i] + cd[i]);
    }
  });
}

}  // namespace shrike::kernels
