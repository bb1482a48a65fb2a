// Linear (fully connected) layers of int8 codes.
#pragma once

#include "shrike/ops/linear.hpp"
#include "shrike/ops/requantize.hpp"

namespace shrike {

namespace kernels {

// y [rows, out] = requantized x [rows, in] * weight [out, in]^T + bias; overwritten. sizes.relu is to.relu.
SHRIKE_KERNEL(quantized_linear_forward, const LinearSizes& sizes, const Requantize& to, const QuantizedOperands& operands);

}  // namespace kernels

// Inputs x u8 or s8 [N, in], weight s8 [out, in], bias s32 [out], multiplier f32 [out] and, if there are five, a residual, u8
// or s8 [N, out]; output [N, out] of dtype `output`: "u8", "s8" or "f32". What exactly is computed is said in
// ops/requantize.hpp. No gradient.
struct QuantizedLinear : Op {
  bool relu = false;
  std::string output = "u8";
  double residual_multiplier = 0.0;

  const char* name() const override { return "quantized_linear"; }
  inline Tensors forward(const Tensors& in) const override;
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override {
    fields("relu", relu);
    fields("output", output);
    fields("residual_multiplier", residual_multiplier);
  }
};

inline Tensors QuantizedLinear::forward(const Tensors& in) const {
  SHRIKE_CHECK(in.size() >= 4, name(), ": ", in.size(), " inputs: expected x, weight, bias, multiplier");
  const Tensor& x = in[0];
  const Tensor& weight = in[1];
  SHRIKE_CHECK(x.rank() == 2, name(), ": x has shape ", x.shape(), ": expected [N, in]");
  SHRIKE_CHECK(weight.rank() == 2 && weight.size(1) == x.size(1) && weight.numel() > 0, name(), ": weight has shape ",
               weight.shape(), ": expected [out, ", x.size(1), "] for x of shape ", x.shape());
  const Shape shape{x.size(0), weight.size(0)};
  const auto to = detail::requantize(name(), in, output, relu, residual_multiplier, x.size(1), weight.size(0), shape);
  const Tensor y(shape, to.y, x.device());
  if (y.numel() == 0) return {y};
  dispatch(y.device(), [&](auto d) {
    kernels::quantized_linear_forward(d, {x.size(0), x.size(1), weight.size(0), relu}, to, detail::quantized_operands(in, y));
  });
  return {y};
}

}  // namespace shrike
