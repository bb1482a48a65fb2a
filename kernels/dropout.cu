// Dropout, with the mask of the CPU to the bit: thread i owns elements 4i .. 4i+3 and the four words of counter i.
//
// 8 bytes moved per element for 1/4 of a Philox block, about 20 integer operations: bandwidth is the bound.
#include "kernels/reduce.cuh"
#include "shrike/ops/dropout.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;

// philox() of core/random.hpp, for the device.
__device__ __forceinline__ void philox_words(std::uint64_t key, std::uint64_t high, std::uint64_t low, unsigned (&c)[4]) {
  auto k0 = static_cast<unsigned>(key), k1 = static_cast<unsigned>(key >> 32);
  c[0] = static_cast<unsigned>(low);
  c[1] = static_cast<unsigned>(low >> 32);
  c[2] = static_cast<unsigned>(high);
  c[3] = static_cast<unsigned>(high >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
    const unsigned high1 = __umulhi(0xCD9E8D57u, c[2]), low1 = 0xCD9E8D57u * c[2];
    c[0] = high1 ^ c[1] ^ k0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ k1;
    c[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// y =
__global__ void __launch_bounds__(threads)
    dropout_forward_kernel(const DropoutMask mask, std::int64_t n, const float* __restrict__ x, float* __restrict__ y) {
  for (std::int64_t i = cuda::first_index(); 4 * i < n; i += cuda::index_stride()) {
    unsigned words[4];
    philox_words(mask.seed, mask.stream, static_cast<std::uint64_t>(i), words);
    if (4 * i + 4 <= n) {
      auto value = cuda::load<4>(x + 4 * i);
#pragma unroll
      for (int k = 0; k < 4; ++k) value.v[k] = words[k] >> 8 >= mask.threshold ? value.v[k] * mask.scale : 0.0f;
      cuda::store<4>(y + 4 * i, value);
    } else {
#pragma unroll
      for (int k = 0; k < 3; ++k) {
        if (4 * i + k < n) y[4 * i + k] = words[k] >> 8 >= mask.threshold ? x[4 * i + k] * mask.scale : 0.0f;
      }
    }
  }
}

}  // namespace

void dropout_forward(Cuda, const DropoutMask& mask, std::int64_t n, const float* x, float* y) {
  cuda::launch(dropout_forward_kernel, cuda::loop_blocks((n + 3) / 4, threads), threads, 0, mask, n, x, y);
}

}  // namespace shrike::kernels
