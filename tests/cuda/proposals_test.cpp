// Proposals and detections on the device against the CPU's.
#include "shrike/detection/proposals.hpp"

#include "compare.hpp"
#include "reference.hpp"
#include "shrike/detection/anchors.hpp"

using namespace shrike;

namespace {

// Few different values; some that are not numbers.
Tensor random_objectness(std::int64_t n, Random& random) {
  const Tensor scores({n});
  for (std::int64_t i = 0; i < n; ++i) {
    scores.data<float>()[i] = i % 41 == 3 ? NAN : static_cast<float>(random.below(500)) / 50.0f - 5.0f;
  }
  return scores;
}

}  // namespace

TEST_CASE("proposals on the device are the CPU's, padding included") {
  Random random(1, RandomStream::test);
  std::vector<Proposals> cpu_levels, cuda_levels;
  for (const std::int64_t side : {0, 1, 5, 12}) {
    const Tensor anchor = anchors({{16, 40}, {0.5f, 1, 2}}, 8, 8, side, side + 2);
    const std::int64_t n = anchor.size(0);
    const Tensor objectness = random_objectness(n, random);
    const Tensor deltas = reference::random_tensor({n, 4}, random, -0.6f, 0.6f);
    for (std::int64_t i = 7; i < deltas.numel(); i += 211) deltas.data<float>()[i] = NAN;
    for (const std::int64_t pre : {7, 300, 5000}) {
      for (const std::int64_t post : {1, 40, 1500}) {
        ProposalOptions options{pre, post, 0.6, side == 5 ? 12.0f : 1e-3f};
        INFO(n << " anchors, " << pre << " before, " << post << " after");
        const Proposals cpu = proposals(objectness, deltas, anchor, 90, 107, options);
        const Proposals cuda =
            proposals(objectness.to(Device::cuda), deltas.to(Device::cuda), anchor.to(Device::cuda), 90, 107, options);
        CHECK(same_bits(cuda.boxes, cpu.boxes));
        CHECK(same_bits(cuda.scores, cpu.scores));
        CHECK(same_bits(cuda.count, cpu.count));
      }
    }
  }
}

TEST_CASE("detections on the device are the CPU's, in one copy") {
  Random random(2, RandomStream::test);
  for (const std::int64_t classes : {2, 4, 21}) {
    for (const std::int64_t n : {0, 1, 60}) {
      const Tensor logits = reference::random_tensor({n, classes}, random, -4, 4);
      if (n > 1) logits.data<float>()[classes] = NAN;
      const Tensor deltas = reference::random_tensor({n, 4 * classes}, random, -3, 3);
      const Tensor boxes({n, 4});
      for (std::int64_t i = 0; i < n; ++i) {
        const float x = random.uniform(0, 60), y = random.uniform(0, 60);
        const float side = i % 9 == 8 ? 0.0f : 8.0f + random.uniform(0, 30);  // padding has no area
        kernels::store_box({x, y, x + side, y + side}, boxes.data<float>() + 4 * i);
      }
      for (const std::int64_t most : {0, 3, 100, -100}) {
        DetectionOptions options;
        options.max_detections = std::abs(most);
        if (most < 0) options.soft_nms = SoftNms::gaussian;
        INFO(n << " proposals, " << classes << " classes, at most " << most);
        const auto cpu = detections(logits, deltas, boxes, 90, 80, options);
        const auto cuda = detections(logits.to(Device::cuda), deltas.to(Device::cuda), boxes.to(Device::cuda), 90, 80, options);
        REQUIRE(cuda.size() == cpu.size());
        if (n == 60 && most != 0) CHECK(cpu.size() > 2);
        for (std::size_t i = 0; i < cpu.size(); ++i) {
          CHECK(cuda[i].label == cpu[i].label);
          CHECK(cuda[i].score == Approx(cpu[i].score).epsilon(1e-6));
          CHECK(cuda[i].box.x1 == Approx(cpu[i].box.x1).margin(1e-4));
          CHECK(cuda[i].box.y2 == Approx(cpu[i].box.y2).margin(1e-4));
        }
      }
    }
  }
}
