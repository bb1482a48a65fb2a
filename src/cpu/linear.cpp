// Linear layers as matrix products.
#include "shrike/ops/linear.hpp"

#include <algorithm>

#include "gemm/gemm.hpp"
#include "isa.hpp"
#include "shrike/core/last_kernel.hpp"
#include "shrike/ops/elementwise.hpp"

namespace shrike::kernels {

void linear_forward(Cpu, const LinearSizes& sizes, const float* x, const float* weight, const float* bias, float* y) {
  const auto [rows, in, out, relu] = sizes;
  if (rows == 0) return;
  const cpu::FloatKernels& isa = cpu::float_kernels();
  last_kernel() = std::string("gemm ") + isa.name;
  cpu::multiply(isa, {rows, out, in}, cpu::MatrixLeft(x, in), cpu::MatrixRight(weight, in, true), nullptr,
                {bias, nullptr, relu}, {y, out});
}

void linear_backward(Cpu, const LinearSizes& sizes, const float* x, const float* weight, const float* y, const float* dy,
                     float* dx, float* dweight, float* dbias) {
  const auto [rows, in, out, relu] = sizes;
  if (rows == 0) {
    if (dweight != nullptr) std::fill_n(dweight, out * in, 0.0f);
    if (dbias != nullptr) std::fill_n(dbias, out, 0.0f);
    return;
  }
  const cpu::FloatKernels& isa = cpu::float_kernels();
  if (dx != nullptr) {
    const Scratch masked = scratch_floats(relu ? rows * out : 0);
    if (relu) relu_backward(Cpu{}, rows * out, y, dy, masked.data());
    cpu::multiply(isa, {rows, in, out}, cpu::MatrixLeft(relu ? masked.data() : dy, out), cpu::MatrixRight(weight, in, false),
                  nullptr, {}, {dx, in});
  }
  if (dweight == nullptr && dbias == nullptr) return;
  cpu::multiply_outer(isa, {rows, out, in, dy, relu ? y : nullptr, out, dweight, in, dbias}, cpu::MatrixLeft(x, in));
}

}  // namespace shrike::kernels
