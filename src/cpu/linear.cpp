#include "shrike/ops/linear.hpp"

#include <algorithm>
#include <limits>

#include "columns.hpp"
#include "onednn.hpp"
#include "shrike/core/last_kernel.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/ops/elementwise.hpp"

namespace shrike::kernels {
namespace {

// What is added to a matrix product's rows: a bias, and the clamp of ReLU.
void finish(std::int64_t rows, std::int64_t out, const float* bias, bool relu, float* y) {
  if (bias == nullptr && !relu) return;
  const float floor = relu ? 0.0f : -std::numeric_limits<float>::infinity();
  parallel_for(rows, std::max<std::int64_t>(1, (1 << 15) / out), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* __restrict to = y + row * out;
      for (std::int64_t i = 0; bias != nullptr && i < out; ++i) to[i] += bias[i];
      for (std::int64_t i = 0; i < out; ++i) to[i] = to[i] < floor ? floor : to[i];
    }
  });
}

}  // namespace

void linear_forward(Cpu, const LinearSizes& sizes, const float* x, const float* weight, const float* bias, float* y) {
  const auto [rows, in, out, relu] = sizes;
  if (rows == 0) return;
  last_kernel() = "onednn sgemm";
  onednn::multiply(false, true, rows, out, in, x, weight, y);
  finish(rows, out, bias, relu, y);
}

void linear_backward(Cpu, const LinearSizes& sizes, const float* x, const float* weight, const float* y, const float* dy,
                     float* dx, float* dweight, float* dbias) {
  const auto [rows, in, out, relu] = sizes;
  if (rows == 0) {
    if (dweight != nullptr) std::fill_n(dweight, out * in, 0.0f);
    if (dbias != nullptr) std::fill_n(dbias, out, 0.0f);
    return;
  }
  Scratch masked;
  if (relu) {
    masked = Scratch(static_cast<std::size_t>(rows * out) * sizeof(float));
    relu_backward(Cpu{}, rows * out, y, dy, masked.data());
    dy = masked.data();
  }
  if (dx != nullptr) onednn::multiply(false, false, rows, in, out, dy, weight, dx);
  if (dweight != nullptr) onednn::multiply(true, false, out, in, rows, dy, x, dweight);
  if (dbias != nullptr) column_sums(rows, out, dy, dbias);
}

}  // namespace shrike::kernels
