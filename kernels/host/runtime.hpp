// What kernels see of the layer that runs them on the CPU: one fiber per CUDA thread, one block at a time on each worker.
// docs/cuda_on_host.md says how it works, and what it can and cannot find.
#pragma once

#include <cstddef>
#include <functional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/host/types.hpp"

namespace shrike::cuda::host {

using Site = std::source_location;

struct ThreadView {
  uint3 index;      // threadIdx
  unsigned linear;  // x fastest; its lane is linear % 32
};

struct BlockView {
  uint3 index;  // blockIdx
  dim3 dim, grid;
  void* dynamic_shared = nullptr;
};

// Plain __thread: no wrapper call, and a fiber never moves to another worker within a launch.
extern __thread ThreadView* current_thread;
extern __thread BlockView* current_block;

inline unsigned lane() { return current_thread->linear % 32; }

// Stops the kernel: launch() throws Error with block, thread, the message, and the place.
[[noreturn]] void stop(const char* what, const Site& at);

// Barriers order memory between the threads that meet; the result is the number of threads with `predicate`.
int block_barrier(bool predicate, const Site& at);
void warp_barrier(unsigned mask, const Site& at);
void fence();  // __threadfence

// Warp operations order no memory. `values` of the lanes of `mask` change place: lane l receives that of lane source(l), or
// keeps its own where source is -1. NaN (all bits set) where the source takes no part.
void warp_shuffle(unsigned mask, void* value, std::size_t bytes, int source, const Site& at);
unsigned warp_ballot(unsigned mask, bool predicate, const Site& at);

// The lanes' pointers, all 32, valid until this warp's next operation of all lanes.
const void* const* warp_pointers(const void* mine, const Site& at);

// The array that `tag` names in this block: made on first use, of just that many bytes and no more aligned than asked for, all
// bits set at the start of every block.
void* static_shared(const void* tag, std::size_t bytes, std::size_t alignment, const Site& at);

// cp.async: the destination is undefined (all bits set) from the issue to the wait, and is written only by the wait.
void async_copy(void* shared, const void* global, unsigned bytes, bool valid, const Site& at);
void async_commit();
void async_wait(unsigned groups_left);

void check_aligned(const void* address, std::size_t bytes, const char* what, const Site& at);

// Runs body(context) as every thread of every block.
void run_grid(dim3 grid, dim3 block, std::size_t dynamic_shared, void (*body)(void*), void* context);

// Throws Error unless a GPU could launch this.
void check_launch(dim3 grid, dim3 block, std::size_t dynamic_shared);

// Work that was recorded instead of run.
struct Recorded {
  std::vector<std::function<void()>> calls;
  std::size_t nodes = 0;  // of the calls: kernels, copies and fills
};

// Where the work of this thread goes; null: it runs at once.
extern thread_local Recorded* recorded;

// Whatever the host does as the device: now, or when the graph is launched that this thread records.
template <class F> void submit(F&& work) {
  if (recorded == nullptr) return work();
  recorded->calls.emplace_back(std::forward<F>(work));
  ++recorded->nodes;
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared, Arguments&&... arguments) {
  check_launch(grid, block, dynamic_shared);
  std::tuple<std::decay_t<Parameters>...> values(static_cast<std::decay_t<Parameters>>(std::forward<Arguments>(arguments))...);
  submit([=] {
    auto body = [&] { std::apply(kernel, values); };
    run_grid(
        grid, block, dynamic_shared, [](void* context) { (*static_cast<decltype(body)*>(context))(); }, &body);
  });
}

}  // namespace shrike::cuda::host

#define threadIdx (::shrike::cuda::host::current_thread->index)
#define blockIdx (::shrike::cuda::host::current_block->index)
#define blockDim (::shrike::cuda::host::current_block->dim)
#define gridDim (::shrike::cuda::host::current_block->grid)
static constexpr int warpSize = 32;

#define SHRIKE_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::shrike::cuda::host::current_block->dynamic_shared)
#define SHRIKE_SHARED_ALIGNED(bytes, T, name, dimensions) \
  using name##_array = T dimensions;                      \
  static const char name##_tag = 0;                       \
  name##_array& name = *static_cast<name##_array*>(       \
      ::shrike::cuda::host::static_shared(&name##_tag, sizeof(name##_array), bytes, ::shrike::cuda::host::Site::current()))
#define SHRIKE_SHARED(T, name, dimensions) SHRIKE_SHARED_ALIGNED(alignof(T), T, name, dimensions)
