// What every kernel file includes first: one spelling of CUDA for nvcc and, where SHRIKE_CUDA_HOST is 1, for a C++ compiler
// that builds the same file for the CPU. Beside the language itself:
//   cuda::launch(kernel, grid, block, dynamic_shared_bytes, arguments...)       instead of kernel<<<...>>>(...)
//   SHRIKE_DYNAMIC_SHARED(float, name);                                       instead of extern __shared__
//   SHRIKE_SHARED(float, name, [2][64]);  SHRIKE_SHARED_ALIGNED(16, float, name, [64][20]);   checked __shared__ arrays
// and kernels/mma.hpp for what needs PTX.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "shrike/core/allocator.hpp"
#include "shrike/core/check.hpp"
#include "shrike/core/cuda.hpp"
#include "shrike/core/device.hpp"

#if SHRIKE_CUDA_HOST
#include "kernels/host/intrinsics.hpp"
#else
#include <cuda_runtime.h>
#endif

namespace shrike::cuda {

struct Properties {
  std::string name;
  int compute_capability;  // 75, 80, 90, ...; the host says 90
  int multiprocessors;
  std::size_t shared_per_block_optin;  // greatest dynamic_shared_bytes of a launch
};

// Of the device in use. Throws Error where there is none.
const Properties& properties();

// The one stream on which everything is launched, copied and freed, in the order of the calls.
cudaStream_t stream();

// Waits until all that was launched is done; throws Error if it failed.
void synchronize();

// Blocks of `threads` threads for n elements, at least 1 and at most what a grid can have.
inline unsigned blocks_for(std::int64_t n, int threads) {
  return static_cast<unsigned>(std::clamp<std::int64_t>((n + threads - 1) / threads, 1, 2147483647));
}

// Device memory until the end of the scope. A kernel launched before that may still be running then: the memory is only handed
// on to what is launched after it.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes) : data_(allocator(Cuda{}).allocate(bytes)) {}
  ~Scratch() { allocator(Cuda{}).deallocate(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T> T* data() const { return static_cast<T*>(data_); }

 private:
  void* data_;
};

#if SHRIKE_CUDA_HOST

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared, Arguments&&... arguments) {
  host::launch(kernel, grid, block, dynamic_shared, std::forward<Arguments>(arguments)...);
}

#else

// Throws Error naming `what` unless the call succeeded; clears the error.
void check(cudaError_t error, const char* what);

// cudaErrorNoKernelImageForDevice, or the like, where the build has no code for the GPU in use.
cudaError_t find_code();

// Before a launch, if it needs more shared memory than the 48 KiB of every kernel.
void allow_shared(const void* kernel, std::size_t bytes);

// Runs kernel(arguments...) on stream(); an empty grid does nothing. Throws Error if it cannot be launched.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const auto* entry = reinterpret_cast<const void*>(kernel);
  if (dynamic_shared > 48 * 1024) allow_shared(entry, dynamic_shared);
  std::tuple<std::decay_t<Parameters>...> values(static_cast<std::decay_t<Parameters> >(std::forward<Arguments>(arguments))...);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {static_cast<void*>(&value)..., nullptr};
        check(cudaLaunchKernel(entry, grid, block, pointers, dynamic_shared, stream()), "launch of a kernel");
      },
      values);
}

#define SHRIKE_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(128) unsigned char shrike_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(shrike_dynamic_shared)
#define SHRIKE_SHARED_ALIGNED(bytes, T, name, dimensions) \
  __shared__ __align__(bytes)                             \
  T name dimensions
#define SHRIKE_SHARED(T, name, dimensions) __shared__ T name dimensions

#endif

}  // namespace shrike::cuda
