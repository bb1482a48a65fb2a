// Scheduling: a fiber runs CUDA threads one after another until one blocks; only then is another fiber used, so that kernels
// without barriers are plain loops.
#include "kernels/host/worker.hpp"

#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace shrike::cuda::host {

__thread ThreadView* current_thread = nullptr;
__thread BlockView* current_block = nullptr;
__thread Worker* current_worker = nullptr;

namespace {

// The next ready thread in the worker's order, starting at or after `from`, no longer marked ready; -1 if there is none.
int next_ready(Worker& w, unsigned from) {
  const auto take = [&](unsigned word, int bit) {
    w.ready[word] &= ~(std::uint64_t{1} << bit);
    return static_cast<int>(word * 64) + bit;
  };
  const unsigned words = (w.count + 63) / 64;
  if (w.order == Order::random) {
    w.random = w.random * 1664525u + 1013904223u;
    from = (w.random >> 8) % w.count;
  }
  if (w.order == Order::warp) {  // one warp runs as far ahead of the others as the barriers allow
    const unsigned shift = from & 32;
    const auto lanes = static_cast<std::uint32_t>(w.ready[from / 64] >> shift);
    if (lanes != 0) return take(from / 64, std::countr_zero(lanes) + static_cast<int>(shift));
  }
  if (w.order == Order::reverse) {
    for (unsigned k = 0; k <= words; ++k) {
      const unsigned word = (from / 64 + words - k) % words;
      std::uint64_t bits = w.ready[word];
      if (k == 0) bits &= (std::uint64_t{2} << (from % 64)) - 1;
      if (bits != 0) return take(word, 63 - std::countl_zero(bits));
    }
    return -1;
  }
  for (unsigned k = 0; k <= words; ++k) {
    const unsigned word = (from / 64 + k) % words;
    std::uint64_t bits = w.ready[word];
    if (k == 0) bits &= ~std::uint64_t{0} << (from % 64);
    if (bits != 0) return take(word, std::countr_zero(bits));
  }
  return -1;
}

[[noreturn]] void deadlock(Worker& w) {
  unsigned at_barrier = 0, in_operation = 0;
  const Thread *barrier = nullptr, *operation = nullptr;
  for (unsigned i = 0; i < w.count; ++i) {
    const Thread& t = w.threads[i];
    if (t.state == State::at_barrier && at_barrier++ == 0) barrier = &t;
    if (t.state == State::in_warp_operation && in_operation++ == 0) operation = &t;
  }
  char first[300] = "", second[300] = "";
  if (barrier != nullptr) {
    std::snprintf(first, sizeof first, ", %u wait at a block barrier (%s:%u)", at_barrier, short_file(barrier->at),
                  static_cast<unsigned>(barrier->at.line()));
  }
  if (operation != nullptr) {
    std::snprintf(second, sizeof second, ", %u wait in a warp operation (%s:%u, mask 0x%08x)", in_operation,
                  short_file(operation->at), static_cast<unsigned>(operation->at.line()), operation->mask);
  }
  fail_block(barrier != nullptr ? *barrier : *operation, "deadlock: %u of %u threads exited%s%s", w.done, w.count, first,
             second);
}

void fiber_main();

Fiber* take_fiber(Worker& w, Thread& t) {
  if (SHRIKE_TSAN && t.own_fiber != nullptr) return t.own_fiber;
  if (SHRIKE_TSAN || w.idle == nullptr) {
    Fiber* made = make_fiber(fiber_main, w.fiber_count++);
    made->next = w.fibers;
    w.fibers = made;
    t.own_fiber = made;
    return made;
  }
  Fiber* fiber = w.idle;
  w.idle = fiber->next_idle;
  return fiber;
}

void give_fiber(Worker& w, Fiber* fiber) {
  if (SHRIKE_TSAN) return;
  fiber->next_idle = w.idle;
  w.idle = fiber;
}

// One CUDA thread from begin to end; then goes on with the next one that has not begun, or switches. Touches no thread-local
// variable after its last switch: an idle fiber may be resumed in a later grid, by another thread of the system.
__attribute__((noinline)) void fiber_step() {
  Worker& w = *current_worker;
  Thread& t = running();
  Fiber* const fiber = t.fiber;
  acquire(&w.block_begins);
  w.job->body(w.job->context);
  release(&w.block_ends);
  t.state = State::done;
  ++w.done;
  drop_async(t);
  thread_ended(w, t);
  const int next = next_ready(w, t.linear);
  if (next < 0 && w.done < w.count) deadlock(w);
  Fiber* to = &w.main;
  void* identity = w.main_identity;
  if (next >= 0) {
    Thread& u = w.threads[next];
    current_thread = &u;
    u.state = State::running;
    if (u.fiber == nullptr) {
      if (!SHRIKE_TSAN) {
        u.fiber = fiber;
        return;
      }
      u.fiber = take_fiber(w, u);
    }
    to = u.fiber;
    identity = u.identity;
  }
  give_fiber(w, fiber);
  become(identity);
  switch_fiber(*fiber, *to);
}

void fiber_main() {
  fiber_entered();
  for (;;) fiber_step();
}

// After a failure every fiber begins anew: what is on their stacks is dropped without destructors.
void abandon_fibers(Worker& w) {
  w.idle = nullptr;
  unsigned colour = 0;
  for (Fiber* fiber = w.fibers; fiber != nullptr; fiber = fiber->next) {
    reset_fiber(*fiber, fiber_main, colour++);
    give_fiber(w, fiber);
  }
  for (unsigned i = 0; i < w.count; ++i) {
    drop_async(w.threads[i]);
    if (!SHRIKE_TSAN) continue;
    // Its shadow call stack is unbalanced, so it gets a new one; and what it did happened before all that follows.
    become(w.threads[i].identity);
    release(&w.block_ends);
    become(w.main_identity);
    acquire(&w.block_ends);
    delete_identity(w.threads[i].identity);
    w.threads[i].identity = new_identity();
  }
}

}  // namespace

