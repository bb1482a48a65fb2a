#include "shrike/ops/roi.hpp"

#include "golden.hpp"
#include "reference.hpp"
#include "threads.hpp"

using namespace shrike;
using reference::Doubles;

namespace {

struct Case {
  Tensor x, rois, dy;
  RoiOptions options;
};

Case golden_case(const Golden& golden, const std::string& name) {
  Case c{golden.f32(name + ".x"), golden.f32(name + ".rois"), golden.f32(name + ".dy"), {}};
  c.options.height = c.dy.size(1);
  c.options.width = c.dy.size(2);
  c.options.spatial_scale = golden.values(name + ".scale")[0];
  return c;
}

// The definition of RoIAlign, sample by sample; the coordinates in float as torchvision has them, the rest in double.
Doubles plain_roi_align(const Doubles& x, const Shape& map, const std::vector<float>& rois, const RoiOptions& o) {
  const std::int64_t height = map[1], width = map[2], channels = map[3];
  const auto scale = static_cast<float>(o.spatial_scale);
  Doubles y;
  for (std::size_t k = 0; k + 5 <= rois.size(); k += 5) {
    const float offset = o.aligned ? 0.5f : 0.0f;
    const float start_x = rois[k + 1] * scale - offset, start_y = rois[k + 2] * scale - offset;
    float size_x = rois[k + 3] * scale - offset - start_x, size_y = rois[k + 4] * scale - offset - start_y;
    if (!o.aligned) size_x = std::max(size_x, 1.0f), size_y = std::max(size_y, 1.0f);
    const float bin_x = size_x / static_cast<float>(o.width), bin_y = size_y / static_cast<float>(o.height);
    const int grid_x = o.sampling_ratio > 0 ? static_cast<int>(o.sampling_ratio) : static_cast<int>(std::ceil(bin_x));
    const int grid_y = o.sampling_ratio > 0 ? static_cast<int>(o.sampling_ratio) : static_cast<int>(std::ceil(bin_y));
    const auto pixel = [&](std::int64_t row, std::int64_t column, std::int64_t c) {
      const auto image = static_cast<std::int64_t>(rois[k]);
      return x[static_cast<std::size_t>(((image * height + row) * width + column) * channels + c)];
    };
    for (std::int64_t bin = 0; bin < o.height * o.width; ++bin) {
      for (std::int64_t c = 0; c < channels; ++c) {
        double sum = 0;
        for (int i = 0; i < grid_y; ++i) {
          for (int j = 0; j < grid_x; ++j) {
            float at_y = start_y + static_cast<float>(bin / o.width) * bin_y +
                         (static_cast<float>(i) + 0.5f) * bin_y / static_cast<float>(grid_y);
            float at_x = start_x + static_cast<float>(bin % o.width) * bin_x +
                         (static_cast<float>(j) + 0.5f) * bin_x / static_cast<float>(grid_x);
            if (at_y < -1 || at_x < -1 || at_y > static_cast<float>(height) || at_x > static_cast<float>(width)) continue;
            at_y = std::clamp(at_y, 0.0f, static_cast<float>(height - 1));
            at_x = std::clamp(at_x, 0.0f, static_cast<float>(width - 1));
            const auto row = static_cast<std::int64_t>(at_y), column = static_cast<std::int64_t>(at_x);
            const auto below = std::min(row + 1, height - 1), right = std::min(column + 1, width - 1);
            const double fy = at_y - static_cast<double>(row), fx = at_x - static_cast<double>(column);
            sum += (1 - fy) * ((1 - fx) * pixel(row, column, c) + fx * pixel(row, right, c)) +
                   fy * ((1 - fx) * pixel(below, column, c) + fx * pixel(below, right, c));
          }
        }
        y.push_back(sum / std::max(grid_x * grid_y, 1));
      }
    }
  }
  return y;
}

Tensor random_rois(std::int64_t n, std::int64_t images, float extent, Random& random) {
  std::vector<float> rois;
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = random.uniform(-0.2f, 1.0f) * extent, y = random.uniform(-0.2f, 1.0f) * extent;
    rois.insert(rois.end(), {static_cast<float>(random.below(static_cast<std::uint32_t>(images))), x, y,
                             x + random.uniform(0, extent), y + random.uniform(0, extent)});
  }
  return tensor<float>({n, 5}, rois);
}

}  // namespace

