// Quantization of tensors: fake (rounded, but still float), to codes, and back; and what observers ask of a tensor.
#pragma once

#include <cmath>

#include "shrike/core/autograd.hpp"
#include "shrike/quant/scale.hpp"

namespace shrike {

namespace kernels {

// Element i belongs to channel i / inner, which has scale[i / inner]; one channel is the whole tensor. Codes lie in low ..
// high; they are s8 when low < 0, else u8.
struct QuantizeSizes {
  std::int64_t channels, inner;
  int low, high;
};

// q = clamp(rint(x / s), low, high), y = q * s with s = |scale|. Ties to even. Where the scale is 0, y = x. NaN stays NaN.
SHRIKE_KERNEL(fake_quantize_forward, const QuantizeSizes& sizes, const float* x, const float* scale, float* y);
// dx = dy where low <= rint(x / s) <= high, else 0. dscale [channels] (may be null) = factor * sign(scale) * the sum over the
// channel, in order, of dy * (rint(x / s) - x / s in range, low or high outside): Esser et al., "Learned Step Size
// Quantization", ICLR 2020. Where the scale is 0, dx = dy and dscale = 0. dx may be null.
SHRIKE_KERNEL(fake_quantize_backward, const QuantizeSizes& sizes, float factor, const float* x, const float* scale,
              const float* dy, float* dx, float* dscale);
// q = clamp(rint(x / scale), low, high). NaN becomes the lowest code.
SHRIKE_KERNEL(quantize_forward, const QuantizeSizes& sizes, const float* x, const float* scale, void* q);
// y = q * scale.
SHRIKE_KERNEL(dequantize_forward, const QuantizeSizes& sizes, const void* q, const float* scale, float* y);

// The least and greatest finite element of each row of x [rows, inner], to range [rows, 2]; 0 and 0 where there is none.
// not_finite [1] = the number of NaN and infinities.
SHRIKE_KERNEL(min_max_rows, std::int64_t rows, std::int64_t inner, const float* x, float* range, std::int64_t* not_finite);
// counts [bins] += how many |x| fall into [i * width, (i + 1) * width); what lies beyond counts in the last bin. x is finite.
SHRIKE_KERNEL(histogram_abs, std::int64_t n, std::int64_t bins, float width, const float* x, std::int64_t* counts);
// What an observer remembers: of each row the least and greatest value so far and the averages of the extremes, [rows, 4], and
// the number of values that were not finite, [1]. `after` is `before` with the range and count of one more tensor, whose share
// of the averages is `share`; with `start` there is no before.
SHRIKE_KERNEL(track_range, std::int64_t rows, float share, bool start, const float* range, const std::int64_t* odd,
              const float* before, const std::int64_t* odd_before, float* after, std::int64_t* odd_after);
// scale [rows] by scale_from_range() of range[pitch * row] and the element after it, for codes of low .. high. All are finite.
SHRIKE_KERNEL(range_scales, std::int64_t rows, std::int64_t pitch, int low, int high, const float* range, float* scale);

}  // namespace kernels

namespace detail {

// Sizes for x and its scales: [1], or one for each index of dimension 0. Throws Error when they do not fit.
inline kernels::QuantizeSizes quantize_sizes(const char* op, const Tensor& x, const Tensor& scale, bool per_channel,
                                             Dtype code) {
  const CodeRange range = code_range(code);
  const std::int64_t channels = per_channel ? x.size(0) : 1;
  SHRIKE_CHECK(scale.shape() == Shape{channels}, op, ": scale of shape ", scale.shape(), " for x of shape ", x.shape(),
               ": expected [", channels, "]");
  return {channels, channels > 0 ? x.numel() / channels : 0, range.low, range.high};
}

}  // namespace detail

// Rounds x to the values that codes can hold, so that training feels what int8 will do. Inputs x [...], scale [1] or, with
// per_channel, [size of dimension 0]; output like x. A scale of 0 is none yet: x passes unchanged. The gradient goes straight
// through where x is in range; it is tested again from x. With `learned`, the scale has the LSQ gradient, scaled by
// 1 / sqrt(elements per scale * highest code).
struct FakeQuantize : Op {
  std::string dtype = "s8";
  bool per_channel = false;
  bool learned = false;

