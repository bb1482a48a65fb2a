// Weights in an order that is safe for products summed in 16 bits.
#include "src/cpu/int8_safe.hpp"
#include "quantized.hpp"

using namespace shrike;

namespace {

// Of each two steps, the most that four weights of a column that are summed together add up to above 0 or below.
int greatest_load(const int8::Panel& panel, std::int64_t width) {
  const auto* const w = reinterpret_cast<const std::int8_t*>(panel.weights.data());
  int greatest = 0;
  for (std::int64_t step = 0; step < panel.steps; step += 2) {
    for (std::int64_t half = 0; half < 2 * width; ++half) {
      int above = 0, below = 0;
      for (const std::int64_t i : {2 * half, 2 * half + 1, 4 * width + 2 * half, 4 * width + 2 * half + 1}) {
        const int weight = w[step * 4 * width + i];
        (weight > 0 ? above : below) += weight;
      }
      greatest = std::max({greatest, above, -below});
    }
  }
  return greatest;
}

// The weights that a panel's steps add up to, in their own order.
std::vector<int> weights_of(const int8::Panel& panel, std::int64_t steps, std::int64_t width) {
  const auto* const w = reinterpret_cast<const std::int8_t*>(panel.weights.data());
  std::vector<int> sums(static_cast<std::size_t>(steps * width * 4));
  for (std::int64_t step = 0; step < panel.steps; ++step) {
    const std::int64_t to = panel.order[static_cast<std::size_t>(step)] / 4;
    for (std::int64_t i = 0; i < 4 * width; ++i) sums[static_cast<std::size_t>(to * 4 * width + i)] += w[step * 4 * width + i];
  }
  return sums;
}

}  // namespace

TEST_CASE("steps of a safe panel are safe together and add up to the weights") {
  Random random(1, RandomStream::test);
  for (const std::int64_t width : {16, 5, 1}) {
    for (const std::int64_t steps : {1, 2, 7, 333}) {
      for (const bool trained : {true, false}) {
        const Tensor weights = trained ? quantized::random_weights({steps, width, 4}, random)
                                       : quantized::random_codes({steps, width, 4}, Dtype::s8, random);
        INFO(steps << " steps of " << width << (trained ? ", as trained" : ", all over the range"));
        const auto panel = int8::safe_panel(steps, width, weights.data<std::int8_t>(), 4 * steps);
        REQUIRE(panel.has_value());
        REQUIRE(panel->steps % 2 == 0);
        REQUIRE(panel->order.size() == static_cast<std::size_t>(panel->steps));
        CHECK(greatest_load(*panel, width) <= 128);
        const auto expected = quantized::codes(weights);
        CHECK(weights_of(*panel, steps, width) == std::vector<int>(expected.begin(), expected.end()));
        for (const std::int32_t at : panel->order) CHECK((at >= 0 && at < 4 * steps && at % 4 == 0));
      }
    }
  }
}

TEST_CASE("a safe panel adds little to weights as training leaves them, and is refused where it would add much") {
  Random random(2, RandomStream::test);
  const Tensor trained = quantized::random_weights({2000, 16, 4}, random);
  const auto panel = int8::safe_panel(2000, 16, trained.data<std::int8_t>(), 4000);
  REQUIRE(panel.has_value());
  CHECK(panel->steps < 2500);
  std::vector<std::int8_t> greatest(2000 * 16 * 4, 127);
  CHECK_FALSE(int8::safe_panel(2000, 16, greatest.data(), 2500).has_value());
  CHECK(int8::safe_panel(2000, 16, greatest.data(), 8000).has_value());
}
