// Static shared memory and cp.async.
#include <cstdlib>
#include <cstring>

#include "kernels/host/async_bytes.hpp"
#include "kernels/host/worker.hpp"

#if SHRIKE_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace shrike::cuda::host {

void* static_shared(const void* tag, std::size_t bytes, std::size_t alignment, const Site& at) {
  Worker& w = *current_worker;
  for (unsigned i = 0; i < w.array_count; ++i) {
    if (w.arrays[i].tag == tag) {
      acquire(&w.arrays_made);
      return w.arrays[i].data;
    }
  }
  Thread& t = running();
  if (w.static_bytes + bytes > max_static_shared || w.array_count == sizeof w.arrays / sizeof *w.arrays) {
    fail_block(t, "%zu bytes of static shared memory in %u arrays: %zu bytes in 64 arrays are possible; in %s at %s:%u",
               w.static_bytes + bytes, w.array_count + 1, max_static_shared, at.function_name(), short_file(at),
               static_cast<unsigned>(at.line()));
  }
  if (w.static_bytes + bytes + w.job->dynamic_shared > max_shared) {
    fail_block(t, "%zu bytes of static and %zu of dynamic shared memory: %zu are possible", w.static_bytes + bytes,
               w.job->dynamic_shared, max_shared);
  }
  // Made by the worker, not by the CUDA thread that happens to come first: to be made is no access that others could race with.
  become(w.main_identity);
  const std::size_t offset = alignment < 128 ? alignment : 0;  // no better aligned than asked for
  void* block = nullptr;
  if (posix_memalign(&block, 128, offset + bytes) != 0) std::abort();
  auto* data = static_cast<char*>(block) + offset;
  std::memset(data, 0xff, bytes);
#if SHRIKE_ASAN
  __asan_poison_memory_region(block, offset);
#endif
  w.static_bytes += bytes;
  w.arrays[w.array_count++] = {tag, static_cast<char*>(block), data, bytes};
  release(&w.arrays_made);
  become(t.identity);
  acquire(&w.arrays_made);
  return data;
}

void refill_arrays(Worker& w) {
  for (unsigned i = 0; i < w.array_count; ++i) std::memset(w.arrays[i].data, 0xff, w.arrays[i].bytes);
}

void forget_arrays(Worker& w) {
  for (unsigned i = 0; i < w.array_count; ++i) {
#if SHRIKE_ASAN
    __asan_unpoison_memory_region(w.arrays[i].block, static_cast<std::size_t>(w.arrays[i].data - w.arrays[i].block));
#endif
    std::free(w.arrays[i].block);
  }
  w.array_count = 0;
  w.static_bytes = 0;
}

void async_copy(void* shared, const void* global, unsigned bytes, bool valid, const Site& at) {
  check_aligned(shared, bytes, "cp.async", at);
  if (valid) check_aligned(global, bytes, "cp.async", at);
  spoil_bytes(shared, bytes);
  AsyncCopies& a = running().async;
  if (a.count == a.capacity) {
    a.capacity = 2 * a.capacity + 16;
    a.copies = static_cast<AsyncCopy*>(std::realloc(a.copies, a.capacity * sizeof *a.copies));
  }
  a.copies[a.count++] = {shared, global, bytes, valid};
}

void async_commit() {
  AsyncCopies& a = running().async;
  if (a.groups == a.groups_capacity) {
    a.groups_capacity = 2 * a.groups_capacity + 16;
    a.ends = static_cast<unsigned*>(std::realloc(a.ends, a.groups_capacity * sizeof *a.ends));
  }
  a.ends[a.groups++] = a.count;
}

void async_wait(unsigned groups_left) {
  AsyncCopies& a = running().async;
  if (a.groups <= groups_left) return;
  const unsigned finished = a.groups - groups_left, copies = a.ends[finished - 1];
  for (unsigned i = 0; i < copies; ++i) {
    const AsyncCopy& c = a.copies[i];
    if (c.valid) {
      deliver_bytes(c.to, c.from, c.bytes);
    } else {
      deliver_zeros(c.to, c.bytes);
    }
  }
  a.count -= copies;
  a.groups = groups_left;
  if (a.count > 0) std::memmove(a.copies, a.copies + copies, a.count * sizeof *a.copies);
  for (unsigned i = 0; i < groups_left; ++i) a.ends[i] = a.ends[i + finished] - copies;
}

void drop_async(Thread& thread) { thread.async.count = thread.async.groups = 0; }

}  // namespace shrike::cuda::host
