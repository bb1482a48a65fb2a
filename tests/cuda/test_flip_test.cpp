// Detection in an image and its mirror image, and soft suppression, on the device beside the CPU's.
#include "catch.hpp"
#include "cuda/compare.hpp"
#include "cuda/small_detector.hpp"
#include "reference.hpp"
#include "shrike/core/cuda.hpp"

using namespace shrike;
using namespace shrike::models;

TEST_CASE("what is found in an image and its mirror image, and by soft suppression, is the CPU's") {
  cuda_settings().tf32 = false;
  cuda_settings().provider = CudaSettings::Provider::native;
  const auto model = make_detector(small_detector("resnet18"));
  nn::initialize(*model, 4);
  nn::train(*model, false);
  model->options().test_flip = true;
  Random random(5, RandomStream::test);
  const Tensor images = reference::random_tensor({1, 51, 67, 3}, random, -2, 2);
  for (const SoftNms kind : {SoftNms::off, SoftNms::gaussian}) {
    model->options().detections.soft_nms = kind;
    nn::to(*model, Device::cpu);
    const auto expected = model->detect(images, {{51, 67}})[0];
    nn::to(*model, Device::cuda);
    const auto found = model->detect(images.to(Device::cuda), {{51, 67}})[0];
    REQUIRE(found.size() == expected.size());
    CHECK(found.size() > 1);
    for (std::size_t i = 0; i < found.size(); ++i) {
      INFO("detection " << i);
      CHECK(found[i].label == expected[i].label);
      CHECK(found[i].score == Approx(expected[i].score).epsilon(1e-4));
      CHECK(found[i].box.x1 == Approx(expected[i].box.x1).margin(1e-2));
      CHECK(found[i].box.y2 == Approx(expected[i].box.y2).margin(1e-2));
    }
  }
}
