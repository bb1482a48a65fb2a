#include "shrike/ops/loss.hpp"

#include "golden.hpp"
#include "reference.hpp"
#include "threads.hpp"

using namespace shrike;
using reference::Doubles;

namespace {

// The loss and its gradient with respect to x.
using Loss = std::function<Tensor(const Tensor&)>;

void check_golden(const Golden& golden, const std::string& name, const Tensor& x, const Loss& loss) {
  INFO(name);
  x.clear_grad();
  x.set_requires_grad(true);
  const Tensor value = loss(x);
  REQUIRE(value.shape() == Shape{});
  CHECK(value.item() == Approx(golden.values(name + ".loss")[0]).epsilon(1e-6));
  backward(value);
  CHECK(reference::difference(x.grad(), golden.values(name + ".dx")) < 2e-7);
}

double bce(double x, double t) { return std::max(x, 0.0) - x * t + std::log1p(std::exp(-std::abs(x))); }

double smooth(double d, double beta) {
  d = std::abs(d);
  return d < beta ? d * d / (2 * beta) : d - beta / 2;
}

// The sum of weight * f(x, t), or the mean without weights.
template <class F> reference::Reference elementwise_loss(const F& f) {
  return [f](const std::vector<Doubles>& in) {
    double sum = 0;
    for (std::size_t i = 0; i < in[0].size(); ++i) {
      sum += f(in[0][i], in[1][i]) * (in.size() > 2 ? in[2][i] : 1.0 / static_cast<double>(in[0].size()));
    }
    return Doubles{sum};
  };
}

Doubles plain_cross_entropy(const std::vector<Doubles>& in) {
  const Doubles& labels = in[1];
  const std::size_t classes = in[0].size() / labels.size();
  double sum = 0, count = 0;
  for (std::size_t row = 0; row < labels.size(); ++row) {
    if (labels[row] < 0) continue;
    double total = 0;
    for (std::size_t i = 0; i < classes; ++i) total += std::exp(in[0][row * classes + i]);
    sum += std::log(total) - in[0][row * classes + static_cast<std::size_t>(labels[row])];
    ++count;
  }
  return {sum / std::max(count, 1.0)};
}

}  // namespace

TEST_CASE("losses and their gradients are torch's") {
  const Golden golden("loss_golden.txt");
  const Tensor labels = golden.s32("cross_entropy.labels");
  check_golden(golden, "cross_entropy", golden.f32("cross_entropy.logits"),
               [&](const Tensor& x) { return softmax_cross_entropy(x, labels); });
  const Tensor x = golden.f32("x"), target = golden.f32("target"), weight = golden.f32("weight");
  check_golden(golden, "bce.mean", x, [&](const Tensor& y) { return bce_with_logits(y, target); });
  check_golden(golden, "bce.sum", x, [&](const Tensor& y) { return bce_with_logits(y, target, weight); });
  for (const double beta : {0.0, 1.0 / 9, 1.0, 2.5}) {
    char name[32];
    std::snprintf(name, sizeof name, "smooth_l1.%.3f", beta);
    check_golden(golden, std::string(name) + ".mean", x, [&](const Tensor& y) { return smooth_l1(y, target, {}, beta); });
    check_golden(golden, std::string(name) + ".sum", x, [&](const Tensor& y) { return smooth_l1(y, target, weight, beta); });
  }
}

TEST_CASE("losses' gradients are those of their definitions, scaled by what comes from above") {
  Random random(1, RandomStream::test);
  const reference::GradientOptions first_only{1e-4, 1e-6, {true, false, false}};
  for (const std::int64_t rows : {1, 7}) {
    const Tensor x = reference::random_tensor({rows, 5}, random, -3, 3);
    const Tensor target = reference::random_tensor({rows, 5}, random, 0, 1);
    const Tensor weight = reference::random_tensor({rows, 5}, random, 0, 2);
    reference::check_gradients([](const Tensors& in) { return bce_with_logits(in[0], in[1], in[2]); }, elementwise_loss(bce),
                               {x, target, weight}, random, first_only);
    reference::check_gradients([](const Tensors& in) { return bce_with_logits(in[0], in[1]); }, elementwise_loss(bce),
                               {x, target}, random, {1e-4, 1e-6, {true, false}});
    const auto l1 = elementwise_loss([](double a, double b) { return smooth(a - b, 0.75); });
    reference::check_gradients([](const Tensors& in) { return smooth_l1(in[0], in[1], in[2], 0.75); }, l1, {x, target, weight},
                               random, first_only);
    std::vector<std::int32_t> labels;
    for (std::int64_t i = 0; i < rows; ++i) labels.push_back(i % 3 == 2 ? -1 : static_cast<std::int32_t>(random.below(5)));
    reference::check_gradients([](const Tensors& in) { return softmax_cross_entropy(in[0], in[1]); }, plain_cross_entropy,
                               {x, tensor<std::int32_t>({rows}, labels)}, random);
    const auto total = [](const std::vector<Doubles>& in) {
      double sum = 0;
      for (const double v : in[0]) sum += v;
      return Doubles{sum};
    };
    reference::check_gradients([](const Tensors& in) { return sum(in[0]); }, total, {x}, random);
  }
}

