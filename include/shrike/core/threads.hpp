// Parallel loops on the CPU, by one pool of threads for the whole process.
//
// The calling thread works too, and chunks are claimed one after the other, so a thread that the machine delays takes fewer.
// How work is cut depends on the problem, never on the number of threads: results are the same bits with any number of them.
#pragma once

#include <algorithm>
#include <cstdint>

namespace shrike {

// Threads that CPU operations use from here on, the calling one included. 0, which is how a process begins: the environment
// variable SHRIKE_THREADS as it is when it is first needed, else available_threads(), looked up anew from time to time. Throws
// Error on a negative number, on more than 1024, and on 0 when SHRIKE_THREADS is set and no number from 1 to 1024.
void set_num_threads(int threads);

// Throws Error when the number is automatic, and SHRIKE_THREADS is set and no number from 1 to 1024.
int num_threads();

// Processors that this process may use: those of its affinity mask, and no more than the quotas of its control groups (cpu.max
// of version 2, cpu.cfs_quota_us of version 1), rounded up. At least 1.
int available_threads();

// At most this many threads of a loop of so many chunks run at a time: enough working memory for parallel_chunks(). 1 within a
// chunk of another loop.
int thread_slots(std::int64_t chunks);

// For parallel_chunks(): calls call(context, chunk, slot) for all chunks.
void run_chunks(std::int64_t chunks, int slots, const void* context, void (*call)(const void*, std::int64_t, int));

// Calls f(chunk, slot) for chunk = 0 .. chunks - 1 on at most `slots` threads; 0 <= slot < slots, and no two calls with the
// same slot overlap, so that each can have working memory of its own. Within a chunk of another loop everything runs on the
// calling thread, with slot 0; a loop of one chunk or one slot is no loop in this sense. The first exception of a chunk ends
// the loop: no further chunk begins, and it reaches the caller when those that run have ended. Several threads may call at
// once: they share the pool's threads. A process that forks outside of chunks can run loops in both processes.
template <class F> void parallel_chunks(std::int64_t chunks, int slots, const F& f) {
  run_chunks(chunks, slots, &f,
             [](const void* context, std::int64_t chunk, int slot) { (*static_cast<const F*>(context))(chunk, slot); });
}

// Calls f(begin, end) over parts of [0, n), each of at least `grain` elements and less than twice as many, as parallel_chunks()
// does. The parts depend on n and grain alone.
template <class F> void parallel_for(std::int64_t n, std::int64_t grain, const F& f) {
  if (n <= 0) return;
  const std::int64_t parts = std::max<std::int64_t>(n / std::max<std::int64_t>(grain, 1), 1);
  if (parts == 1) return f(std::int64_t{0}, n);
  parallel_chunks(parts, thread_slots(parts), [&](std::int64_t part, int) {
    // n * part may pass 64 bits only where n does not fit in memory.
    f(n * part / parts, n * (part + 1) / parts);
  });
}

}  // namespace shrike
