// Matching, sampling and encoding on the device against the CPU's.
#include "shrike/detection/targets.hpp"

#include "compare.hpp"
#include "reference.hpp"
#include "shrike/detection/anchors.hpp"

using namespace shrike;

namespace {

// Some without area, one that is not a number, and one twice.
Tensor random_boxes(std::int64_t n, Random& random, float extent) {
  const Tensor boxes({n, 4});
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = random.uniform(0, extent), y = random.uniform(0, extent);
    Box box{x, y, x + random.uniform(4, extent / 2), y + random.uniform(4, extent / 2)};
    if (i % 8 == 5) box.x2 = box.x1;
    if (i % 50 == 6) box.y1 = NAN;
    if (i % 50 == 7) box = kernels::load_box(boxes.data<float>());
    kernels::store_box(box, boxes.data<float>() + 4 * i);
  }
  return boxes;
}

}  // namespace

TEST_CASE("the anchors' targets on the device are the CPU's") {
  Random random(1, RandomStream::test);
  for (const std::int64_t side : {0, 1, 7, 14}) {
    const Tensor anchor = anchors({{16, 32, 64}, {0.5f, 1, 2}}, 8, 8, side, side + 3);
    for (const std::int64_t m : {0, 1, 9, 140}) {
      const Tensor boxes = random_boxes(m, random, 100);
      for (const int batch : {1, 30, 256, 1 << 20}) {
        RpnTargetOptions options;
        options.batch = batch;
        options.best_is_positive = batch != 256;
        if (batch == 30) options.straddle = 3, options.best_iou = 0.3f;
        if (batch > 256 && side > 7) continue;
        INFO(anchor.size(0) << " anchors, " << m << " boxes, batch " << batch);
        const RpnTargets cpu = rpn_targets(anchor, boxes, 90, 110, options, 3, static_cast<std::uint64_t>(side));
        const RpnTargets cuda =
            rpn_targets(anchor.to(Device::cuda), boxes.to(Device::cuda), 90, 110, options, 3, static_cast<std::uint64_t>(side));
        CHECK(same_bits(cuda.counts, cpu.counts));
        CHECK(same_bits(cuda.cls_target, cpu.cls_target));
        CHECK(same_bits(cuda.cls_weight, cpu.cls_weight));
        CHECK(same_bits(cuda.box_weight, cpu.box_weight));
        CHECK(reference::difference(cuda.box_target, reference::doubles(cpu.box_target)) < 1e-6);
      }
    }
  }
}

TEST_CASE("shares of a batch's images on the device are the CPU's") {
  for (const std::int64_t images : {1, 2, 5, 300}) {
    Random random(4, RandomStream::test);
    std::vector<std::int32_t> counts;
    for (std::int64_t i = 0; i < 2 * images; ++i)
      counts.push_back(static_cast<std::int32_t>(random.below(images == 2 ? 1 : 200)));
    const Tensor cpu = tensor<std::int32_t>({2 * images}, counts), cuda = cpu.to(Device::cuda);
    for (const std::int64_t least : {std::int64_t{1}, 256 * images}) {
      const Tensor expected({images}), found({images}, Dtype::f32, Device::cuda);
      kernels::sample_shares(Cpu{}, images, least, cpu.data<std::int32_t>(), expected.data<float>());
      kernels::sample_shares(Cuda{}, images, least, cuda.data<std::int32_t>(), found.data<float>());
      CHECK(same_bits(found, expected));
    }
  }
}

TEST_CASE("the regions' targets on the device are the CPU's") {
  Random random(2, RandomStream::test);
  for (const std::int64_t p : {0, 1, 130, 700}) {
    for (const std::int64_t m : {0, 1, 9, 140}) {
      const Tensor candidates = random_boxes(p, random, 100), boxes = random_boxes(m, random, 100);
      std::vector<std::int32_t> ids;
      for (std::int64_t i = 0; i < m; ++i) ids.push_back(1 + static_cast<std::int32_t>(random.below(3)));
      const Tensor labels = tensor<std::int32_t>({m}, ids);
      for (const int batch : {1, 128, 900}) {
        RoiTargetOptions options;
        options.batch = batch;
        options.negative_low = batch == 128 ? 0.1f : 0.0f;
        INFO(p << " proposals, " << m << " boxes, batch " << batch);
        const RoiTargets cpu = roi_targets(candidates, boxes, labels, 4, options, 5, 6, 2);
        const RoiTargets cuda =
            roi_targets(candidates.to(Device::cuda), boxes.to(Device::cuda), labels.to(Device::cuda), 4, options, 5, 6, 2);
        CHECK(same_bits(cuda.counts, cpu.counts));
        CHECK(same_bits(cuda.rois, cpu.rois));
        CHECK(same_bits(cuda.labels, cpu.labels));
        CHECK(same_bits(cuda.box_weight, cpu.box_weight));
        CHECK(reference::difference(cuda.box_target, reference::doubles(cpu.box_target)) < 1e-6);
      }
    }
  }
}

TEST_CASE("samples of any size are the very ones of the CPU") {
  Random random(3, RandomStream::test);
  const std::int64_t n = 3000;
  const Tensor labels({n}, Dtype::s32);
  for (std::int64_t i = 0; i < n; ++i) labels.data<std::int32_t>()[i] = static_cast<std::int32_t>(random.below(3)) - 1;
  const Tensor on_device = labels.to(Device::cuda);
  for (const std::int64_t batch : {1, 7, 256, 2500, 5000}) {
    for (const std::int64_t most : {std::int64_t{0}, batch / 2, batch}) {
      const kernels::SampleSizes sizes{n, batch, most, 11, static_cast<std::uint64_t>(batch)};
      const Tensor cpu({batch}, Dtype::s32), cpu_counts({2}, Dtype::s32);
      const Tensor cuda({batch}, Dtype::s32, Device::cuda), cuda_counts({2}, Dtype::s32, Device::cuda);
      kernels::sample_balanced(Cpu{}, sizes, labels.data<std::int32_t>(), cpu.data<std::int32_t>(),
                               cpu_counts.data<std::int32_t>());
      kernels::sample_balanced(Cuda{}, sizes, on_device.data<std::int32_t>(), cuda.data<std::int32_t>(),
                               cuda_counts.data<std::int32_t>());
      CHECK(same_bits(cuda, cpu));
      CHECK(same_bits(cuda_counts, cpu_counts));
    }
  }
}
