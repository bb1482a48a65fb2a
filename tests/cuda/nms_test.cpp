// Sorting and suppression on the device against the CPU's: all of it decides, so all of it is exact.
#include "shrike/ops/nms.hpp"

#include "compare.hpp"
#include "reference.hpp"

using namespace shrike;

namespace {

Tensor random_boxes(std::int64_t n, Random& random, float extent) {
  std::vector<float> boxes;
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = random.uniform(0, extent), y = random.uniform(0, extent);
    boxes.insert(boxes.end(), {i % 31 == 7 ? NAN : x, y, x + random.uniform(0, extent / 2), y + random.uniform(0, extent / 2)});
    if (i % 17 == 5) std::swap(boxes[boxes.size() - 3], boxes.back());  // inside out
    if (i % 19 == 6) std::copy_n(boxes.end() - 8, 4, boxes.end() - 4);  // the same again
  }
  return tensor<float>({n, 4}, boxes);
}

// Few different values, so that there are ties.
Tensor random_scores(std::int64_t n, Random& random) {
  const float special[] = {NAN, HUGE_VALF, -HUGE_VALF, -0.0f, 0.0f, 1e-40f, -1e-40f};
  std::vector<float> scores;
  for (std::int64_t i = 0; i < n; ++i) {
    scores.push_back(i % 7 == 3 ? special[i / 7 % 7] : static_cast<float>(random.below(200)) / 100.0f - 1.0f);
  }
  return tensor<float>({n}, scores);
}

}  // namespace

TEST_CASE("top_k on the device is the CPU's, whatever k") {
  Random random(1, RandomStream::test);
  for (const std::int64_t n : {0, 1, 2, 63, 1000, 5000}) {
    const Tensor scores = random_scores(n, random);
    for (const std::int64_t k : {std::int64_t{0}, std::int64_t{1}, n / 2, n, n + 3}) {
      INFO("the " << k << " greatest of " << n);
      CHECK(same_bits(top_k(scores.to(Device::cuda), k), top_k(scores, k)));
    }
  }
}

TEST_CASE("suppression on the device keeps what the CPU keeps") {
  Random random(2, RandomStream::test);
  for (const std::int64_t n : {0, 1, 2, 63, 64, 65, 300, 1000}) {
    const Tensor boxes = random_boxes(n, random, 100);
    const Tensor order = top_k(random_scores(n, random), n);
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < n; ++i) ids.push_back(static_cast<std::int32_t>(random.below(4)) - 1);
    for (std::int64_t i = 3; i < n; i += 9) order.data<std::int32_t>()[i] = -1;
    for (std::int64_t i = n * 3 / 4; i < n; ++i) order.data<std::int32_t>()[i] = -1;  // whole tiles that dropped out
    for (const Tensor& labels : {Tensor(), tensor<std::int32_t>({n}, ids)}) {
      for (const double threshold : {0.0, 0.3, 0.7, 1.0}) {
        for (const std::int64_t most : {-1, 0, 1, 50, 2000}) {
          INFO(n << " boxes, threshold " << threshold << ", at most " << most << (labels.defined() ? ", labelled" : ""));
          const NmsResult cpu = nms_in_order(boxes, order, labels, threshold, most);
          const NmsResult cuda = nms_in_order(boxes.to(Device::cuda), order.to(Device::cuda),
                                              labels.defined() ? labels.to(Device::cuda) : labels, threshold, most);
          REQUIRE(same_bits(cuda.keep, cpu.keep));
          REQUIRE(same_bits(cuda.count, cpu.count));
        }
      }
    }
  }
}

TEST_CASE("an IoU of exactly the threshold does not suppress on the device either") {
  const Tensor boxes = tensor<float>({2, 4}, {0, 0, 10, 1, 0, 0, 3, 1}, Device::cuda);  // the float nearest 0.3, above 0.3
  const Tensor order = tensor<std::int32_t>({2}, {0, 1}, Device::cuda);
  CHECK(nms_in_order(boxes, order, {}, 0.3).count.item<std::int32_t>() == 1);
  CHECK(nms_in_order(boxes, order, {}, static_cast<double>(0.3f)).count.item<std::int32_t>() == 2);
}
