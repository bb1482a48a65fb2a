// Fibers: stacks that can be left and come back to. And the sanitizers, which want to be told.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define SHRIKE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHRIKE_ASAN 1
#endif
#endif
#ifndef SHRIKE_ASAN
#define SHRIKE_ASAN 0
#endif

// The files of this layer are compiled without instrumentation (their own bookkeeping is no race), so the build says it.
#ifndef SHRIKE_TSAN
#define SHRIKE_TSAN 0
#endif

#if !defined(__x86_64__) && !defined(SHRIKE_FIBER_UCONTEXT)
#define SHRIKE_FIBER_UCONTEXT 1
#endif
#ifdef SHRIKE_FIBER_UCONTEXT
#include <ucontext.h>
#endif

namespace shrike::cuda::host {

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // the address sanitizer's
  Fiber* next = nullptr;       // of all that a worker owns
  Fiber* next_idle = nullptr;
#ifdef SHRIKE_FIBER_UCONTEXT
  ucontext_t context;
#endif
};

// Maps a stack with an unmapped page below it. `colour` spreads the hot ends of all stacks over the sets of the cache.
Fiber* make_fiber(void (*entry)(), unsigned colour);

// Back to the start of `entry`, dropping what was on the stack.
void reset_fiber(Fiber& fiber, void (*entry)(), unsigned colour);

// Leaves `from`, which is running, and goes on with `to`; returns when somebody switches back.
void switch_fiber(Fiber& from, Fiber& to);

// To be called first by `entry`.
void fiber_entered();

// Thread sanitizer: who is running, and what happened before what. Nothing in other builds.
#if SHRIKE_TSAN
void* new_identity();
void delete_identity(void* identity);
void* current_identity();
void become(void* identity);
void release(void* sync);
void acquire(void* sync);
#else
inline void* new_identity() { return nullptr; }
inline void delete_identity(void*) {}
inline void* current_identity() { return nullptr; }
inline void become(void*) {}
inline void release(void*) {}
inline void acquire(void*) {}
#endif

}  // namespace shrike::cuda::host
