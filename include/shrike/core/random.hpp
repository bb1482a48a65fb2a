// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

#include "shrike/core/check.hpp"
#include "shrike/core/device.hpp"

namespace shrike {

// Four random words for each counter under a key. Stateless, the same on every device; kernels call this one.
SHRIKE_HOST_DEVICE inline void philox(std::uint64_t key, std::uint64_t counter_high, std::uint64_t counter_low,
                                      std::uint32_t (&words)[4]) {
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
  auto c0 = static_cast<std::uint32_t>(counter_low);
  auto c1 = static_cast<std::uint32_t>(counter_low >> 32);
  auto c2 = static_cast<std::uint32_t>(counter_high);
  auto c3 = static_cast<std::uint32_t>(counter_high >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

inline std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high, std::uint64_t counter_low) {
  std::uint32_t words[4];
  philox(key, counter_high, counter_low, words);
  return {words[0], words[1], words[2], words[3]};
}

// What a stream of random numbers is for; streams of different purpose never meet.
enum class RandomStream : std::uint32_t {
  init = 1,    // weights
  shuffle,     // order of the images, by epoch
  augment,     // flips and jitter, by epoch and image
  dropout,     // by iteration and layer
  rpn_sample,  // anchors, by iteration and image
  roi_sample,  // proposals, by iteration and image
  shapes,      // the built-in data set, by image
  split,       // re-splitting of a data set
  test,
  bootstrap,  // images drawn for the interval of a measure
};

// Random numbers fixed by (seed, stream, index) alone, so that a run can go on from any iteration: nothing needs saving.
class Random {
 public:
  Random(std::uint64_t seed, RandomStream stream, std::uint64_t index = 0)
      : key_(seed), high_((std::uint64_t{static_cast<std::uint32_t>(stream)} << 48) ^ index) {}

  std::uint32_t bits() {
    if (used_ == 4) {
      block_ = philox(key_, high_, low_++);
      used_ = 0;
    }
    return block_[used_++];
  }

  // In [0, 1), 24 random bits.
  float uniform() { return static_cast<float>(bits() >> 8) * 0x1p-24f; }
  float uniform(float low, float high) { return low + (high - low) * uniform(); }

  // Integer in [0, n), n > 0, without bias.
  std::uint32_t below(std::uint32_t n) {
    SHRIKE_CHECK(n > 0, "a random integer below 0 was asked for");
    const std::uint32_t reject = (0u - n) % n;
    for (;;) {
      const std::uint64_t product = std::uint64_t{bits()} * n;
      if (static_cast<std::uint32_t>(product) >= reject) return static_cast<std::uint32_t>(product >> 32);
    }
  }

  // Normal with mean 0 and variance 1 (Box and Muller).
  float normal() {
    const float radius = std::sqrt(-2.0f * std::log(1.0f - uniform()));
    return radius * std::cos(2.0f * std::numbers::pi_v<float> * uniform());
  }

  // In place, every order equally likely (Fisher and Yates).
  template <class T> void shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i) {
      std::swap(values[i - 1], values[below(static_cast<std::uint32_t>(i))]);
    }
  }

 private:
  std::uint64_t key_;
  std::uint64_t high_;
  std::uint64_t low_ = 0;
  std::array<std::uint32_t, 4> block_{};
  unsigned used_ = 4;
};

}  // namespace shrike