TEST_CASE("roi_pool gives torchvision's values and gradients exactly") {
  const Golden golden("roi_golden.txt");
  for (int i = 0; i < golden.values<int>("cases")[0]; ++i) {
    const std::string name = std::to_string(i);
    INFO("case " << name);
    const Case c = golden_case(golden, name);
    c.x.set_requires_grad(true);
    const Tensor y = roi_pool(c.x, c.rois, c.options);
    CHECK(y.to_vector<float>() == golden.values<float>(name + ".pool.y"));
    backward({y}, {c.dy});
    CHECK(c.x.grad().to_vector<float>() == golden.values<float>(name + ".pool.dx"));  // multiples of 1/64
  }
}

TEST_CASE("roi_align gives torchvision's values and gradients") {
  const Golden golden("roi_golden.txt");
  for (int i = 0; i < golden.values<int>("cases")[0]; ++i) {
    for (const int ratio : {0, 2, 3}) {
      for (const bool aligned : {false, true}) {
        const std::string name = std::to_string(i);
        const std::string answer = name + ".align." + std::to_string(ratio) + (aligned ? ".1" : ".0");
        INFO("case " << answer);
        Case c = golden_case(golden, name);
        c.options.sampling_ratio = ratio;
        c.options.aligned = aligned;
        c.x.set_requires_grad(true);
        const Tensor y = roi_align(c.x, c.rois, c.options);
        CHECK(reference::difference(y, golden.values(answer + ".y")) < 2e-6);
        backward({y}, {c.dy});
        CHECK(reference::difference(c.x.grad(), golden.values(answer + ".dx")) < 1e-5);
      }
    }
  }
}

TEST_CASE("roi_align's gradient is that of its definition") {
  Random random(1, RandomStream::test);
  for (const std::int64_t channels : {1, 3}) {
    for (const std::int64_t ratio : {0, 2}) {
      RoiOptions options{3, 2, 0.25, ratio, ratio == 0};
      const Tensor x = reference::random_tensor({2, 5, 4, channels}, random);
      const Tensor rois = random_rois(6, 2, 24, random);
      reference::check_gradients(
          [&](const Tensors& in) { return roi_align(in[0], in[1], options); },
          [&](const std::vector<Doubles>& in) { return plain_roi_align(in[0], x.shape(), rois.to_vector<float>(), options); },
          {x, rois}, random, {1e-4, 1e-6, {true, false}});
    }
  }
}

TEST_CASE("roi_align fits its definition with many channels, on any number of threads") {
  Random random(2, RandomStream::test);
  for (const std::int64_t channels : {17, 130, 300}) {
    const RoiOptions options{7, 7, 1.0 / 16, 2, false};
    const Tensor x = reference::random_tensor({2, 14, 19, channels}, random);
    const Tensor rois = random_rois(9, 2, 250, random);
    const Tensor y = roi_align(x, rois, options);
    const Doubles expected = plain_roi_align(reference::doubles(x), x.shape(), rois.to_vector<float>(), options);
    CHECK(reference::difference(y, expected) < 1e-6);
    // The gradient is the transpose: <dx, x> = <dy, y>.
    const Tensor dy = reference::random_tensor(y.shape(), random);
    const auto gradient = [&] {
      const Tensor leaf = x.clone().set_requires_grad(true);
      backward({roi_align(leaf, rois, options)}, {dy});
      return leaf.grad();
    };
    double left = 0, right = 0;
    const Doubles dx = reference::doubles(gradient()), xs = reference::doubles(x), gs = reference::doubles(dy);
    for (std::size_t i = 0; i < xs.size(); ++i) left += dx[i] * xs[i];
    for (std::size_t i = 0; i < gs.size(); ++i) right += gs[i] * expected[i];
    CHECK(left == Approx(right).epsilon(1e-4));
    CHECK(same_on_any_threads([&] { return roi_align(x, rois, options); }));
    CHECK(same_on_any_threads(gradient));
  }
}

