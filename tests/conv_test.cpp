#include "shrike/ops/conv.hpp"
#include "isa.hpp"
#include "reference.hpp"
#include "shrike/core/last_kernel.hpp"
#include "threads.hpp"

using namespace shrike;
using reference::Doubles;

namespace {

struct Case {
  std::int64_t n, h, w, c, k, r, s;
  Conv2dOptions options;
};

// The definition, for elements of any arithmetic type: x [n, h, w, c], weight [k, r, s, c / groups], bias [k] or empty.
Doubles plain_conv2d(const Case& z, const Doubles& x, const Doubles& weight, const Doubles& bias) {
  const auto& o = z.options;
  const std::int64_t p = (z.h + 2 * o.padding - o.dilation * (z.r - 1) - 1) / o.stride + 1;
  const std::int64_t q = (z.w + 2 * o.padding - o.dilation * (z.s - 1) - 1) / o.stride + 1;
  const std::int64_t c_group = z.c / o.groups, k_group = z.k / o.groups;
  Doubles y;
  for (std::int64_t n = 0; n < z.n; ++n)
    for (std::int64_t i = 0; i < p; ++i)
      for (std::int64_t j = 0; j < q; ++j)
        for (std::int64_t k = 0; k < z.k; ++k) {
          double sum = bias.empty() ? 0 : bias[static_cast<std::size_t>(k)];
          for (std::int64_t r = 0; r < z.r; ++r)
            for (std::int64_t s = 0; s < z.s; ++s) {
              const std::int64_t h = i * o.stride - o.padding + r * o.dilation, w = j * o.stride - o.padding + s * o.dilation;
              if (h < 0 || h >= z.h || w < 0 || w >= z.w) continue;
              for (std::int64_t c = 0; c < c_group; ++c) {
                sum += x[static_cast<std::size_t>(((n * z.h + h) * z.w + w) * z.c + k / k_group * c_group + c)] *
                       weight[static_cast<std::size_t>(((k * z.r + r) * z.s + s) * c_group + c)];
              }
            }
          y.push_back(o.relu ? std::max(sum, 0.0) : sum);
        }
  return y;
}

// The gradients of x, weight and bias by the chain rule on the same loops.
std::vector<Doubles> plain_gradients(const Case& z, const Doubles& x, const Doubles& weight, const Doubles& y, Doubles dy) {
  const auto& o = z.options;
  const std::int64_t p = (z.h + 2 * o.padding - o.dilation * (z.r - 1) - 1) / o.stride + 1;
  const std::int64_t q = (z.w + 2 * o.padding - o.dilation * (z.s - 1) - 1) / o.stride + 1;
  const std::int64_t c_group = z.c / o.groups, k_group = z.k / o.groups;
  std::vector<Doubles> grads{Doubles(x.size()), Doubles(weight.size()), Doubles(static_cast<std::size_t>(z.k))};
  std::size_t at = 0;
  for (std::int64_t n = 0; n < z.n; ++n)
    for (std::int64_t i = 0; i < p; ++i)
      for (std::int64_t j = 0; j < q; ++j)
        for (std::int64_t k = 0; k < z.k; ++k, ++at) {
          const double g = o.relu && y[at] <= 0 ? 0 : dy[at];
          grads[2][static_cast<std::size_t>(k)] += g;
          for (std::int64_t r = 0; r < z.r; ++r)
            for (std::int64_t s = 0; s < z.s; ++s) {
              const std::int64_t h = i * o.stride - o.padding + r * o.dilation, w = j * o.stride - o.padding + s * o.dilation;
              if (h < 0 || h >= z.h || w < 0 || w >= z.w) continue;
              for (std::int64_t c = 0; c < c_group; ++c) {
                const auto of_x = static_cast<std::size_t>(((n * z.h + h) * z.w + w) * z.c + k / k_group * c_group + c);
                const auto of_weight = static_cast<std::size_t>(((k * z.r + r) * z.s + s) * c_group + c);
                grads[0][of_x] += g * weight[of_weight];
                grads[1][of_weight] += g * x[of_x];
              }
            }
        }
  return grads;
}

const std::vector<Case> cases = {
    {1, 7, 9, 3, 8, 3, 3, {.padding = 1}},
    {2, 8, 5, 16, 32, 3, 3, {.padding = 1, .relu = true}},
    {1, 13, 21, 32, 16, 3, 3, {.padding = 1}},
    {3, 5, 6, 5, 7, 3, 3, {.stride = 2, .padding = 1}},
    {1, 9, 8, 17, 17, 3, 3, {.padding = 2, .dilation = 2, .relu = true}},
    {2, 6, 7, 1, 1, 1, 1, {}},
    {1, 6, 7, 16, 9, 1, 1, {.relu = true}},
    {1, 7, 7, 48, 36, 1, 1, {.stride = 2}},
    {1, 15, 17, 3, 64, 7, 7, {.stride = 2, .padding = 3, .relu = true}},
    {2, 6, 6, 8, 12, 3, 3, {.padding = 1, .groups = 2}},
    {1, 6, 5, 6, 6, 3, 3, {.padding = 1, .groups = 6, .relu = true}},
    {1, 1, 1, 4, 5, 3, 3, {.padding = 1}},
    {1, 1, 1, 17, 3, 1, 1, {}},
    {2, 2, 3, 5, 6, 5, 5, {.padding = 2}},
    {1, 2, 2, 16, 16, 7, 3, {.padding = 3}},
    {1, 1, 40, 5, 3, 1, 5, {.stride = 3}},
    {1, 19, 35, 64, 64, 3, 3, {.padding = 1, .relu = true}},
    {1, 12, 10, 128, 48, 3, 3, {.padding = 1}},
    {2, 9, 7, 16, 16, 3, 3, {.relu = true}},
    {3, 1, 1, 48, 16, 3, 3, {.padding = 1, .relu = true}},
    {1, 2, 3, 32, 80, 3, 3, {.padding = 2}},
    {2, 33, 30, 16, 32, 3, 3, {.padding = 1, .relu = true}},
    {1, 10, 10, 64, 128, 3, 3, {.stride = 2, .padding = 1, .relu = true}},
    {1, 9, 12, 512, 15, 1, 1, {}},
    {2, 70, 9, 3, 16, 3, 3, {.padding = 1, .relu = true}},
    {1, 67, 21, 5, 48, 7, 5, {.stride = 2, .padding = 3, .relu = true}},
    {1, 6, 8, 1, 32, 4, 2, {.stride = 3}},
    {2, 4, 5, 2, 16, 3, 3, {.stride = 4, .padding = 3}},
};

// Winograd's transforms divide by 24, so they are not exact: the error is kept below a few parts in a million of the largest
// value.
bool winograd(const Case& z) {
  const auto& o = z.options;
  return z.r == 3 && z.s == 3 && o.stride == 1 && o.dilation == 1 && o.groups == 1 && z.c % 16 == 0 && z.k % 16 == 0;
}

bool agree(const Tensor& got, const Doubles& expected, bool exact) {
  const Doubles values = reference::doubles(got);
  if (exact || values.size() != expected.size()) return values == expected;
  double largest = 1, error = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    error = std::max(error, std::abs(values[i] - expected[i]));
  }
  return error <= 4e-6 * largest;
}

