#include "kernels/host/fiber.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if SHRIKE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if SHRIKE_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace shrike::cuda::host {
namespace {

constexpr std::size_t stack_size = (SHRIKE_ASAN || SHRIKE_TSAN ? 256 : 64) * 1024;
constexpr std::size_t guard_size = 4096;

#if SHRIKE_ASAN
__thread Fiber* left = nullptr;  // the fiber that the switch in progress comes from

// The sanitizer tells where the stack was that we come from; for a worker's own stack nobody else knows.
void arrive(void* fake_stack) {
  const void* stack = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(fake_stack, &stack, &bytes);
  left->stack = static_cast<char*>(const_cast<void*>(stack));
  left->stack_bytes = bytes;
}
#endif

#ifndef SHRIKE_FIBER_UCONTEXT
// Saves the registers that a call preserves and the stack pointer to *from, and goes on at `to`. About 10 ns, where
// swapcontext, which asks the kernel about signals, takes 400. Jumping, not returning, keeps the return predictor right.
__attribute__((naked, noinline)) void swap_stacks(void** /*rdi: from*/, void* /*rsi: to*/) {
  asm("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
      "pop %rcx\n jmp *%rcx\n");
}
#endif

}  // namespace

Fiber* make_fiber(void (*entry)(), unsigned colour) {
  void* memory =
      mmap(nullptr, stack_size + guard_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, guard_size, PROT_NONE);
  auto* fiber = new Fiber;
  fiber->stack = static_cast<char*>(memory) + guard_size;
  fiber->stack_bytes = stack_size;
  reset_fiber(*fiber, entry, colour);
  return fiber;
}

void reset_fiber(Fiber& fiber, void (*entry)(), unsigned colour) {
#if SHRIKE_ASAN
  __asan_unpoison_memory_region(fiber.stack, fiber.stack_bytes);
  fiber.fake_stack = nullptr;
#endif
  const std::size_t used = colour % 61 * 64;
#ifdef SHRIKE_FIBER_UCONTEXT
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = fiber.stack_bytes - used;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  auto** top = reinterpret_cast<void**>(fiber.stack + fiber.stack_bytes - used);
  *--top = nullptr;  // entry's return address, and the alignment that it has after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the six registers
  fiber.stack_pointer = top;
#endif
}

void switch_fiber(Fiber& from, Fiber& to) {
#if SHRIKE_ASAN
  left = &from;
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#ifdef SHRIKE_FIBER_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  swap_stacks(&from.stack_pointer, to.stack_pointer);
#endif
#if SHRIKE_ASAN
  arrive(from.fake_stack);
#endif
}

void fiber_entered() {
#if SHRIKE_ASAN
  arrive(nullptr);
#endif
}

#if SHRIKE_TSAN
void* new_identity() { return __tsan_create_fiber(0); }
void delete_identity(void* identity) { __tsan_destroy_fiber(identity); }
void* current_identity() { return __tsan_get_current_fiber(); }
void become(void* identity) { __tsan_switch_to_fiber(identity, __tsan_switch_to_fiber_no_sync); }
void release(void* sync) { __tsan_release(sync); }
void acquire(void* sync) { __tsan_acquire(sync); }
#endif

}  // namespace shrike::cuda::host
