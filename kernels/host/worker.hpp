// A worker: runs one block at a time, its CUDA threads as fibers. Internal to this layer.
#pragma once

#include <cstdint>

#include "kernels/host/fiber.hpp"
#include "kernels/host/runtime.hpp"

namespace shrike::cuda::host {

constexpr unsigned max_threads = 1024;
constexpr std::size_t max_static_shared = 48 * 1024, max_shared = 227 * 1024;

enum class Order : std::uint8_t { forward, reverse, random, warp };
enum class State : std::uint8_t { fresh, running, at_barrier, in_warp_operation, done };

// Performs a warp operation for all its lanes at once; operands[l] is null where lane l takes no part.
using WarpOperation = void(void* const* operands, unsigned active);

struct AsyncCopy {
  void* to;
  const void* from;
  unsigned bytes;
  bool valid;
};

// cp.async of one thread not performed yet, in order. Plain arrays: std:: code may be an instrumented copy.
struct AsyncCopies {
  AsyncCopy* copies = nullptr;
  unsigned count = 0, capacity = 0;
  unsigned* ends = nullptr;  // of each committed group, in `copies`
  unsigned groups = 0, groups_capacity = 0;
};

struct Thread : ThreadView {
  State state = State::fresh;
  Fiber* fiber = nullptr;      // while it has one
  Fiber* own_fiber = nullptr;  // with the thread sanitizer: a stack shared by two would be shared data
  Site at;                     // where it waits
  unsigned mask = 0;           // of the warp operation it waits in
  WarpOperation* operation = nullptr;
  void* operand = nullptr;
  AsyncCopies async;
  void* identity = nullptr;  // for the thread sanitizer
  unsigned syncs = 0;
  char sync[2] = {};
};

struct Warp {
  unsigned exist, done, waiting;  // bits of lanes
  const void* pointers[32];
};

struct Barrier {
  unsigned arrived = 0, predicates = 0, result = 0, phase = 0;
  Site at;
  char sync[2] = {};
};

struct SharedArray {
  const void* tag;
  char* block;  // from the heap
  char* data;   // in it
  std::size_t bytes;
};

struct Grid {
  dim3 grid, block;
  std::size_t dynamic_shared;
  void (*body)(void*);
  void* context;
};

struct Worker : BlockView {
  Thread threads[max_threads];
  Warp warps[max_threads / 32];
  Barrier barrier;
  std::uint64_t ready[max_threads / 64] = {};
  unsigned count = 0, done = 0;  // threads of the block; of these, ended
  Order order = Order::forward;
  std::uint32_t random = 1;
  const Grid* job = nullptr;
  Fiber main;
  Fiber *fibers = nullptr, *idle = nullptr;
  unsigned fiber_count = 0;
  SharedArray arrays[64];
  unsigned array_count = 0;
  std::size_t static_bytes = 0;
  void* main_identity = nullptr;
  char block_begins = 0, block_ends = 0, arrays_made = 0;  // sync objects
  bool failed = false;
  char failure[1024] = "";
};

extern __thread Worker* current_worker;
inline Thread& running() { return *static_cast<Thread*>(current_thread); }

void begin_grid(Worker& worker, const Grid& grid, Order order, std::uint32_t seed);
// Runs one block; false on failure, which worker.failure describes.
bool run_block(Worker& worker, uint3 index);
void end_grid(Worker& worker);

// The running thread is blocked: runs others until somebody made it ready.
void yield();
void make_ready(Worker& worker, unsigned thread);
void thread_ended(Worker& worker, Thread& thread);  // warp operations may complete without it
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail_block(const Thread& thread, const char* format, ...);

// Waits until all lanes of `mask` are here; the last performs `operation`.
void warp_operation(unsigned mask, WarpOperation* operation, void* operand, const Site& at);

void forget_arrays(Worker& worker);  // static shared memory, at the end of a grid
void refill_arrays(Worker& worker);  // all bits set, at the start of a block
void drop_async(Thread& thread);

// The file names of the messages: their last two parts.
const char* short_file(const Site& at);

}  // namespace shrike::cuda::host
