// What ends every int8 layer: an exact int32 accumulator becomes an output code, alike to the bit on every device.
//
//   acc = bias + sum x * w                                        exactly, in int32
//   t = float(acc) * multiplier[k]                                rounded once to float32
//   t = fmaf(float(residual), residual_multiplier, t)             if there is a residual
//   y = min(max(rint(t), low), high)                              ties to even; u8: [0, 255], s8: [-127, 127]; relu: low is 0
//   y = t, or 0 where t < 0 and relu                              for f32
//
// Scales of activations and weights make the multiplier: s_x * s_w[k] / s_y for codes, s_x * s_w[k] for f32. They are finite
// and positive; should t be no number all the same, a code is the lowest.
//
// In dynamic quantization s_x is known when the layer runs; y, bias and residual are f32, and there is no quantized bias:
//
//   acc = sum x * w                                               exactly, in int32
//   t = float(acc) * (s_w[k] * s_x)                               both products rounded once to float32
//   t = t + bias[k], t = t + residual                             where there are any, each sum rounded once
//   y = t, or 0 where t < 0 and relu                              NaN stays
#pragma once

#include <algorithm>
#include <cmath>

#include "shrike/core/autograd.hpp"

namespace shrike {

namespace kernels {

// Types of the operands: x and residual are u8 or s8 (residual as x where there is none), y is u8, s8 or f32. In dynamic
// quantization residual and y are f32.
struct Requantize {
  Dtype x = Dtype::u8;
  Dtype y = Dtype::u8;
  Dtype residual = Dtype::u8;
  bool relu = false;
  float residual_multiplier = 0.0f;

  float low() const { return y == Dtype::f32 ? (relu ? 0.0f : -HUGE_VALF) : relu || y == Dtype::u8 ? 0.0f : -127.0f; }
  float high() const { return y == Dtype::f32 ? HUGE_VALF : y == Dtype::u8 ? 255.0f : 127.0f; }
};

// Where the operands are: weight s8, bias s32 [k], multiplier f32 [k]; residual, of y's shape, may be null. With x_scale they
// are those of dynamic quantization: multiplier is s_w, bias is null, and addend, which may be null, is the bias in float.
struct QuantizedOperands {
  const void* x;
  const std::int8_t* weight;
  const std::int32_t* bias;
  const float* multiplier;
  const void* residual;
  void* y;
  Companion* beside_weight = nullptr;  // where the backend may keep packed weights from call to call
  const float* x_scale = nullptr;      // [1]
  const float* addend = nullptr;       // [k]
};

}  // namespace kernels

namespace detail {

inline Dtype quantized_output(const char* op, const std::string& output) {
  if (output == "u8") return Dtype::u8;
  if (output == "s8") return Dtype::s8;
  if (output == "f32") return Dtype::f32;
  fail(op, ": output '", output, "': expected u8, s8 or f32");
}

// What a bias may add in 32 bits to sums of `depth` products of x and s8. Throws Error when the sums alone do not fit.
inline std::int64_t room_for_bias(const char* op, Dtype x, std::int64_t depth) {
  constexpr std::int64_t most = (std::int64_t{1} << 31) - 1;
  const std::int64_t greatest = x == Dtype::u8 ? 255 : 128;
  SHRIKE_CHECK(depth <= most / (greatest * 128), op, ": sums of ", depth, " products of ", name(x),
               " and s8 can exceed 32 bits: expected at most ", most / (greatest * 128));
  return most - depth * greatest * 128;
}

// Throws Error unless all operands are on the device of the first.
inline void check_devices(const char* op, const Tensors& in) {
  for (const Tensor& tensor : in) {
    SHRIKE_CHECK(!tensor.defined() || tensor.device() == in[0].device(), op, ": x is on ", name(in[0].device()),
                 ", another operand on ", name(tensor.device()));
  }
}

// Throws Error unless the operands (x, weight, bias, multiplier and, if there is a fifth, residual) have dtypes and shapes that
// make a layer of `channels` outputs of shape y, and sums of `depth` products fit into 32 bits. A bias on the host is read.
inline kernels::Requantize requantize(const char* op, const Tensors& in, const std::string& output, bool relu,
                                      double residual_multiplier, std::int64_t depth, std::int64_t channels, const Shape& y) {
  const auto is_code = [](Dtype dtype) { return dtype == Dtype::u8 || dtype == Dtype::s8; };
  const Dtype x = in[0].dtype();
  SHRIKE_CHECK(is_code(x), op, ": x is ", name(x), ": expected u8 or s8");
  SHRIKE_CHECK(in[1].dtype() == Dtype::s8, op, ": weight is ", name(in[1].dtype()), ": expected s8");
  SHRIKE_CHECK(in.size() >= 4 && in[2].defined() && in[3].defined(), op, ": expected x, weight, bias and multiplier");
  SHRIKE_CHECK(in[2].dtype() == Dtype::s32 && in[2].shape() == Shape{channels}, op, ": bias is ", name(in[2].dtype()), ' ',
               in[2].shape(), ": expected s32 [", channels, "]");
  SHRIKE_CHECK(in[3].dtype() == Dtype::f32 && in[3].shape() == Shape{channels}, op, ": multiplier is ", name(in[3].dtype()),
               ' ', in[3].shape(), ": expected f32 [", channels, "]");
  check_devices(op, in);
  kernels::Requantize result{x, quantized_output(op, output), x, relu, static_cast<float>(residual_multiplier)};
  if (in.size() > 4 && in[4].defined()) {
    SHRIKE_CHECK(is_code(in[4].dtype()) && in[4].shape() == y, op, ": residual is ", name(in[4].dtype()), ' ', in[4].shape(),
                 ": expected u8 or s8 ", y);
    SHRIKE_CHECK(std::isfinite(result.residual_multiplier), op, ": residual_multiplier is ", residual_multiplier);
    result.residual = in[4].dtype();
  }
  const std::int64_t room = room_for_bias(op, x, depth);
  if (in[2].device() == Device::cpu) {
    const auto* bias = in[2].data<const std::int32_t>();
    for (std::int64_t k = 0; k < channels; ++k) {
      SHRIKE_CHECK(std::abs(std::int64_t{bias[k]}) <= room, op, ": bias[", k, "] = ", bias[k], " with sums of ", depth,
                   " products can exceed 32 bits: expected at most ", room);
    }
  }
  return result;
}

inline kernels::QuantizedOperands quantized_operands(const Tensors& in, const Tensor& y) {
  const bool added = in.size() > 4 && in[4].defined();
  return {in[0].raw(),
          in[1].data<const std::int8_t>(),
          in[2].data<const std::int32_t>(),
          in[3].data<const float>(),
          added ? in[4].raw() : nullptr,
          y.raw(),
          &in[1].companion()};
}

}  // namespace detail

}  // namespace shrike