const char* short_file(const Site& at) {
  const char* name = at.file_name();
  const char *last = name, *before = name;
  for (const char* c = name; *c != 0; ++c) {
    if (*c == '/') {
      before = last;
      last = c + 1;
    }
  }
  return before;
}

void make_ready(Worker& worker, unsigned thread) { worker.ready[thread / 64] |= std::uint64_t{1} << (thread % 64); }

void yield() {
  Worker& w = *current_worker;
  Thread& self = running();
  const int next = next_ready(w, self.linear);
  if (next < 0) deadlock(w);
  Thread& u = w.threads[next];
  if (u.fiber == nullptr) u.fiber = take_fiber(w, u);
  current_thread = &u;
  u.state = State::running;
  become(u.identity);
  switch_fiber(*self.fiber, *u.fiber);
}

void fail_block(const Thread& thread, const char* format, ...) {
  Worker& w = *current_worker;
  Fiber& fiber = *running().fiber;
  const int length =
      std::snprintf(w.failure, sizeof w.failure, "CUDA kernel, block (%u, %u, %u), thread (%u, %u, %u): ", w.index.x, w.index.y,
                    w.index.z, thread.index.x, thread.index.y, thread.index.z);
  std::va_list values;
  va_start(values, format);
  std::vsnprintf(w.failure + length, sizeof w.failure - static_cast<std::size_t>(length), format, values);
  va_end(values);
  w.failed = true;
  become(w.main_identity);
  for (;;) switch_fiber(fiber, w.main);
}

void stop(const char* what, const Site& at) {
  fail_block(running(), "%s in %s at %s:%u", what, at.function_name(), short_file(at), static_cast<unsigned>(at.line()));
}

void check_aligned(const void* address, std::size_t bytes, const char* what, const Site& at) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes == 0) return;
  fail_block(running(), "%s: address %p is not aligned to %zu bytes in %s at %s:%u", what, address, bytes, at.function_name(),
             short_file(at), static_cast<unsigned>(at.line()));
}

void begin_grid(Worker& w, const Grid& grid, Order order, std::uint32_t seed) {
  current_worker = &w;
  current_block = &w;
  w.job = &grid;
  w.order = order;
  w.random = seed;
  w.dim = grid.block;
  w.grid = grid.grid;
  w.count = grid.block.x * grid.block.y * grid.block.z;
  w.main_identity = current_identity();
  for (unsigned i = 0; i < w.count; ++i) {
    Thread& t = w.threads[i];
    t.linear = i;
    t.index = {i % grid.block.x, i / grid.block.x % grid.block.y, i / grid.block.x / grid.block.y};
    if (t.identity == nullptr) t.identity = new_identity();
  }
}

bool run_block(Worker& w, uint3 index) {
  w.index = index;
  w.done = 0;
  w.failed = false;
  for (unsigned i = 0; i < w.count; ++i) {
    w.threads[i].state = State::fresh;
    w.threads[i].fiber = nullptr;
  }
  for (unsigned i = 0; i < max_threads / 64; ++i) {
    const unsigned here = w.count > i * 64 ? w.count - i * 64 : 0;
    w.ready[i] = here >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << here) - 1;
    for (unsigned half = 0; half < 2; ++half) {
      w.warps[2 * i + half].exist = static_cast<unsigned>(w.ready[i] >> (32 * half));
      w.warps[2 * i + half].done = w.warps[2 * i + half].waiting = 0;
    }
  }
  w.barrier.arrived = w.barrier.predicates = 0;
  if (w.dynamic_shared != nullptr) std::memset(w.dynamic_shared, 0xff, w.job->dynamic_shared);  // NaN: nobody may rely on zeros
  refill_arrays(w);
  release(&w.block_begins);
  Thread& first = w.threads[next_ready(w, w.order == Order::reverse ? w.count - 1 : 0)];
  first.fiber = take_fiber(w, first);
  first.state = State::running;
  current_thread = &first;
  become(first.identity);
  switch_fiber(w.main, *first.fiber);
  acquire(&w.block_ends);
  if (w.failed) abandon_fibers(w);
  return !w.failed;
}

void end_grid(Worker& w) {
  forget_arrays(w);
  w.job = nullptr;
  current_worker = nullptr;
  current_block = nullptr;
  current_thread = nullptr;
}

}  // namespace shrike::cuda::host