// Checks a convolution of small integers and its gradients, with the kernels of each instruction set.
void check_case(const Case& z, bool biased, std::uint64_t number) {
  INFO("case " << number << ": x " << message(Shape{z.n, z.h, z.w, z.c}) << " weight "
               << message(Shape{z.k, z.r, z.s, z.c / z.options.groups}) << " stride " << z.options.stride << " padding "
               << z.options.padding << " dilation " << z.options.dilation << " groups " << z.options.groups << " relu "
               << z.options.relu << " biased " << biased);
  Random random(1, RandomStream::test, number);
  const Tensor x = reference::random_integers({z.n, z.h, z.w, z.c}, random);
  const Tensor weight = reference::random_integers({z.k, z.r, z.s, z.c / z.options.groups}, random);
  const Tensor bias = biased ? reference::random_integers({z.k}, random) : Tensor();
  const Doubles expected =
      plain_conv2d(z, reference::doubles(x), reference::doubles(weight), biased ? reference::doubles(bias) : Doubles{});
  Tensor dy;
  std::vector<Doubles> grads;
  for_each_isa([&] {
    for (const Tensor& tensor : {x, weight}) tensor.set_requires_grad(true), tensor.clear_grad();
    if (biased) bias.set_requires_grad(true), bias.clear_grad();
    const Tensor y = conv2d(x, weight, bias, z.options);
    REQUIRE(agree(y, expected, !winograd(z)));
    if (!dy.defined() || winograd(z)) {  // whose zeros may be a little off: the gradient goes by the signs of its own y
      if (!dy.defined()) dy = reference::random_integers(y.shape(), random);
      grads =
          plain_gradients(z, reference::doubles(x), reference::doubles(weight), reference::doubles(y), reference::doubles(dy));
    }
    {
      const NoGrad inference;
      REQUIRE(agree(conv2d(x, weight, bias, z.options), expected, !winograd(z)));
    }
    backward({y}, {dy});
    CHECK(agree(x.grad(), grads[0], !winograd(z)));
    CHECK(agree(weight.grad(), grads[1], !winograd(z)));
    if (biased) CHECK(agree(bias.grad(), grads[2], !winograd(z)));
  });
}

}  // namespace

