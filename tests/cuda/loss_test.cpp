// Losses on the device beside the CPU.
#include "shrike/ops/loss.hpp"
#include "cuda/pointwise.hpp"

using namespace shrike;

TEST_CASE("elementwise losses on the device are the CPU's") {
  for (const std::int64_t n : {0, 1, 5, 255, 4097, 9000}) {
    Random random(4, RandomStream::test, static_cast<std::uint64_t>(n));
    INFO(n << " elements");
    const Tensor x = reference::random_tensor({n}, random, -3, 3);
    x.set_requires_grad(true);
    const Tensor target = reference::random_tensor({n}, random, 0, 1), weight = reference::random_integers({n}, random, 1);
    for (std::int64_t i = 0; i < n; i += 3) {  // weight 0 hides even a NaN
      weight.data<float>()[i] = 0;
      if (i % 2 == 0) target.data<float>()[i] = NAN;
    }
    const Tensor good = reference::random_tensor({n}, random, 0, 1), dy = full({}, 1.5f);
    pointwise::check([](const Tensors& in) { return bce_with_logits(in[0], in[1], in[2]); }, {x, target, weight}, dy, 1e-5);
    pointwise::check([](const Tensors& in) { return bce_with_logits(in[0], in[1]); }, {x, good}, dy, 1e-6);
    for (const double beta : {0.0, 1.0 / 9, 1.0}) {
      pointwise::check([=](const Tensors& in) { return smooth_l1(in[0], in[1], in[2], beta); }, {x, target, weight}, dy, 1e-5);
      pointwise::check([=](const Tensors& in) { return smooth_l1(in[0], in[1], {}, beta); }, {x, good}, dy, 1e-6);
    }
    const Tensor integers = reference::random_integers({n}, random);
    integers.set_requires_grad(true);
    pointwise::check([](const Tensors& in) { return sum(in[0]); }, {integers}, dy);
  }
}

TEST_CASE("cross entropy on the device is the CPU's") {
  std::uint64_t number = 0;
  for (const Shape& shape : {Shape{1, 1}, Shape{9, 2}, Shape{130, 21}, Shape{3, 91}, Shape{0, 4}}) {
    Random random(5, RandomStream::test, number++);
    INFO(message(shape));
    const Tensor x = reference::random_tensor(shape, random, -9, 9);
    x.set_requires_grad(true);
    for (const std::uint32_t ignored : {0u, 2u, 1u}) {  // none, some, all
      std::vector<std::int32_t> labels;
      for (std::int64_t i = 0; i < shape[0]; ++i) {
        labels.push_back(ignored > 0 && i % ignored == 0
                             ? -1
                             : static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(shape[1]))));
      }
      pointwise::check([](const Tensors& in) { return softmax_cross_entropy(in[0], in[1]); }, {x, tensor({shape[0]}, labels)},
                       full({}, 2.0f), 1e-5);
    }
  }
}

TEST_CASE("on the device a label that is no class, or a logit that is NaN, makes the loss and its gradient NaN") {
  for (const std::int32_t label : {3, -7, 1}) {
    const Tensor host = full({2, 3}, 0.5f);
    if (label == 1) host.data<float>()[1] = NAN;
    const Tensor x = host.to(Device::cuda);
    x.set_requires_grad(true);
    const Tensor loss = softmax_cross_entropy(x, tensor<std::int32_t>({2}, {label, 0}, Device::cuda));
    CHECK(std::isnan(loss.item()));
    backward(loss);
    const auto gradient = x.grad().to_vector<float>();
    for (std::size_t i = 0; i < 3; ++i) CHECK(std::isnan(gradient[i]));
    for (std::size_t i = 3; i < 6; ++i) CHECK_FALSE(std::isnan(gradient[i]));
  }
}
