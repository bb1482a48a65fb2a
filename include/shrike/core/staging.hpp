// Tensors on their way to a device, copied while it computes.
#pragma once

#include <functional>
#include <utility>

#include "shrike/core/tensor.hpp"

namespace shrike {

// A tensor in host memory that `device` reads by itself: for Device::cuda pinned, from a cache. Elements are not initialised.
// Copies to the device do not wait, and the memory is handed out again only when the last of them is complete.
Tensor staging_tensor(Cpu, const Shape& shape, Dtype dtype);
Tensor staging_tensor(Cuda, const Shape& shape, Dtype dtype);
inline Tensor staging_tensor(const Shape& shape, Dtype dtype, Device device) {
  return dispatch(device, [&](auto d) { return staging_tensor(d, shape, dtype); });
}
inline Tensor staging_tensor(Cpu, const Shape& shape, Dtype dtype) { return Tensor(shape, dtype); }

// Copies to a device under way: on a stream of their own, so that they overlap with what is computed. They begin at once, from
// any thread; whoever wants the tensors calls finish() first, on the thread that gives the device its work.
//
//   Upload upload(device);
//   const Tensor x = upload.add(images);   // perhaps on a loader's thread
//   ...
//   upload.finish();
//   model.detect(x, sizes);
class Upload {
 public:
  Upload() = default;  // to the CPU
  explicit Upload(Device device) : device_(device) {}
  ~Upload() { drop(); }
  Upload(Upload&& other) noexcept { *this = std::move(other); }
  Upload& operator=(Upload&& other) noexcept {
    drop();
    device_ = other.device_;
    arriving_ = std::exchange(other.arriving_, {});
    join_ = std::exchange(other.join_, nullptr);
    return *this;
  }

  // The tensor on the device, to be used after finish(). The host's may be given up at once; one that is not in staging memory
  // is copied there first. On the CPU: the tensor itself.
  Tensor add(const Tensor& host) {
    return dispatch(device_, [&](auto d) { return begin(d, host); });
  }

  // All work that the device is given from now on comes after the copies. Does not wait for them.
  void finish() {
    if (join_) std::exchange(join_, nullptr)();
    arriving_.clear();
  }

 private:
  Tensor begin(Cpu, const Tensor& host) { return host; }
  Tensor begin(Cuda, const Tensor& host);

  // Memory that a copy may still write must not go to others before that.
  void drop() noexcept {
    try {
      finish();
    } catch (const Error&) {  // the device is lost, and says so at its next use
    }
  }

  Device device_ = Device::cpu;
  Tensors arriving_;
  std::function<void()> join_;
};

}  // namespace shrike