TEST_CASE("conv2d and its gradients on small integers are exact, or nearly so by Winograd, with each instruction set") {
  for (std::size_t number = 0; number < cases.size(); ++number) {
    for (const bool biased : {false, true}) check_case(cases[number], biased, number);
  }
}

TEST_CASE(
    "conv2d of every class of shapes: strides, paddings, dilations, groups, channels up to 130, maps of one pixel, batches") {
  Random random(9, RandomStream::test);
  const auto below = [&](std::uint32_t n) { return static_cast<std::int64_t>(random.below(n)); };
  for (std::uint64_t number = 100; number < 220; ++number) {
    Case z{};
    z.options.stride = 1 + below(3), z.options.padding = below(4), z.options.dilation = 1 + below(3) / 2 + below(6) / 5;
    z.r = 1 + below(4), z.s = 1 + below(4);
    z.options.groups = below(3) > 0 ? 1 : 1 + below(4);
    // Many channels on one side, or some on both: the plain reference is slow.
    const bool wide = below(2) > 0, in = below(2) > 0;
    z.c = z.options.groups * (1 + below(wide && in ? 130 : 20)), z.k = z.options.groups * (1 + below(wide && !in ? 130 : 20));
    if (z.options.groups > 1) z.c = std::min<std::int64_t>(z.c, 130), z.k = std::min<std::int64_t>(z.k, 130);
    z.c = z.c / z.options.groups * z.options.groups, z.k = z.k / z.options.groups * z.options.groups;
    z.n = 1 + below(3);
    const auto extent = [&](std::int64_t kernel) {  // at least what the kernel needs
      const std::int64_t least = z.options.dilation * (kernel - 1) + 1 - 2 * z.options.padding;
      return std::max<std::int64_t>(least, 1) + (below(4) > 0 ? below(13) : 0);
    };
    z.h = extent(z.r), z.w = extent(z.s);
    z.options.relu = below(2) > 0;
    check_case(z, below(2) > 0, number);
  }
}

