// Observers: streams, growing histograms, the choices of a range, and what is not finite or constant.
#include <cmath>
#include <limits>

#include "catch.hpp"
#include "reference.hpp"
#include "shrike/ops/layout.hpp"
#include "shrike/ops/quantize.hpp"
#include "shrike/quant/observer.hpp"

using namespace shrike;
using namespace shrike::quant;
using reference::random_tensor;

namespace {

Observer observer(RangeChoice choice, Dtype dtype = Dtype::s8) {
  ObserverOptions options;
  options.choice = choice;
  return Observer("fc6", dtype, options);
}

double squared_error(const Tensor& x, float scale, Dtype dtype) {
  const auto y = reference::doubles(fake_quantize(x, full({1}, scale), dtype));
  const auto values = reference::doubles(x);
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) sum += (y[i] - values[i]) * (y[i] - values[i]);
  return sum;
}

Tensor normal(std::int64_t n, Random& random) {
  const Tensor x({n});
  for (std::int64_t i = 0; i < n; ++i) x.data<float>()[i] = random.normal();
  return x;
}

}  // namespace

TEST_CASE("min-max and moving average see every tensor") {
  Random random(1, RandomStream::test);
  Observer all = observer(RangeChoice::min_max), average = observer(RangeChoice::moving_average);
  double low = 0, high = 0;
  float least = 0, greatest = 0;
  for (int i = 0; i < 20; ++i) {
    const Tensor x = random_tensor({2, 3, 5}, random, -1.0f - i, 2.0f);
    all.update(x);
    average.update(x);
    const auto values = x.to_vector<float>();
    const float a = *std::min_element(values.begin(), values.end()), b = *std::max_element(values.begin(), values.end());
    low = i ? low + 0.01 * (a - low) : a;
    high = i ? high + 0.01 * (b - high) : b;
    least = std::min(least, a), greatest = std::max(greatest, b);
  }
  CHECK(all.scale() == scale_from_range(least, greatest, Dtype::s8));
  CHECK(average.scale() == Approx(std::max(-low, high) / 127).epsilon(1e-5));
  CHECK_FALSE(all.constant());
}

TEST_CASE("the histogram of a growing range loses nothing") {
  Random random(2, RandomStream::test);
  Observer o = observer(RangeChoice::percentile);
  o.update(zeros({7}));
  std::int64_t total = 7;
  std::vector<float> values(7, 0.0f);
  for (const float reach : {0.001f, 0.5f, 0.1f, 30.0f, 1.0f, 31.0f}) {
    const Tensor x = random_tensor({5000}, random, -reach, reach);
    o.update(x);
    total += x.numel();
    for (const float v : x.to_vector<float>()) values.push_back(std::abs(v));
  }
  CHECK(o.histogram().size() == 2048);
  std::int64_t below = 0;
  std::sort(values.begin(), values.end());
  std::size_t wrong = 0, at = 0;
  for (std::size_t bin = 0; bin < o.histogram().size(); ++bin) {
    below += o.histogram()[bin];
    const double edge = static_cast<double>(o.width()) * static_cast<double>(bin + 1);
    while (at < values.size() && values[at] < edge) ++at;
    // a value within rounding of an edge may stand on either side
    wrong += std::abs(below - static_cast<std::int64_t>(at)) > 2;
  }
  CHECK(below == total);
  CHECK(wrong == 0);
  CHECK(o.width() * 2048 > 31.0f * 0.99f);
  const float expected = values[static_cast<std::size_t>(0.9999 * static_cast<double>(total))];
  CHECK(std::abs(o.scale() * 127 - expected) <= 2 * o.width());
}

TEST_CASE("the zeros of a ReLU do not sway the entropy's choice: within 1 dB of the squared error's") {
  const double zeros = GENERATE(0.0, 0.1, 0.5, 0.9);
  Random random(11, RandomStream::test);
  const Tensor x({1 << 18});
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] = random.uniform() < zeros ? 0.0f : std::abs(random.normal());
  const auto decibels = [&](RangeChoice choice) {
    ObserverOptions options;
    options.choice = choice;
    Observer observer("x", Dtype::u8, options);
    observer.update(x);
    const float scale = observer.scale();
    double signal = 0, noise = 0;
    for (const float value : x.to_vector<float>()) {
      const double error = value - scale * std::min(std::nearbyint(value / scale), 255.0f);
      signal += static_cast<double>(value) * static_cast<double>(value);
      noise += error * error;
    }
    return 10 * std::log10(signal / noise);
  };
  const double entropy = decibels(RangeChoice::entropy), mse = decibels(RangeChoice::mse);
  INFO(zeros << " zeros: entropy " << entropy << " dB, mse " << mse << " dB");
  CHECK(entropy > mse - 1);
  CHECK(mse > 44);
}

