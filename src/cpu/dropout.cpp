#include "shrike/ops/dropout.hpp"

#include "shrike/core/threads.hpp"

namespace shrike::kernels {
namespace {

constexpr int lanes = 16;

// philox() of `lanes` counters at once, low, low + 1, ..., in a form that the compiler turns into vectors.
void philox_lanes(std::uint64_t key, std::uint64_t high, std::uint64_t low, std::uint32_t (&words)[4][lanes]) {
  auto& [c0, c1, c2, c3] = words;
  for (int i = 0; i < lanes; ++i) {
    const std::uint64_t counter = low + static_cast<std::uint64_t>(i);
    c0[i] = static_cast<std::uint32_t>(counter);
    c1[i] = static_cast<std::uint32_t>(counter >> 32);
    c2[i] = static_cast<std::uint32_t>(high);
    c3[i] = static_cast<std::uint32_t>(high >> 32);
  }
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < lanes; ++i) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0[i];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2[i];
      c0[i] = static_cast<std::uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c1[i] = static_cast<std::uint32_t>(p1);
      c2[i] = static_cast<std::uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c3[i] = static_cast<std::uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

}  // namespace

void dropout_forward(Cpu, const DropoutMask& mask, std::int64_t n, const float* x, float* y) {
  constexpr std::int64_t block = 4 * lanes;
  parallel_for((n + block - 1) / block, 256, [&](std::int64_t begin, std::int64_t end) {
    std::uint32_t words[4][lanes];
    for (std::int64_t b = begin; b < end; ++b) {
      philox_lanes(mask.seed, mask.stream, static_cast<std::uint64_t>(b * lanes), words);
      const std::int64_t first = b * block;
      const std::int64_t count = std::min(block, n - first);
      for (std::int64_t i = 0; i < count; ++i) {
        const bool keep = words[i % 4][i / 4] >> 8 >= mask.threshold;
        y[first + i] = keep ? x[first + i] * mask.scale : 0.0f;
      }
    }
  });
}

}  // namespace shrike::kernels
