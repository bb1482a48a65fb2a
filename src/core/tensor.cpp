#include "shrike/core/tensor.hpp"

namespace shrike {
namespace {

// Copies between any two devices; the kernels of the device that is not the host do it.
void copy(const Tensor& to, const Tensor& from) {
  if (from.bytes() == 0) return;
  const Device worker = to.device() == Device::cpu ? from.device() : to.device();
  dispatch(worker, [&](auto d) { kernels::copy_bytes(d, to.raw(), to.device(), from.raw(), from.device(), from.bytes()); });
}

}  // namespace

Tensor Tensor::to(Device device) const {
  if (device == this->device()) return *this;
  const Tensor result(shape(), dtype(), device);
  copy(result, *this);
  return result;
}

Tensor Tensor::clone() const {
  const Tensor result(shape(), dtype(), device());
  copy(result, *this);
  return result;
}

void Tensor::copy_from(const Tensor& source) const {
  SHRIKE_CHECK(source.shape() == shape() && source.dtype() == dtype(), "a tensor of shape ", shape(), " and dtype ",
               name(dtype()), " was assigned one of shape ", source.shape(), " and dtype ", name(source.dtype()));
  copy(*this, source);
}

void Tensor::zero() const {
  if (bytes() == 0) return;
  dispatch(device(), [&](auto d) { kernels::fill_bytes(d, raw(), 0, bytes()); });
}

Tensor zeros(const Shape& shape, Dtype dtype, Device device) {
  const Tensor result(shape, dtype, device);
  result.zero();
  return result;
}

Tensor full(const Shape& shape, float value, Device device) {
  const Tensor result(shape, Dtype::f32, device);
  dispatch(device, [&](auto d) { kernels::fill_f32(d, result.numel(), value, result.data<float>()); });
  return result;
}

void accumulate(const Tensor& into, const Tensor& from) {
  SHRIKE_CHECK(into.shape() == from.shape(), "a tensor of shape ", from.shape(), " was added to one of shape ", into.shape());
  dispatch(into.device(), [&](auto d) { kernels::accumulate_f32(d, into.numel(), from.data<float>(), into.data<float>()); });
}

}  // namespace shrike
