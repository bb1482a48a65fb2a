// Parallel loops on the CPU. The threads are OpenMP's, the same that oneDNN uses.
#pragma once

#include <algorithm>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace shrike {

// Threads for CPU operations from here on; 0 means one per core.
inline void set_num_threads(int threads) {
#ifdef _OPENMP
  omp_set_num_threads(threads > 0 ? threads : omp_get_num_procs());
#else
  (void)threads;
#endif
}

inline int num_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// Calls f(begin, end) over parts of [0, n), each of at least `grain` elements, on several threads. The parts depend on n,
// grain and num_threads() alone. f must not throw. Not for use on the data loader's threads.
template <class F> void parallel_for(std::int64_t n, std::int64_t grain, const F& f) {
  if (n <= 0) return;
  const std::int64_t parts = std::clamp<std::int64_t>(n / std::max<std::int64_t>(grain, 1), 1, num_threads());
  if (parts == 1) {
    f(std::int64_t{0}, n);
    return;
  }
#ifdef _OPENMP
#pragma omp parallel for schedule(static, 1)
#endif
  for (std::int64_t part = 0; part < parts; ++part) f(n * part / parts, n * (part + 1) / parts);
}

}  // namespace shrike