  const char* name() const override { return "fake_quantize"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  void visit(Fields& fields) override {
    fields("dtype", dtype);
    fields("per_channel", per_channel);
    fields("learned", learned);
  }
};

// Inputs x f32 [...], scale like FakeQuantize's, greater than 0; output the codes, u8 or s8, of x's shape.
struct Quantize : Op {
  std::string dtype = "s8";
  bool per_channel = false;

  const char* name() const override { return "quantize"; }
  inline Tensors forward(const Tensors& in) const override;
  void visit(Fields& fields) override {
    fields("dtype", dtype);
    fields("per_channel", per_channel);
  }
};

// The reverse: codes u8 or s8 and scale -> f32.
struct Dequantize : Op {
  bool per_channel = false;

  const char* name() const override { return "dequantize"; }
  inline Tensors forward(const Tensors& in) const override;
  void visit(Fields& fields) override { fields("per_channel", per_channel); }
};

inline Tensors FakeQuantize::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  const auto sizes = detail::quantize_sizes(name(), x, in[1], per_channel, parse_code(dtype));
  const Tensor y(x.shape(), Dtype::f32, x.device());
  dispatch(x.device(),
           [&](auto d) { kernels::fake_quantize_forward(d, sizes, x.data<float>(), in[1].data<float>(), y.data<float>()); });
  return {y};
}

inline Tensors FakeQuantize::backward(const BackwardContext& context) const {
  const Tensor& x = context.inputs[0];
  const Tensor& scale = context.inputs[1];
  const auto sizes = detail::quantize_sizes(name(), x, scale, per_channel, parse_code(dtype));
  Tensors grads(2);
  if (context.needed[0]) grads[0] = Tensor(x.shape(), Dtype::f32, x.device());
  if (context.needed[1] && learned) grads[1] = Tensor(scale.shape(), Dtype::f32, x.device());
  const auto data = [](const Tensor& tensor) { return tensor.defined() ? tensor.data<float>() : nullptr; };
  const double elements = static_cast<double>(std::max<std::int64_t>(sizes.inner, 1));
  const auto factor = static_cast<float>(1.0 / std::sqrt(elements * sizes.high));
  dispatch(x.device(), [&](auto d) {
    kernels::fake_quantize_backward(d, sizes, factor, x.data<float>(), scale.data<float>(), context.grads[0].data<float>(),
                                    data(grads[0]), data(grads[1]));
  });
  return grads;
}

inline Tensors Quantize::forward(const Tensors& in) const {
  const Dtype code = parse_code(dtype);
  const auto sizes = detail::quantize_sizes(name(), in[0], in[1], per_channel, code);
  const Tensor q(in[0].shape(), code, in[0].device());
  dispatch(q.device(), [&](auto d) { kernels::quantize_forward(d, sizes, in[0].data<float>(), in[1].data<float>(), q.raw()); });
  return {q};
}

inline Tensors Dequantize::forward(const Tensors& in) const {
  const auto sizes = detail::quantize_sizes(name(), in[0], in[1], per_channel, in[0].dtype());
  const Tensor y(in[0].shape(), Dtype::f32, in[0].device());
  dispatch(y.device(),
           [&](auto d) { kernels::dequantize_forward(d, sizes, in[0].raw(), in[1].data<float>(), y.data<float>()); });
  return {y};
}

// x [...] and scale [1], or [size of dimension 0] for per_channel -> x rounded to the values of u8 or s8 codes.
inline Tensor fake_quantize(const Tensor& x, const Tensor& scale, Dtype dtype, bool learned = false) {
  FakeQuantize op;
  op.dtype = name(dtype);
  op.per_channel = scale.numel() != 1;
  op.learned = learned;
  return call(std::move(op), {x, scale})[0];
}

inline Tensor quantize(const Tensor& x, const Tensor& scale, Dtype dtype) {
  Quantize op;
  op.dtype = name(dtype);
  op.per_channel = scale.numel() != 1;
  return call(std::move(op), {x, scale})[0];
}

inline Tensor dequantize(const Tensor& q, const Tensor& scale) {
  Dequantize op;
  op.per_channel = scale.numel() != 1;
  return call(std::move(op), {q, scale})[0];
}

}  // namespace shrike
