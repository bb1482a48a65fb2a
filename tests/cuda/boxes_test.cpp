// Box coding on the device against the CPU's. Differences and clipping are exact; exp and log are those of the device's
// library.
#include "shrike/detection/boxes.hpp"

#include "compare.hpp"
#include "reference.hpp"

using namespace shrike;

TEST_CASE("boxes are encoded, decoded and clipped on the device as on the CPU") {
  Random random(1, RandomStream::test);
  for (const std::int64_t n : {0, 1, 255, 1000}) {
    const Tensor boxes = reference::random_tensor({n, 4}, random, -20, 120), references({n, 4});
    for (std::int64_t i = 0; i < n; ++i) {
      const float x = random.uniform(0, 100), y = random.uniform(0, 100);
      kernels::store_box({x, y, x + random.uniform(0, 50), y + random.uniform(0, 50)}, references.data<float>() + 4 * i);
    }
    for (const BoxWeights& weights : {anchor_weights, roi_weights}) {
      const Tensor cpu = encode_boxes(boxes, references, weights);
      const Tensor cuda = encode_boxes(boxes.to(Device::cuda), references.to(Device::cuda), weights);
      CHECK(reference::difference(cuda, reference::doubles(cpu)) < 1e-6);
      for (const std::int64_t classes : {1, 3}) {
        const Tensor deltas = reference::random_tensor({n, 4 * classes}, random, -6, 6);
        for (std::int64_t i = 5; i < deltas.numel(); i += 101) deltas.data<float>()[i] = i % 2 ? NAN : HUGE_VALF;
        const Tensor decoded = decode_boxes(deltas, references, weights);
        CHECK(reference::difference(decode_boxes(deltas.to(Device::cuda), references.to(Device::cuda), weights),
                                    reference::doubles(decoded)) < 1e-6);
        const Tensor rows = decoded.view({n * classes, 4});
        CHECK(same_bits(clip_boxes(rows.to(Device::cuda), 90, 70), clip_boxes(rows, 90, 70)));
      }
    }
  }
}
