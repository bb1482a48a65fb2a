// What this machine can do at most, measured: the rates that bench_int8 compares layers with.
#pragma once

#include <atomic>

#include "benchmarks/support/timing.hpp"
#include "shrike/core/cuda.hpp"
#include "shrike/core/threads.hpp"
#include "src/cpu/int8_kernels.hpp"
#include "src/cpu/simd.hpp"
#if SHRIKE_HAS_CUDA
#include "kernels/ceiling.hpp"
#endif

namespace shrike::apps {

// Multiplications and additions of floats on registers alone; returns how many multiplications that was.
inline std::int64_t spin_float(std::int64_t rounds) {
  constexpr int count = 12;
  simd::Vector a = simd::Vector{} + 1e-9f, sums[count] = {};
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < count; ++i) {
      sums[i] += a * a;
#if defined(__AVX512F__)
      asm("" : "+v"(a));  // as if it changed: the product is made again
#elif defined(__AVX__)
      asm("" : "+x"(a));
#else
      asm volatile("" : : : "memory");
#endif
    }
  }
  simd::Vector all{};
  for (const simd::Vector& sum : sums) all += sum;
  float kept = all[0];
  asm volatile("" : : "m"(kept));
  return rounds * count * simd::lanes;
}

// Operations a second, two to a multiplication, of all threads together: the best of a few tries of some 20 ms.
template <class Spin> double ceiling(const Spin& spin) {
  double best = 0;
  std::int64_t rounds = 1 << 16;
  for (int attempt = 0; attempt < 8; ++attempt) {
    // Chunks enough for each thread to take its part, whichever begins late.
    const std::int64_t chunks = 16 * num_threads();
    std::atomic<std::int64_t> done = 0;
    const double start = timing::seconds();
    parallel_chunks(chunks, num_threads(), [&](std::int64_t, int) { done += spin(rounds / 16); });
    const double spent = timing::seconds() - start;
    best = std::max(best, 2.0 * static_cast<double>(done) / spent);
    if (spent < 0.02) rounds *= 4;
  }
  return best;
}

inline double float_ceiling() { return ceiling(spin_float); }
inline double int8_ceiling() { return ceiling(int8::kernels().spin); }

// Operations a second of each kind, two to a multiplication.
struct Ceilings {
  double fp32 = 0, tf32 = 0, fp16 = 0, int8 = 0;
};

inline Ceilings measure_ceilings(Device device) {
  if (device == Device::cpu) {
    const double most = float_ceiling();
    return {most, most, most, int8_ceiling()};  // there is no TF32, nor arithmetic of halves
  }
#if SHRIKE_HAS_CUDA
  constexpr int rounds = SHRIKE_CUDA_HOST ? 16 : 4096;
  const auto of = [](cuda::Unit unit) { return cuda::ceiling(unit, rounds).operations_per_second; };
  return {of(cuda::Unit::ffma), of(cuda::Unit::mma_tf32), of(cuda::Unit::mma_f16), of(cuda::Unit::mma_s8)};
#else
  return {};
#endif
}

}  // namespace shrike::apps
