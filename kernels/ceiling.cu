// Loops of one instruction on registers alone, eight independent sums a thread. Every product is 1, so that each sum is known.
#include "kernels/ceiling.hpp"

#include <chrono>
#include <vector>

#include "kernels/mma.hpp"
#include "shrike/core/tensor.hpp"

namespace shrike::cuda {
namespace {

constexpr int chains = 8, threads = 256;

// A unit: its operands of ones, one step of a sum, what a step adds to each element of the sum, and the multiply-adds that a
// step of one thread stands for.
struct Ffma {
  using Sum = float[1];
  static constexpr double adds = 1, products = 1;
  float one;
  __device__ explicit Ffma(int n) : one(static_cast<float>(n)) {}
  __device__ __forceinline__ void step(Sum& sum) const { sum[0] = fmaf(one, one, sum[0]); }
};

struct MmaTf32 {
  using Sum = float[4];
  static constexpr double adds = 8, products = 16 * 8 * 8 / 32.0;
  unsigned a[4], b[2];
  __device__ explicit MmaTf32(int n) {
    const unsigned one = __float_as_uint(static_cast<float>(n));
    a[0] = a[1] = a[2] = a[3] = b[0] = b[1] = one;
  }
  __device__ __forceinline__ void step(Sum& sum) const { mma_m16n8k8_tf32(sum, a, b); }
};

struct MmaF16 {
  using Sum = float[4];
  static constexpr double adds = 16, products = 16 * 8 * 16 / 32.0;
  unsigned a[4], b[2];
  __device__ explicit MmaF16(int n) {
    const unsigned one = half_bits(static_cast<float>(n)) * 0x10001u;
    a[0] = a[1] = a[2] = a[3] = b[0] = b[1] = one;
  }
  __device__ __forceinline__ void step(Sum& sum) const { mma_m16n8k16_f16(sum, a, b); }
};

struct MmaF16Small {
  using Sum = float[4];
  static constexpr double adds = 8, products = 16 * 8 * 8 / 32.0;
  unsigned a[2], b;
  __device__ explicit MmaF16Small(int n) { a[0] = a[1] = b = half_bits(static_cast<float>(n)) * 0x10001u; }
  __device__ __forceinline__ void step(Sum& sum) const { mma_m16n8k8_f16(sum, a, b); }
};

struct Dp4a {
  using Sum = int[1];
  static constexpr double adds = 4, products = 4;
  int ones;
  __device__ explicit Dp4a(int n) : ones(n * 0x01010101) {}
  __device__ __forceinline__ void step(Sum& sum) const { sum[0] = dp4a_s8s8(ones, ones, sum[0]); }
};

struct MmaS8 {
  using Sum = int[4];
  static constexpr double adds = 32, products = 16 * 8 * 32 / 32.0;
  unsigned a[4], b[2];
  __device__ explicit MmaS8(int n) { a[0] = a[1] = a[2] = a[3] = b[0] = b[1] = static_cast<unsigned>(n) * 0x01010101u; }
  __device__ __forceinline__ void step(Sum& sum) const { mma_m16n8k32_s8s8(sum, a, b); }
};

struct MmaS8Small {
  using Sum = int[2];
  static constexpr double adds = 16, products = 8 * 8 * 16 / 32.0;
  unsigned ones;
  __device__ explicit MmaS8Small(int n) : ones(static_cast<unsigned>(n) * 0x01010101u) {}
  __device__ __forceinline__ void step(Sum& sum) const { mma_m8n8k16_s8s8(sum, ones, ones); }
};

// wrong += the elements of this thread's sums that are not rounds * U::adds; `one` is 1, and the compiler does not know.
template <class U> __global__ void __launch_bounds__(threads) ceiling_kernel(int rounds, int one, int* wrong) {
  const U unit(one);
  typename U::Sum sums[chains] = {};
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int i = 0; i < chains; ++i) unit.step(sums[i]);
  }
  int odd = 0;
  for (const auto& sum : sums) {
    for (const auto element : sum) odd += static_cast<double>(element) != rounds * U::adds;
  }
  if (odd != 0) atomicAdd(wrong, odd);
}

template <class U> Ceiling measure(int rounds) {
  const unsigned blocks = SHRIKE_CUDA_HOST ? 1 : 8 * static_cast<unsigned>(properties().multiprocessors);
  const Tensor wrong = zeros({1}, Dtype::s32, Device::cuda);
  double best = 0;
  for (int attempt = 0; attempt < 6; ++attempt) {  // the first is not counted
    synchronize();
    const auto start = std::chrono::steady_clock::now();
    launch(ceiling_kernel<U>, blocks, threads, 0, rounds, 1, wrong.data<std::int32_t>());
    synchronize();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double operations = 2.0 * U::products * chains * threads * blocks * rounds;
    if (attempt > 0) best = std::max(best, operations / seconds);
  }
  return {best, wrong.to(Device::cpu).item<std::int32_t>() == 0};
}

}  // namespace

Ceiling ceiling(Unit unit, int rounds) {
  const int capability = properties().compute_capability;
  SHRIKE_CHECK(unit != Unit::mma_tf32 || capability >= 80, "the device has no mma of TF32 before sm_80");
  SHRIKE_CHECK(unit != Unit::mma_f16 || capability >= 75, "the device has no mma m16n8k8 of f16 before sm_75");
  SHRIKE_CHECK(unit != Unit::mma_s8 || capability >= 75, "the device has no mma of s8 before sm_75");
  switch (unit) {
    case Unit::ffma: return measure<Ffma>(rounds);
    case Unit::mma_tf32: return measure<MmaTf32>(rounds);
    case Unit::mma_f16: return capability >= 80 ? measure<MmaF16>(rounds) : measure<MmaF16Small>(rounds);
    case Unit::dp4a: return measure<Dp4a>(rounds);
    default: return capability >= 80 ? measure<MmaS8>(rounds) : measure<MmaS8Small>(rounds);
  }
}

}  // namespace shrike::cuda