TEST_CASE("roi_pool's gradient goes to the greatest pixel of each bin, on any number of threads") {
  Random random(3, RandomStream::test);
  for (const std::int64_t channels : {1, 16, 37, 200}) {
    const RoiOptions options{7, 7, 1.0 / 16};
    const Tensor x = reference::random_tensor({3, 11, 14, channels}, random);
    const Tensor rois = random_rois(15, 3, 200, random);
    const Tensor dy = reference::random_integers({15, 7, 7, channels}, random);
    const auto gradient = [&] {
      const Tensor leaf = x.clone().set_requires_grad(true);
      backward({roi_pool(leaf, rois, options)}, {dy});
      return leaf.grad();
    };
    const Tensors out = call<RoiPool>(
        [&] {
          RoiPool op;
          op.spatial_scale = options.spatial_scale;
          return op;
        }(),
        {x, rois});
    const auto argmax = out[1].to_vector<std::int32_t>();
    Doubles expected(static_cast<std::size_t>(x.numel()));
    for (std::size_t i = 0; i < argmax.size(); ++i) {
      if (argmax[i] < 0) continue;
      const auto roi = static_cast<std::int64_t>(i) / (49 * channels);
      const auto image = static_cast<std::int64_t>(rois.data<float>()[roi * 5]);
      const auto at = (image * 11 * 14 + argmax[i]) * channels + static_cast<std::int64_t>(i) % channels;
      CHECK(x.data<float>()[at] == out[0].data<float>()[i]);
      expected[static_cast<std::size_t>(at)] += dy.data<float>()[i];
    }
    CHECK(reference::doubles(gradient()) == expected);
    CHECK(same_on_any_threads(gradient));
    CHECK(same_on_any_threads([&] { return roi_pool(x, rois, options); }));
  }
}

TEST_CASE("padding, no regions and regions that are not numbers pool zeros and cost nothing") {
  const Tensor x = full({2, 6, 5, 3}, 2.0f).set_requires_grad(true);
  const float huge = 3e38f;
  const Tensor rois = tensor<float>(
      {7, 5}, {-1,  0,   0, 4,    4,    2,    0,    0, 4,     4,     NAN,  0,    0, 4, 4, 0,         NAN,      NAN,
               NAN, NAN, 0, huge, huge, huge, huge, 0, -huge, -huge, huge, huge, 1, 0, 0, HUGE_VALF, HUGE_VALF});
  for (const std::int64_t ratio : {0, 2}) {
    for (const bool aligned : {false, true}) {
      const Tensor y = roi_align(x, rois, {2, 2, 1.0, ratio, aligned});
      for (std::int64_t i = 0; i < 5 * 12; ++i) CHECK(y.data<float>()[i] == 0.0f);
      x.clear_grad();
      backward(y.requires_grad() ? Tensors{y} : Tensors{}, {full(y.shape(), 1.0f)});
      for (const float g : x.grad().to_vector<float>()) CHECK(std::isfinite(g));
    }
  }
  const Tensor pooled = roi_pool(x, rois, {2, 2, 1.0});
  for (std::int64_t i = 0; i < 3 * 12; ++i) CHECK(pooled.data<float>()[i] == 0.0f);
  x.clear_grad();
  const Tensor none = roi_align(x, zeros({0, 5}));
  REQUIRE(none.shape() == Shape{0, 7, 7, 3});
  backward({none, roi_pool(x, zeros({0, 5}))}, {none.detach(), none.detach()});
  CHECK(x.grad().to_vector<float>() == std::vector<float>(180, 0.0f));
  CHECK(roi_align(zeros({0, 4, 4, 8}), zeros({1, 5})).to_vector<float>() == std::vector<float>(49 * 8, 0.0f));
  CHECK(roi_pool(zeros({1, 0, 4, 8}), zeros({1, 5})).to_vector<float>() == std::vector<float>(49 * 8, 0.0f));
  CHECK(roi_align(zeros({1, 4, 0, 8}), zeros({1, 5})).to_vector<float>() == std::vector<float>(49 * 8, 0.0f));
}

TEST_CASE("a NaN in a feature map shows in the bins that see it") {
  const Tensor x = full({1, 4, 4, 2}, 1.0f);
  x.data<float>()[2 * (4 * 1 + 1)] = NAN;  // row 1, column 1, channel 0
  const Tensor y = roi_pool(x, tensor<float>({1, 5}, {0, 0, 0, 3, 3}), {2, 2, 1.0});
  CHECK(std::isnan(y.data<float>()[0]));
  CHECK(y.data<float>()[1] == 1.0f);
  CHECK(y.data<float>()[2] == 1.0f);
}

TEST_CASE("regions of the wrong shape are refused") {
  CHECK_THROWS_WITH(roi_pool(zeros({1, 4, 4, 2}), zeros({3, 4})), Catch::Matchers::Contains("[3, 4]"));
  CHECK_THROWS_WITH(roi_align(zeros({4, 4, 2}), zeros({3, 5})), Catch::Matchers::Contains("[4, 4, 2]"));
  CHECK_THROWS_WITH(roi_align(zeros({1, 4, 4, 2}), zeros({3, 5}), {0, 7, 1.0}), Catch::Matchers::Contains("0 by 7"));
}