TEST_CASE("conv2d keeps packed weights of inference until they may have changed") {
  Random random(10, RandomStream::test);
  for (const std::int64_t channels : {16, 40}) {  // by Winograd, by products
    const Tensor x = reference::random_integers({1, 9, 8, channels}, random);
    const Tensor weight = reference::random_integers({channels, 3, 3, channels}, random);
    const auto fresh = [&] { return conv2d(x, weight.clone(), {}, {.padding = 1}).to_vector<float>(); };
    const NoGrad inference;
    const auto first = conv2d(x, weight, {}, {.padding = 1}).to_vector<float>();
    REQUIRE(weight.companion().get() != nullptr);
    const auto packed = weight.companion().get();
    CHECK(conv2d(x, weight, {}, {.padding = 1}).to_vector<float>() == first);
    CHECK(weight.companion().get() == packed);
    weight.data<float>()[7] += 3.0f;
    CHECK(conv2d(x, weight, {}, {.padding = 1}).to_vector<float>() == fresh());
    CHECK(weight.companion().get() != packed);
    weight.copy_from(reference::random_integers(weight.shape(), random));
    CHECK(conv2d(x, weight, {}, {.padding = 1}).to_vector<float>() == fresh());
    CHECK(conv2d(x, weight.view({channels, 3, 3, channels}), {}, {.padding = 2}).to_vector<float>() ==
          conv2d(x, weight.clone(), {}, {.padding = 2}).to_vector<float>());
    for_each_isa([&] { CHECK(conv2d(x, weight, {}, {.padding = 1}).to_vector<float>() == fresh()); });
  }
}

TEST_CASE("conv2d gives the same bits with any number of threads, each instruction set") {
  Random random(11, RandomStream::test);
  for (const Case& z :
       {Case{2, 37, 41, 32, 48, 3, 3, {.padding = 1}}, Case{1, 45, 33, 24, 40, 3, 3, {.stride = 2, .padding = 1}},
        Case{1, 61, 50, 3, 32, 7, 7, {.stride = 2, .padding = 3}}, Case{1, 40, 40, 70, 90, 1, 1, {}}}) {
    const Tensor x = reference::random_tensor({z.n, z.h, z.w, z.c}, random);
    const Tensor weight = reference::random_tensor({z.k, z.r, z.s, z.c}, random);
    const Tensor bias = reference::random_tensor({z.k}, random);
    for_each_isa([&] {
      for (int wanted = 0; wanted < 4; ++wanted) {
        CHECK(same_on_any_threads([&] {
          for (const Tensor& tensor : {x, weight, bias}) tensor.clear_grad(), tensor.set_requires_grad(true);
          const Tensor y = conv2d(x, weight, bias, z.options);
          if (wanted == 0) return y;
          backward({y}, {y.clone()});
          return wanted == 1 ? x.grad() : wanted == 2 ? weight.grad() : bias.grad();
        }));
      }
    });
  }
}

TEST_CASE("SHRIKE_CPU_ISA is checked") {
  const Tensor x = full({1, 2, 2, 3}, 1.0f), weight = full({4, 1, 1, 3}, 1.0f);
  const PinnedIsa pinned("sse9");
  CHECK_THROWS_WITH(conv2d(x, weight, {}),
                    Catch::Matchers::Contains("SHRIKE_CPU_ISA is 'sse9'") && Catch::Matchers::Contains("avx512"));
}

TEST_CASE("conv2d's gradients are those of central differences") {
  Random random(2, RandomStream::test);
  for (const Case& z :
       {Case{2, 5, 4, 3, 4, 3, 3, {.stride = 2, .padding = 1}}, Case{1, 5, 6, 4, 6, 3, 2, {.padding = 1, .groups = 2}},
        Case{1, 4, 5, 2, 3, 3, 3, {.padding = 1, .relu = true}}}) {
    reference::check_gradients(
        [&](const Tensors& in) { return conv2d(in[0], in[1], in[2], z.options); },
        [&](const std::vector<Doubles>& in) { return plain_conv2d(z, in[0], in[1], in[2]); },
        {reference::random_tensor({z.n, z.h, z.w, z.c}, random),
         reference::random_tensor({z.k, z.r, z.s, z.c / z.options.groups}, random), reference::random_tensor({z.k}, random)},
        random);
  }
}