TEST_CASE("losses of nothing are 0") {
  for (const Tensor& value :
       {softmax_cross_entropy(zeros({0, 4}), zeros({0}, Dtype::s32)),
        softmax_cross_entropy(zeros({2, 4}), tensor<std::int32_t>({2}, {-1, -1})), bce_with_logits(zeros({0}), zeros({0})),
        smooth_l1(zeros({0, 4}), zeros({0, 4}), zeros({0, 4})), sum(zeros({3, 0}))}) {
    CHECK(value.item() == 0.0f);
  }
  const Tensor x = full({2, 4}, 1.0f).set_requires_grad(true);
  backward(softmax_cross_entropy(x, tensor<std::int32_t>({2}, {-1, -1})));
  CHECK(x.grad().to_vector<float>() == std::vector<float>(8, 0.0f));
}

TEST_CASE("extreme logits give finite losses, and elements of weight 0 do not count even as NaN") {
  const Tensor x = tensor<float>({4}, {3e38f, -3e38f, 200.0f, -200.0f}).set_requires_grad(true);
  const Tensor loss = bce_with_logits(x, tensor<float>({4}, {1, 0, 1, 0}));
  CHECK(loss.item() == 0.0f);
  backward(loss);
  CHECK(x.grad().to_vector<float>() == std::vector<float>(4, 0.0f));
  CHECK(softmax_cross_entropy(tensor<float>({1, 3}, {1e38f, -1e38f, 0}), zeros({1}, Dtype::s32)).item() == 0.0f);
  CHECK(softmax_cross_entropy(tensor<float>({1, 2}, {1e38f, -1e38f}), tensor<std::int32_t>({1}, {1})).item() == 2e38f);
  const Tensor nan = tensor<float>({3}, {NAN, 1, 2}), weight = tensor<float>({3}, {0, 1, 1}), zero = zeros({3});
  CHECK(std::isfinite(bce_with_logits(nan, zero, weight).item()));
  CHECK(smooth_l1(nan, zero, weight).item() == 2.0f);
  CHECK(std::isnan(bce_with_logits(nan, zero).item()));
  CHECK(std::isnan(smooth_l1(nan, zero).item()));
}

TEST_CASE("sums are taken in double and do not depend on the number of threads") {
  Random random(2, RandomStream::test);
  const Tensor ones = full({1 << 25}, 1.0f);
  ones.data<float>()[0] = 0.5f;
  CHECK(sum(ones).item() == 33554432.0f);  // a float sum would stop at 2^24
  const Tensor x = reference::random_tensor({70001}, random, -9, 9), t = reference::random_tensor({70001}, random, 0, 1);
  CHECK(same_on_any_threads([&] { return sum(x); }));
  CHECK(same_on_any_threads([&] { return bce_with_logits(x, t); }));
  CHECK(same_on_any_threads([&] { return smooth_l1(x, t); }));
  const Tensor classes = reference::random_tensor({1003, 21}, random, -9, 9);
  const Tensor labels(Shape{1003}, Dtype::s32);
  for (int i = 0; i < 1003; ++i) labels.data<std::int32_t>()[i] = i % 21;
  CHECK(same_on_any_threads([&] { return softmax_cross_entropy(classes, labels); }));
}

TEST_CASE("losses are refused where shapes or labels do not fit") {
  const auto says = [](const char* text) { return Catch::Matchers::Contains(text); };
  CHECK_THROWS_WITH(softmax_cross_entropy(zeros({2, 3}), tensor<std::int32_t>({2}, {0, 3})), says("label 3 in row 1"));
  CHECK_THROWS_WITH(softmax_cross_entropy(zeros({2, 3}), tensor<std::int32_t>({2}, {-2, 0})), says("label -2 in row 0"));
  CHECK_THROWS_WITH(softmax_cross_entropy(zeros({2, 3}), zeros({3}, Dtype::s32)), says("[2, 3]"));
  CHECK_THROWS_WITH(bce_with_logits(zeros({2, 3}), zeros({3, 2})), says("[3, 2]"));
  CHECK_THROWS_WITH(smooth_l1(zeros({2}), zeros({2}), zeros({1})), says("[1]"));
  CHECK_THROWS_WITH(smooth_l1(zeros({2}), zeros({2}), {}, -1.0), says("-1"));
}
