// Convolutions in float: which kernels do which.
#include "shrike/ops/conv.hpp"

#include <algorithm>

#include "../isa.hpp"
#include "few_channels.hpp"
#include "implicit_gemm.hpp"
#include "packed.hpp"
#include "shrike/core/last_kernel.hpp"
#include "winograd.hpp"

namespace shrike::kernels {
namespace {

void note(const char* kernel) { last_kernel() = std::string(kernel) + " " + cpu::float_kernels().name; }

}  // namespace

void conv2d_forward(Cpu, const Conv2dSizes& sizes, const float* x, const float* weight, const float* bias,
                    const float* residual, Companion* beside_weight, float* y) {
  if (sizes.n == 0) return;
  if (cpu::winograd::fits(sizes)) {
    note("winograd 4x4");
    const auto packed = cpu::packed_weights(sizes, cpu::Form::winograd, weight, beside_weight);
    return cpu::winograd::forward(sizes, x, weight, packed ? packed->winograd.data() : nullptr, bias, residual, y);
  }
  const bool few = cpu::few_channels::fits(sizes);
  note(few ? "few channels" : "implicit gemm");
  const auto packed = cpu::packed_weights(sizes, cpu::Form::panels, weight, beside_weight);
  const auto forward = few ? cpu::few_channels::forward : cpu::implicit_gemm::forward;
  forward(sizes, x, weight, packed ? &packed->panels : nullptr, bias, residual, y);
}

void conv2d_backward(Cpu, const Conv2dSizes& sizes, const float* x, const float* weight, const float* y, const float* dy,
                     float* dx, float* dweight, float* dbias) {
  if (sizes.n == 0) {
    if (dweight != nullptr) std::fill_n(dweight, sizes.k * sizes.r * sizes.s * (sizes.c / sizes.groups), 0.0f);
    if (dbias != nullptr) std::fill_n(dbias, sizes.k, 0.0f);
    return;
  }
  const float* const mask = sizes.relu ? y : nullptr;
  const bool tiles = cpu::winograd::fits(sizes);
  if (dx != nullptr) {
    tiles ? cpu::winograd::backward_data(sizes, weight, mask, dy, dx)
          : cpu::implicit_gemm::backward_data(sizes, weight, mask, dy, dx);
  }
  if (dweight == nullptr && dbias == nullptr) return;
  if (tiles && dweight != nullptr) return cpu::winograd::backward_weight(sizes, x, mask, dy, dweight, dbias);
  if (cpu::few_channels::fits(sizes)) return cpu::few_channels::backward_weight(sizes, x, mask, dy, dweight, dbias);
  cpu::implicit_gemm::backward_weight(sizes, x, mask, dy, dweight, dbias);
}

}  // namespace shrike::kernels