TEST_CASE("conv2d computes the wanted gradients alone") {
  Random random(3, RandomStream::test);
  const Tensor x = reference::random_integers({1, 6, 5, 4}, random);
  const Tensor weight = reference::random_integers({3, 3, 3, 4}, random);
  const Tensor bias = reference::random_integers({3}, random);
  std::vector<std::vector<float>> all;
  for (int wanted = 7; wanted > 0; --wanted) {
    const Tensors leaves{x, weight, bias};
    for (std::size_t i = 0; i < 3; ++i) {
      leaves[i].clear_grad();
      leaves[i].set_requires_grad(((wanted >> i) & 1) != 0);
    }
    const Tensor y = conv2d(x, weight, bias, {.padding = 1, .relu = true});
    backward({y}, {full(y.shape(), 1.0f)});
    for (std::size_t i = 0; i < 3; ++i) {
      REQUIRE(leaves[i].grad().defined() == (((wanted >> i) & 1) != 0));
      if (wanted == 7) all.push_back(leaves[i].grad().to_vector<float>());
      if (leaves[i].grad().defined()) CHECK(leaves[i].grad().to_vector<float>() == all[i]);
    }
  }
}

TEST_CASE("conv2d of an empty batch is empty, with gradients of zero") {
  const Tensor x({0, 4, 4, 3});
  const Tensor weight = full({2, 3, 3, 3}, 1.0f);
  const Tensor bias = full({2}, 1.0f);
  for (const Tensor& tensor : {x, weight, bias}) tensor.set_requires_grad(true);
  const Tensor y = conv2d(x, weight, bias, {.padding = 1});
  REQUIRE(y.shape() == Shape{0, 4, 4, 2});
  backward({y}, {Tensor(y.shape())});
  CHECK(x.grad().shape() == x.shape());
  CHECK(weight.grad().to_vector<float>() == std::vector<float>(54, 0.0f));
  CHECK(bias.grad().to_vector<float>() == std::vector<float>(2, 0.0f));
}

TEST_CASE("conv2d refuses what does not fit") {
  using Catch::Matchers::Contains;
  const Tensor x({1, 4, 4, 3});
  CHECK_THROWS_WITH(conv2d(x, Tensor({2, 3, 3, 4}), {}), Contains("[1, 4, 4, 3]") && Contains("[2, 3, 3, 4]"));
  CHECK_THROWS_WITH(conv2d(Tensor({4, 4, 3}), Tensor({2, 3, 3, 3}), {}), Contains("[N, H, W, C]"));
  CHECK_THROWS_WITH(conv2d(x, Tensor({2, 27}), {}), Contains("[K, R, S, C / groups]"));
  CHECK_THROWS_WITH(conv2d(x, Tensor({2, 5, 5, 3}), {}), Contains("smaller than the kernel"));
  CHECK_THROWS_WITH(conv2d(x, Tensor({2, 3, 3, 3}), Tensor({3})), Contains("bias") && Contains("[3]"));
  CHECK_THROWS_WITH(conv2d(x, Tensor({2, 3, 3, 3}), {}, {.stride = 0}), Contains("stride is 0"));
  CHECK_THROWS_WITH(conv2d(x, Tensor({2, 3, 3, 3}), {}, {.padding = -1}), Contains("padding is -1"));
  CHECK_THROWS_WITH(conv2d(x, Tensor({2, 3, 3, 1}), {}, {.groups = 3}), Contains("3 groups"));
  CHECK_THROWS_WITH(conv2d(x, Tensor({2, 3, 3, 3}, Dtype::s32), {}), Contains("s32"));
}
