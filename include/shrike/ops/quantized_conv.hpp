// Two-dimensional convolution of int8 codes.
#pragma once

#include "shrike/ops/conv.hpp"
#include "shrike/ops/requantize.hpp"

namespace shrike {

namespace kernels {

// y = requantized conv(x, weight) + bias: x [n, h, w, c], weight [k, r, s, c / groups], y [n, p, q, k]; overwritten.
// sizes.relu is to.relu.
SHRIKE_KERNEL(quantized_conv2d_forward, const Conv2dSizes& sizes, const Requantize& to, const QuantizedOperands& operands);

}  // namespace kernels

// Inputs x u8 or s8 [N, H, W, C], weight s8 [K, R, S, C / groups], bias s32 [K], multiplier f32 [K] and, if there are five, a
// residual, u8 or s8, of the output's shape; output [N, P, Q, K] as in Conv2d, of dtype `output`: "u8", "s8" or "f32". What
// exactly is computed is said in ops/requantize.hpp. Padding is with code 0. No gradient.
struct QuantizedConv2d : ConvolutionOp {
  std::string output = "u8";
  double residual_multiplier = 0.0;

  const char* name() const override { return "quantized_conv2d"; }
  inline Tensors forward(const Tensors& in) const override;
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override {
    ConvolutionOp::visit(fields);
    fields("output", output);
    fields("residual_multiplier", residual_multiplier);
  }
};

inline Tensors QuantizedConv2d::forward(const Tensors& in) const {
  SHRIKE_CHECK(in.size() >= 4, name(), ": ", in.size(), " inputs: expected x, weight, bias, multiplier");
  const auto sizes = this->sizes(in[0].shape(), in[1].shape());
  const Shape shape{sizes.n, sizes.p, sizes.q, sizes.k};
  const auto to =
      detail::requantize(name(), in, output, relu, residual_multiplier, sizes.r * sizes.s * (sizes.c / groups), sizes.k, shape);
  const Tensor y(shape, to.y, in[0].device());
  if (y.numel() == 0) return {y};
  dispatch(y.device(), [&](auto d) { kernels::quantized_conv2d_forward(d, sizes, to, detail::quantized_operands(in, y)); });
  return {y};
}

}  // namespace shrike
