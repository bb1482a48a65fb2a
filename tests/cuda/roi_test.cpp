// RoIPool and RoIAlign on the device against the CPU's.
#include "shrike/ops/roi.hpp"

#include "compare.hpp"
#include "reference.hpp"
#include "shrike/detection/rois.hpp"

using namespace shrike;

namespace {

// Some regions reach outside the map, some are of no image, some are not numbers.
Tensor random_rois(std::int64_t n, std::int64_t images, float extent, Random& random) {
  std::vector<float> rois;
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = random.uniform(-0.3f, 1.1f) * extent, y = random.uniform(-0.3f, 1.1f) * extent;
    const float image = i % 7 == 5 ? -1.0f : static_cast<float>(random.below(static_cast<std::uint32_t>(images)));
    rois.insert(rois.end(), {image, x, i % 11 == 8 ? NAN : y, x + random.uniform(0, extent),
                             i % 13 == 4   ? HUGE_VALF
                             : i % 13 == 6 ? 3e38f
                                           : y + random.uniform(0, extent)});
  }
  return tensor<float>({n, 5}, rois);
}

struct Size {
  Shape map;
  std::int64_t rois;
  RoiOptions options;
};

const Size sizes[] = {
    {{1, 1, 1, 1}, 1, {1, 1, 1.0}},   {{2, 9, 13, 8}, 17, {7, 7, 1.0 / 16}}, {{3, 6, 5, 5}, 9, {2, 3, 0.25}},
    {{1, 7, 8, 3}, 0, {7, 7, 0.5}},   {{0, 4, 4, 8}, 2, {2, 2, 1.0}},        {{1, 0, 4, 8}, 2, {2, 2, 1.0}},
    {{1, 4, 5, 516}, 5, {2, 2, 0.1}}, {{2, 5, 6, 4}, 150, {3, 3, 0.1}},      {{1, 5, 6, 131}, 3, {3, 2, 1.0 / 16}}};

}  // namespace

TEST_CASE("roi_pool and its gradient are the CPU's to the bit") {
  Random random(1, RandomStream::test);
  for (const Size& size : sizes) {
    INFO("map " << message(size.map) << ", " << size.rois << " regions");
    const Tensor x = reference::random_integers(size.map, random, 9);  // ties
    if (x.numel() > 40) x.data<float>()[random.below(static_cast<std::uint32_t>(x.numel()))] = NAN;
    const Tensor rois = random_rois(size.rois, std::max<std::int64_t>(size.map[0], 1), 100, random);
    RoiPool op;
    op.height = size.options.height;
    op.width = size.options.width;
    op.spatial_scale = size.options.spatial_scale;
    const Tensor dy = reference::random_tensor({size.rois, op.height, op.width, size.map[3]}, random);
    const auto run = [&](Device device) {
      const Tensor leaf = x.clone().to(device).set_requires_grad(true);
      const Tensors out = call(op, {leaf, rois.to(device)});
      backward({out[0]}, {dy.to(device)});
      return Tensors{out[0], out[1], leaf.grad()};
    };
    const Tensors cpu = run(Device::cpu), cuda = run(Device::cuda);
    CHECK(same_bits(cuda[1], cpu[1]));
    CHECK(same_bits(cuda[0], cpu[0]));
    // Sums run in the same order of regions and bins.
    CHECK(same_bits(cuda[2], cpu[2]));
  }
}

TEST_CASE("roi_align and its gradient are the CPU's") {
  Random random(2, RandomStream::test);
  for (const Size& size : sizes) {
    for (const std::int64_t ratio : {0, 2, 3}) {
      for (const bool aligned : {false, true}) {
        INFO("map " << message(size.map) << ", " << size.rois << " regions, sampling ratio " << ratio << ", aligned "
                    << aligned);
        const Tensor x = reference::random_tensor(size.map, random);
        const Tensor rois = random_rois(size.rois, std::max<std::int64_t>(size.map[0], 1), 100, random);
        RoiOptions options = size.options;
        options.sampling_ratio = ratio;
        options.aligned = aligned;
        const Tensor dy = reference::random_tensor({size.rois, options.height, options.width, size.map[3]}, random);
        const auto run = [&](Device device) {
          const Tensor leaf = x.clone().to(device).set_requires_grad(true);
          const Tensor y = roi_align(leaf, rois.to(device), options);
          backward({y}, {dy.to(device)});
          return Tensors{y, leaf.grad()};
        };
        const Tensors cpu = run(Device::cpu), cuda = run(Device::cuda);
        CHECK(reference::difference(cuda[0], reference::doubles(cpu[0])) < 2e-6);
        CHECK(reference::difference(cuda[1], reference::doubles(cpu[1])) < 1e-5);
        CHECK(same_bits(cuda[1], run(Device::cuda)[1]));
      }
    }
  }
}

TEST_CASE("roi_pool and roi_align of codes are the CPU's to the bit") {
  Random random(4, RandomStream::test);
  for (const Size& size : sizes) {
    for (const Dtype dtype : {Dtype::u8, Dtype::s8}) {
      const Tensor x(size.map, dtype);
      for (std::int64_t i = 0; i < x.numel(); ++i)
        static_cast<unsigned char*>(x.raw())[i] = static_cast<unsigned char>(random.bits());
      const Tensor rois = random_rois(size.rois, std::max<std::int64_t>(size.map[0], 1), 100, random);
      const Tensor on_device = x.to(Device::cuda), rois_on_device = rois.to(Device::cuda);
      INFO(name(dtype) << " map " << message(size.map) << ", " << size.rois << " regions");
      CHECK(same_bits(roi_pool(on_device, rois_on_device, size.options), roi_pool(x, rois, size.options)));
      for (const std::int64_t ratio : {0, 2, 3}) {
        RoiOptions options = size.options;
        options.sampling_ratio = ratio;
        options.aligned = ratio != 2;
        CHECK(same_bits(roi_align(on_device, rois_on_device, options), roi_align(x, rois, options)));
      }
    }
  }
}

TEST_CASE("boxes become regions on the device") {
  Random random(3, RandomStream::test);
  for (const std::int64_t n : {0, 1, 300}) {
    const Tensor boxes = reference::random_tensor({n, 4}, random);
    CHECK(same_bits(boxes_to_rois(boxes.to(Device::cuda), 3), boxes_to_rois(boxes, 3)));
  }
}
