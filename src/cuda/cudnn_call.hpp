// What every call of cuDNN needs. Included by the files that call it, in builds by nvcc.
#pragma once

#include <cudnn.h>

#include <memory>
#include <type_traits>

#include "kernels/cuda.hpp"
#include "shrike/ops/conv.hpp"

namespace shrike::cuda::cudnn {

using kernels::Conv2dSizes;

constexpr std::size_t workspace_limit = std::size_t{256} << 20;

// Throws Error naming the call and the sizes unless the status is success.
void check(cudnnStatus_t status, const char* call, const Conv2dSizes& sizes);

// This thread's handle, on our stream.
cudnnHandle_t handle(const Conv2dSizes& sizes);

template <auto destroy> struct Destroy {
  template <class T> void operator()(T* object) const { destroy(object); }
};
template <class T, auto destroy> using Owned = std::unique_ptr<std::remove_pointer_t<T>, Destroy<destroy>>;

}  // namespace shrike::cuda::cudnn
