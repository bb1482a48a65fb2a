#include "shrike/ops/linear.hpp"

#include "columns.hpp"
#include "onednn.hpp"
#include "shrike/core/parallel.hpp"
#include "shrike/ops/elementwise.hpp"

namespace shrike::kernels {
namespace {

void multiply(const onednn::Product& key, const float* a, const float* b, const float* bias, float* y) {
  onednn::execute(key, *onednn::primitive(key), a, b, bias, y);
}

}  // namespace

void linear_forward(Cpu, const LinearSizes& sizes, const float* x, const float* weight, const float* bias, float* y) {
  const auto [rows, in, out, relu] = sizes;
  if (rows == 0) return;
  multiply({rows, out, in, in, 1, 1, in, bias != nullptr, relu}, x, weight, bias, y);
}

void linear_backward(Cpu, const LinearSizes& sizes, const float* x, const float* weight, const float* y, const float* dy,
                     float* dx, float* dweight, float* dbias) {
  const auto [rows, in, out, relu] = sizes;
  if (rows == 0) {
    if (dweight != nullptr) std::fill_n(dweight, out * in, 0.0f);
    if (dbias != nullptr) std::fill_n(dbias, out, 0.0f);
    return;
  }
  onednn::Scratch masked;
  if (relu) {
    masked = onednn::Scratch(static_cast<std::size_t>(rows * out) * sizeof(float));
    relu_backward(Cpu{}, rows * out, y, dy, masked.data());
    dy = masked.data();
  }
  if (dx != nullptr) multiply({rows, in, out, out, 1, in, 1, false, false}, dy, weight, nullptr, dx);
  if (dweight != nullptr) multiply({out, in, rows, 1, out, in, 1, false, false}, dy, x, nullptr, dweight);
  if (dbias != nullptr) column_sums(rows, out, dy, dbias);
}

}  // namespace shrike::kernels
