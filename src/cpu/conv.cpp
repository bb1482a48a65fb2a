#include "shrike/ops/conv.hpp"

#include <utility>

#include "columns.hpp"
#include "few_channels.hpp"
#include "onednn.hpp"
#include "shrike/core/last_kernel.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/ops/elementwise.hpp"
#include "shrike/ops/linear.hpp"
#include "winograd.hpp"

namespace shrike::kernels {
namespace {

using namespace onednn;

Convolution convolution(const Conv2dSizes& z, Pass pass, bool bias) {
  return {z.n,         z.h,         z.w,         z.c,        z.k,      z.r,  z.s,  z.p,
          z.q,         z.stride,    z.padding,   z.dilation, z.groups, pass, bias, z.relu && pass == Pass::forward,
          Layout::any, Layout::any, Layout::any, false};
}

// Whether y is x, its pixels as rows, times the weights.
bool is_product(const Conv2dSizes& z) { return z.r == 1 && z.s == 1 && z.stride == 1 && z.padding == 0 && z.groups == 1; }

// An operand in the primitive's layout: as it is, or a reordered copy.
class Operand {
 public:
  Operand(const dnnl::memory::desc& plain, const float* data, const dnnl::memory::desc& wanted) : data_(data) {
    if (plain == wanted) return;
    copy_ = Scratch(wanted.get_size());
    reorder(plain, data, wanted, copy_.data());
    data_ = copy_.data();
  }
  const float* data() const { return data_; }

 private:
  const float* data_;
  Scratch copy_;
};

// A result: written in the primitive's layout, then put where it belongs.
class Result {
 public:
  Result(const dnnl::memory::desc& plain, float* data, const dnnl::memory::desc& wanted)
      : plain_(plain), wanted_(wanted), data_(data), copy_(plain == wanted ? 0 : wanted.get_size()) {}
  float* data() const { return copy_.data() != nullptr ? copy_.data() : data_; }
  void finish() {
    if (copy_.data() != nullptr) reorder(wanted_, copy_.data(), plain_, data_);
  }

 private:
  dnnl::memory::desc plain_, wanted_;
  float* data_;
  Scratch copy_;
};

}  // namespace

void conv2d_forward(Cpu, const Conv2dSizes& sizes, const float* x, const float* weight, const float* bias,
                    const float* residual, float* y) {
  if (sizes.n == 0) return;
  if (residual != nullptr) {
    Conv2dSizes sum = sizes;
    sum.relu = false;
    conv2d_forward(Cpu{}, sum, x, weight, bias, nullptr, y);
    return add_forward(Cpu{}, sizes.n * sizes.p * sizes.q * sizes.k, y, residual, sizes.relu, y);
  }
  if (is_product(sizes)) {
    return linear_forward(Cpu{}, {sizes.n * sizes.p * sizes.q, sizes.c, sizes.k, sizes.relu}, x, weight, bias, y);
  }
  if (winograd::fits(sizes)) {
    last_kernel() = "winograd 4x4";
    return winograd::forward(sizes, x, weight, bias, y);
  }
  if (few_channels::forward_fits(sizes)) {
    last_kernel() = "few channels";
    return few_channels::forward(sizes, x, weight, bias, y);
  }
  const Convolution key = convolution(sizes, Pass::forward, bias != nullptr);
  const auto conv = primitive(key);
  last_kernel() = "onednn " + conv->implementation;
  Operand x_in(conv->plain_x, x, conv->x);
  Operand weight_in(conv->plain_weight, weight, conv->weight);
  Result y_out(conv->plain_y, y, conv->y);
  execute(key, *conv, x_in.data(), weight_in.data(), bias, y_out.data());
  y_out.finish();
}

void conv2d_backward(Cpu, const Conv2dSizes& sizes, const float* x, const float* weight, const float* y, const float* dy,
                     float* dx, float* dweight, float* dbias) {
  if (sizes.n == 0) {
    if (dweight != nullptr) std::fill_n(dweight, sizes.k * sizes.r * sizes.s * (sizes.c / sizes.groups), 0.0f);
    if (dbias != nullptr) std::fill_n(dbias, sizes.k, 0.0f);
    return;
  }
  if (is_product(sizes)) {
    return linear_backward(Cpu{}, {sizes.n * sizes.p * sizes.q, sizes.c, sizes.k, sizes.relu}, x, weight, y, dy, dx, dweight,
                           dbias);
  }
  const float* mask = sizes.relu ? y : nullptr;
  if (winograd::fits(sizes)) {
    if (dx != nullptr) winograd::backward_data(sizes, weight, mask, dy, std::exchange(dx, nullptr));
    if (dweight != nullptr) return winograd::backward_weight(sizes, x, mask, dy, dweight, dbias);
  } else if (few_channels::fits(sizes)) {
    if (dx != nullptr) few_channels::backward_data(sizes, weight, mask, dy, std::exchange(dx, nullptr));
    if (dweight != nullptr) return few_channels::backward_weight(sizes, x, mask, dy, dweight, dbias);
  }
  if (dx == nullptr && dweight == nullptr && dbias == nullptr) return;
  const std::int64_t count = sizes.n * sizes.p * sizes.q * sizes.k;
  Scratch masked;
  if (sizes.relu) {
    masked = Scratch(static_cast<std::size_t>(count) * sizeof(float));
    relu_backward(Cpu{}, count, y, dy, masked.data());
    dy = masked.data();
  }
  if (dx != nullptr) {
    const Convolution key = convolution(sizes, Pass::backward_data, false);
    const auto conv = primitive(key);
    Operand dy_in(conv->plain_y, dy, conv->y);
    Operand weight_in(conv->plain_weight, weight, conv->weight);
    Result dx_out(conv->plain_x, dx, conv->x);
    execute(key, *conv, dx_out.data(), weight_in.data(), nullptr, dy_in.data());
    dx_out.finish();
  }
  if (dweight != nullptr) {
    const Convolution key = convolution(sizes, Pass::backward_weight, dbias != nullptr);
    const auto conv = primitive(key);
    Operand x_in(conv->plain_x, x, conv->x);
    Operand dy_in(conv->plain_y, dy, conv->y);
    Result dweight_out(conv->plain_weight, dweight, conv->weight);
    execute(key, *conv, x_in.data(), dweight_out.data(), dbias, dy_in.data());
    dweight_out.finish();
  } else if (dbias != nullptr) {
    column_sums(sizes.n * sizes.p * sizes.q, sizes.k, dy, dbias);
  }
}

}  // namespace shrike::kernels