TEST_CASE("entropy and squared error clip rare outliers; squared error is near its least") {
  Random random(3, RandomStream::test);
  Tensor x = normal(200000, random);
  x.data<float>()[17] = 60;
  for (const RangeChoice choice : {RangeChoice::percentile, RangeChoice::entropy, RangeChoice::mse}) {
    Observer o = observer(choice);
    o.update(x);
    INFO(static_cast<int>(choice) << " reaches " << o.scale() * 127);
    CHECK(o.scale() * 127 < 30);
    CHECK(o.scale() * 127 > 2.5);
  }
  x.data<float>()[17] = 6;
  Observer o = observer(RangeChoice::mse);
  o.update(x);
  double least = HUGE_VAL;
  for (float reach = 2; reach < 7; reach += 0.05f) least = std::min(least, squared_error(x, reach / 127, Dtype::s8));
  CHECK(squared_error(x, o.scale(), Dtype::s8) < 1.05 * least);
}

TEST_CASE("an observer goes on from its state as if it had seen everything itself") {
  Random random(4, RandomStream::test);
  for (const RangeChoice choice : {RangeChoice::min_max, RangeChoice::moving_average, RangeChoice::percentile}) {
    Observer whole = observer(choice), first = observer(choice), second = observer(choice);
    second.update(full({3}, 100));  // and forgets what it saw
    for (int i = 0; i < 6; ++i) {
      if (i == 0 || i == 3) second.set_state(first.state());
      const Tensor x = random_tensor({7, 5}, random, -1.0f - i, 0.5f + i);
      whole.update(x);
      (i < 3 ? first : second).update(x);
    }
    CHECK(second.scale() == whole.scale());
    CHECK(second.seen() == 6);
    CHECK(second.histogram() == whole.histogram());
    CHECK(second.width() == whole.width());
    CHECK_THROWS_WITH(second.set_state({zeros({4}), zeros({3}, Dtype::s64)}),
                      Catch::Matchers::Contains("fc6: what an observer saw has shapes [4] and [3]"));
  }
}

TEST_CASE("channels are observed one by one, weights by any choice") {
  Random random(5, RandomStream::test);
  Tensor w = normal(3 * 5000, random);
  for (int i = 0; i < 5000; ++i) w.data<float>()[5000 + i] *= 10;
  w.data<float>()[2 * 5000 + 7] = -40;  // an outlier in the last channel alone
  w = reshape(w, {3, 50, 100});
  for (const RangeChoice choice :
       {RangeChoice::min_max, RangeChoice::moving_average, RangeChoice::percentile, RangeChoice::entropy, RangeChoice::mse}) {
    ObserverOptions options;
    options.choice = choice;
    options.percentile = 0.999;
    ChannelObserver channels("w", 3, Dtype::s8, options);
    std::vector<float> expected;
    for (int k = 0; k < 3; ++k) {
      Observer alone("w", Dtype::s8, options);
      for (int times = 0; times < 2; ++times) alone.update(slice(w, 0, k, k + 1));
      expected.push_back(alone.scale());
    }
    channels.update(w);
    channels.update(w);
    CHECK(channels.scales().to_vector<float>() == expected);
    CHECK_THROWS_WITH(channels.update(zeros({2, 5})), "an observer of 3 channels sees a tensor of shape [2, 5]");
    const auto scales = weight_scales(w, "w", options).to_vector<float>();
    CHECK(scales == expected);
    if (choice <= RangeChoice::moving_average) CHECK(scales[2] == 40.0f / 127);
    if (choice == RangeChoice::percentile) CHECK(scales[2] < 10.0f / 127);
    w.data<float>()[5000] = INFINITY;
    CHECK_THROWS_WITH(weight_scales(w, "w", options), Catch::Matchers::Contains("values are not finite"));
    w.data<float>()[5000] = 1;
  }
}

TEST_CASE("values that are not finite, nothing seen, and constants are named") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const RangeChoice choice :
       {RangeChoice::min_max, RangeChoice::moving_average, RangeChoice::percentile, RangeChoice::entropy, RangeChoice::mse}) {
    Observer o = observer(choice, Dtype::u8);
    CHECK_THROWS_WITH(o.update(tensor<float>({4}, {1, nan, INFINITY, 2})), "fc6: 2 of 4 values are not finite");
    CHECK_THROWS_WITH(o.scale(), "fc6: no values were seen, so that it has no scale");
    o.update(Tensor({0, 5}));
    CHECK(o.seen() == 0);
    o.update(zeros({3}));
    o.update(zeros({5}));
    CHECK(o.constant());
    CHECK(o.scale() > 0);
    o.update(full({5}, 3));
    CHECK_FALSE(o.constant());
    CHECK(o.scale() <= 3.0f / 255);
  }
  CHECK_THROWS_AS(parse_range_choice("best"), Error);
  CHECK_THROWS_WITH(weight_scales(tensor<float>({2, 2}, {1, 2, nan, 4}), "fc6.weight"),
                    "fc6.weight: 1 of 4 values are not finite");
  CHECK(weight_scales(tensor<float>({2, 2}, {1, -2, 3, 0.5f}), "w").to_vector<float>() ==
        std::vector<float>{2.0f / 127, 3.0f / 127});
}
