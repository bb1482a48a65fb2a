// Dropout (Srivastava et al., JMLR 2014) whose mask is computed anew in the backward pass instead of being stored.
#pragma once

#include "shrike/core/autograd.hpp"
#include "shrike/core/random.hpp"

namespace shrike {

namespace kernels {

// Element i is kept when the upper 24 bits of the i-th word of Random(seed, RandomStream::dropout, index) are >= threshold:
// word i % 4 of philox(seed, stream, i / 4).
struct DropoutMask {
  std::uint64_t seed, stream;
  std::uint32_t threshold;
  float scale;  // of what is kept
};
SHRIKE_KERNEL(dropout_forward, const DropoutMask& mask, std::int64_t n, const float* x, float* y);  // also dx from dy

}  // namespace kernels

// y = x / (1 - p) with probability 1 - p, else 0.
struct Dropout : Op {
  double p = 0.5;
  std::int64_t seed = 0, index = 0;  // the bits of the unsigned numbers

  const char* name() const override { return "dropout"; }
  inline Tensors forward(const Tensors& in) const override;
  Tensors backward(const BackwardContext& context) const override { return forward({context.grads[0]}); }
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override {
    fields("p", p);
    fields("seed", seed);
    fields("index", index);
  }
};

inline Tensors Dropout::forward(const Tensors& in) const {
  SHRIKE_CHECK(p >= 0.0 && p <= 1.0, "dropout: probability ", p, " is not in [0, 1]");
  const Tensor& x = in[0];
  const Tensor y(x.shape(), Dtype::f32, x.device());
  const kernels::DropoutMask mask{
      static_cast<std::uint64_t>(seed),
      (std::uint64_t{static_cast<std::uint32_t>(RandomStream::dropout)} << 48) ^ static_cast<std::uint64_t>(index),
      static_cast<std::uint32_t>(std::ceil(p * 0x1p24)), p < 1.0 ? static_cast<float>(1.0 / (1.0 - p)) : 0.0f};
  dispatch(x.device(), [&](auto d) { kernels::dropout_forward(d, mask, x.numel(), x.data<float>(), y.data<float>()); });
  return {y};
}

// x of any shape, each element zeroed with probability p and scaled by 1 / (1 - p) otherwise. The mask is fixed by seed and
// index (of the iteration and the layer, say) alone, on every device.
inline Tensor dropout(const Tensor& x, double p, std::uint64_t seed, std::uint64_t index) {
  Dropout op;
  op.p = p;
  op.seed = static_cast<std::int64_t>(seed);
  op.index = static_cast<std::int64_t>(index);
  return call(std::move(op), {x})[0];
}

}  // namespace shrike
