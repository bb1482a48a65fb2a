// Dynamic quantization: the range of a layer's input is found when it runs, and the products are of int8 codes.
#pragma once

#include "shrike/ops/quantize.hpp"
#include "shrike/ops/quantized_conv.hpp"
#include "shrike/ops/quantized_linear.hpp"

namespace shrike {

namespace kernels {

// scale [1] = the scale (quant/scale.hpp) at which the finite elements of x just fit codes of low .. high, on x's device.
// Elements that are not finite are passed over; for codes that cannot be negative, so are those below 0.
SHRIKE_KERNEL(dynamic_scale, std::int64_t n, int low, int high, const float* x, float* scale);

}  // namespace kernels

// Input x f32 [...]; outputs the codes of x, u8 or s8, and their scale, f32 [1]: max |x| / 127 for s8, max(x) / 255 for u8, of
// the whole tensor, and greater than 0 where that is 0. Codes are rounded as by Quantize; on a device nothing is read back. NaN
// becomes the lowest code, infinities the code at their end. No gradient.
struct DynamicQuantize : Op {
  std::string dtype = "s8";

  const char* name() const override { return "dynamic_quantize"; }
  inline Tensors forward(const Tensors& in) const override;
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override { fields("dtype", dtype); }
};

// Inputs x u8 or s8 [N, H, W, C], weight s8 [K, R, S, C / groups], bias f32 [K] (may be undefined), the scales of the weight's
// output channels f32 [K], the scale of x f32 [1] and, if there are six, a residual f32 of the output's shape; output f32 [N,
// P, Q, K] as in Conv2d. What exactly is computed is said in ops/requantize.hpp. No gradient.
struct DynamicConv2d : ConvolutionOp {
  const char* name() const override { return "dynamic_conv2d"; }
  inline Tensors forward(const Tensors& in) const override;
  bool saves_input(std::size_t) const override { return false; }
};

// Inputs x u8 or s8 [N, in], weight s8 [out, in], bias f32 [out] (may be undefined), the scales of the weight's output channels
// f32 [out] and the scale of x f32 [1]; output f32 [N, out]. As ops/requantize.hpp says. No gradient.
struct DynamicLinear : Op {
  bool relu = false;

  const char* name() const override { return "dynamic_linear"; }
  inline Tensors forward(const Tensors& in) const override;
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override { fields("relu", relu); }
};

namespace detail {

// Throws Error unless the operands (x, weight, bias, scales of the weight, scale of x and, if there is a sixth, residual) have
// dtypes and shapes that make a layer of `channels` outputs of shape y, and sums of `depth` products fit into 32 bits.
inline kernels::Requantize dynamic_layer(const char* op, const Tensors& in, bool relu, std::int64_t depth,
                                         std::int64_t channels, const Shape& y) {
  const auto expect = [&](std::size_t i, const char* what, Dtype dtype, const Shape& shape) {
    SHRIKE_CHECK(in[i].defined() && in[i].dtype() == dtype && in[i].shape() == shape, op, ": ", what, " is ",
                 in[i].defined() ? message(name(in[i].dtype()), ' ', in[i].shape()) : "missing", ": expected ", name(dtype),
                 ' ', shape);
  };
  const Dtype x = in[0].dtype();
  SHRIKE_CHECK(x == Dtype::u8 || x == Dtype::s8, op, ": x is ", name(x), ": expected u8 or s8");
  SHRIKE_CHECK(in[1].dtype() == Dtype::s8, op, ": weight is ", name(in[1].dtype()), ": expected s8");
  if (in[2].defined()) expect(2, "bias", Dtype::f32, {channels});
  expect(3, "the weight's scale", Dtype::f32, {channels});
  expect(4, "the scale of x", Dtype::f32, {1});
  if (in.size() > 5 && in[5].defined()) expect(5, "residual", Dtype::f32, y);
  check_devices(op, in);
  room_for_bias(op, x, depth);
  return {x, Dtype::f32, Dtype::f32, relu, 0.0f};
}

inline kernels::QuantizedOperands dynamic_operands(const Tensors& in, const Tensor& y) {
  const bool added = in.size() > 5 && in[5].defined();
  kernels::QuantizedOperands operands{in[0].raw(),
                                      in[1].data<const std::int8_t>(),
                                      nullptr,
                                      in[3].data<const float>(),
                                      added ? in[5].raw() : nullptr,
                                      y.raw(),
                                      &in[1].companion()};
  operands.x_scale = in[4].data<const float>();
  operands.addend = in[2].defined() ? in[2].data<const float>() : nullptr;
  return operands;
}

}  // namespace detail

inline Tensors DynamicQuantize::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  const Dtype code = parse_code(dtype);
  const CodeRange range = code_range(code);
  const Tensor q(x.shape(), code, x.device()), scale({1}, Dtype::f32, x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::dynamic_scale(d, x.numel(), range.low, range.high, x.data<const float>(), scale.data<float>());
    kernels::quantize_forward(d, {1, x.numel(), range.low, range.high}, x.data<const float>(), scale.data<const float>(),
                              q.raw());
  });
  return {q, scale};
}

inline Tensors DynamicConv2d::forward(const Tensors& in) const {
  SHRIKE_CHECK(in.size() == 5 || in.size() == 6, name(), ": ", in.size(),
               " inputs: expected x, weight, bias, scales of weight and x, and a residual at most");
  const auto sizes = this->sizes(in[0].shape(), in[1].shape());
  const Shape shape{sizes.n, sizes.p, sizes.q, sizes.k};
  const auto to = detail::dynamic_layer(name(), in, relu, sizes.r * sizes.s * (sizes.c / groups), sizes.k, shape);
  const Tensor y(shape, Dtype::f32, in[0].device());
  if (y.numel() == 0) return {y};
  dispatch(y.device(), [&](auto d) { kernels::quantized_conv2d_forward(d, sizes, to, detail::dynamic_operands(in, y)); });
  return {y};
}

inline Tensors DynamicLinear::forward(const Tensors& in) const {
  SHRIKE_CHECK(in.size() == 5, name(), ": ", in.size(), " inputs: expected x, weight, bias, scales of weight and x");
  const Tensor& x = in[0];
  const Tensor& weight = in[1];
  SHRIKE_CHECK(x.rank() == 2, name(), ": x has shape ", x.shape(), ": expected [N, in]");
  SHRIKE_CHECK(weight.rank() == 2 && weight.size(1) == x.size(1) && weight.numel() > 0, name(), ": weight has shape ",
               weight.shape(), ": expected [out, ", x.size(1), "] for x of shape ", x.shape());
  const Shape shape{x.size(0), weight.size(0)};
  const auto to = detail::dynamic_layer(name(), in, relu, x.size(1), weight.size(0), shape);
  const Tensor y(shape, Dtype::f32, x.device());
  if (y.numel() == 0) return {y};
  dispatch(y.device(), [&](auto d) {
    kernels::quantized_linear_forward(d, {x.size(0), x.size(1), weight.size(0), relu}, to, detail::dynamic_operands(in, y));
  });
  return {y};
}

// x f32 [...] -> its codes, u8 or s8, and their scale [1].
inline std::pair<Tensor, Tensor> dynamic_quantize(const Tensor& x, Dtype dtype) {
  DynamicQuantize op;
  op.dtype = name(dtype);
  const Tensors out = call(std::move(op), {x});
  return {out[0], out[1]};
}

}  // namespace shrike
