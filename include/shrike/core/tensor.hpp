// Tensor: a contiguous array of one dtype on one device, shared by its copies.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "shrike/core/allocator.hpp"
#include "shrike/core/dtype.hpp"
#include "shrike/core/shape.hpp"

namespace shrike {

struct TapeNode;

// A handle: copies refer to the same elements, gradient and place on the tape. Feature maps are NHWC, convolution weights KRSC
// (out, height, width, in), linear weights (out, in); all are contiguous, last dimension fastest.
class Tensor {
 public:
  Tensor() = default;  // undefined

  // Elements are not initialised.
  explicit Tensor(const Shape& shape, Dtype dtype = Dtype::f32, Device device = Device::cpu) : impl_(std::make_shared<Impl>()) {
    impl_->shape = shape;
    impl_->dtype = dtype;
    impl_->storage = std::make_shared<Storage>(static_cast<std::size_t>(shape.numel()) * size_of(dtype), device);
  }

  // In memory that is there already, which must be large enough.
  Tensor(const Shape& shape, Dtype dtype, std::shared_ptr<Storage> storage) : impl_(std::make_shared<Impl>()) {
    impl_->shape = shape;
    impl_->dtype = dtype;
    impl_->storage = std::move(storage);
  }

  bool defined() const { return impl_ != nullptr; }
  const Shape& shape() const { return impl().shape; }
  std::int64_t size(int dim) const { return impl().shape[dim]; }
  int rank() const { return impl().shape.rank(); }
  std::int64_t numel() const { return impl().shape.numel(); }
  Dtype dtype() const { return impl().dtype; }
  Device device() const { return impl().storage->device(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype()); }

  // The elements, in device memory: data<const float>() to read them, data<float>() to change them. Throws Error unless T is
  // the tensor's element type. A pointer that is not const is for changes before the next operation: what operations derived
  // from the elements, such as packed weights, is made anew after each such call, not after changes through an older pointer.
  template <class T> T* data() const {
    using Element = std::remove_const_t<T>;
    SHRIKE_CHECK(dtype_of<Element> == dtype(), "a tensor of ", name(dtype()), " was read as ", name(dtype_of<Element>));
    if constexpr (!std::is_const_v<T>) companion().elements_may_change();
    return static_cast<T*>(impl().storage->data());
  }
  void* raw() const {
    companion().elements_may_change();
    return impl().storage->data();
  }
  // What is kept beside the elements.
  Companion& companion() const { return impl().storage->companion(); }

  // The single element of a tensor of one element, brought to the host.
  template <class T = float> T item() const {
    SHRIKE_CHECK(numel() == 1, "item() of a tensor of shape ", shape(), ": expected one element");
    return to(Device::cpu).data<T>()[0];
  }

  // The elements copied to the host.
  template <class T> std::vector<T> to_vector() const {
    const Tensor host = to(Device::cpu);
    return {host.data<T>(), host.data<T>() + numel()};
  }

  // The same elements under another shape of equal element count; not recorded on the tape (see reshape).
  Tensor view(const Shape& shape) const {
    SHRIKE_CHECK(shape.numel() == numel(), "a tensor of shape ", this->shape(), " cannot be viewed as ", shape);
    Tensor result = detach();
    result.impl_->shape = shape;
    return result;
  }

  // The same elements without gradient or history.
  Tensor detach() const {
    Tensor result;
    result.impl_ = std::make_shared<Impl>();
    result.impl_->storage = impl().storage;
    result.impl_->shape = shape();
    result.impl_->dtype = dtype();
    return result;
  }

  // This tensor if it is on `device` already, else a copy there.
  Tensor to(Device device) const;
  Tensor clone() const;
  void copy_from(const Tensor& source) const;  // same shape and dtype, any device
  void zero() const;

  // Gradients.
  bool requires_grad() const { return impl().requires_grad; }
  const Tensor& set_requires_grad(bool value) const {
    SHRIKE_CHECK(!value || dtype() == Dtype::f32, "only f32 tensors have gradients, not ", name(dtype()));
    impl().requires_grad = value;
    return *this;
  }
  // Filled by backward() on leaves; undefined before and after clear_grad().
  Tensor grad() const {
    Tensor result;
    result.impl_ = impl().grad;
    return result;
  }
  void set_grad(const Tensor& grad) const { impl().grad = grad.impl_; }
  void clear_grad() const { impl().grad.reset(); }

  // True when no other handle or view can see these elements, so that they may be overwritten.
  bool unique() const { return impl_.use_count() == 1 && impl().storage.use_count() == 1; }

  // Identity: two handles are the same tensor.
  bool same(const Tensor& other) const { return impl_ == other.impl_; }
  const void* id() const { return impl_.get(); }

  // The tape's entry that made this tensor, and which of its outputs this is; used by autograd only.
  const std::shared_ptr<TapeNode>& node() const { return impl().node; }
  int node_output() const { return impl().node_output; }
  void set_node(std::shared_ptr<TapeNode> node, int output) const {
    impl().node = std::move(node);
    impl().node_output = output;
    impl().requires_grad = true;
  }

 private:
  struct Impl {
    std::shared_ptr<Storage> storage;
    Shape shape;
    Dtype dtype = Dtype::f32;
    bool requires_grad = false;
    int node_output = 0;
    std::shared_ptr<Impl> grad;
    std::shared_ptr<TapeNode> node;
  };

  Impl& impl() const {
    SHRIKE_CHECK(impl_, "an undefined tensor was used");
    return *impl_;
  }

  std::shared_ptr<Impl> impl_;
};

using Tensors = std::vector<Tensor>;
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

Tensor zeros(const Shape& shape, Dtype dtype = Dtype::f32, Device device = Device::cpu);
Tensor full(const Shape& shape, float value, Device device = Device::cpu);

// A tensor of `values`, in row-major order. Throws Error when their number is not the shape's.
template <class T> Tensor tensor(const Shape& shape, const std::vector<T>& values, Device device = Device::cpu) {
  SHRIKE_CHECK(static_cast<std::int64_t>(values.size()) == shape.numel(), values.size(), " values for a tensor of shape ",
               shape);
  const Tensor host(shape, dtype_of<T>);
  std::copy(values.begin(), values.end(), host.data<T>());
  return host.to(device);
}

// The sum of two f32 tensors' elements written to `into`; shapes must agree.
void accumulate(const Tensor& into, const Tensor& from);

namespace kernels {
// Bytes between devices: D is the device that is not the host, or Cpu for host to host.
SHRIKE_KERNEL(copy_bytes, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes);
SHRIKE_KERNEL(fill_bytes, void* to, int value, std::size_t bytes);
SHRIKE_KERNEL(fill_f32, std::int64_t n, float value, float* y);
SHRIKE_KERNEL(accumulate_f32, std::int64_t n, const float* x, float* y);  // y += x
}  // namespace kernels

}  // namespace shrike
