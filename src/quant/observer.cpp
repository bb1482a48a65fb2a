#include "shrike/quant/observer.hpp"

#include <cmath>

#include "shrike/ops/quantize.hpp"

namespace shrike::quant {
namespace {

using Counts = std::vector<std::int64_t>;

// The finite extremes of each row. Throws Error when something is not finite.
std::vector<float> ranges(const Tensor& x, std::int64_t rows, const std::string& name) {
  const Tensor range({rows, 2}, Dtype::f32, x.device());
  const Tensor odd({1}, Dtype::s64, x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::min_max_rows(d, rows, x.numel() / rows, x.data<float>(), range.data<float>(), odd.data<std::int64_t>());
  });
  const auto count = odd.item<std::int64_t>();
  SHRIKE_CHECK(count == 0, name, ": ", count, " of ", x.numel(), " values are not finite");
  return range.to_vector<float>();
}

std::int64_t percentile_bin(const Counts& counts, double percentile) {
  std::int64_t total = 0, below = 0;
  for (const std::int64_t n : counts) total += n;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    below += counts[i];
    if (static_cast<double>(below) >= percentile * static_cast<double>(total)) return static_cast<std::int64_t>(i) + 1;
  }
  return static_cast<std::int64_t>(counts.size());
}

// Each bin's elements stand at its middle; in units of a bin's width.
double squared_error(const Counts& counts, std::int64_t reach, int levels) {
  const double step = static_cast<double>(reach) / levels;
  double sum = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double x = static_cast<double>(i) + 0.5;
    const double error = x - std::min<double>(std::nearbyint(x / step), levels) * step;
    sum += static_cast<double>(counts[i]) * error * error;
  }
  return sum;
}

// Of the first `reach` bins, what lies beyond added to the last, against the same in `levels` equal steps. The mass beyond is
// not in the second distribution: that is what makes clipping cost.
double divergence(const Counts& counts, std::int64_t reach, int levels) {
  const auto n = static_cast<std::size_t>(reach);
  std::vector<double> p(counts.begin(), counts.begin() + reach), q(n);
  double total = 0, kept = 0;
  for (const std::int64_t c : counts) total += static_cast<double>(c);
  for (const double c : p) kept += c;
  for (std::size_t first = 0, level = 0; level < static_cast<std::size_t>(levels); ++level) {
    const std::size_t last = n * (level + 1) / static_cast<std::size_t>(levels);
    double mass = 0, filled = 0;
    for (std::size_t i = first; i < last; ++i) mass += p[i], filled += p[i] > 0;
    for (std::size_t i = first; i < last; ++i) q[i] = p[i] > 0 ? mass / filled : 0;
    first = last;
  }
  p.back() += total - kept;
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (p[i] > 0) sum += p[i] / total * std::log(p[i] / total / std::max(q[i] / std::max(kept, 1.0), 1e-9));
  }
  return sum;
}

}  // namespace

RangeChoice parse_range_choice(const std::string& text) {
  if (text == "min_max") return RangeChoice::min_max;
  if (text == "moving_average") return RangeChoice::moving_average;
  if (text == "percentile") return RangeChoice::percentile;
  if (text == "entropy") return RangeChoice::entropy;
  if (text == "mse") return RangeChoice::mse;
  fail("observer '", text, "': expected min_max, moving_average, percentile, entropy or mse");
}

Observer::Observer(std::string name, Dtype dtype, const ObserverOptions& options)
    : name_(std::move(name)), dtype_(dtype), options_(options) {
  code_range(dtype);
  SHRIKE_CHECK(options.percentile > 0 && options.percentile <= 1, "percentile ", options.percentile, ": expected 0 to 1");
  SHRIKE_CHECK(options.momentum > 0 && options.momentum <= 1, "momentum ", options.momentum, ": expected 0 to 1");
  if (wants_histogram()) counts_.resize(bins);
}

void Observer::update(const Tensor& x) {
  if (x.numel() == 0) return;
  const std::vector<float> range = ranges(x, 1, name_);
  const float low = range[0], high = range[1];
  const auto share = static_cast<float>(options_.momentum);
  least_ = seen_ ? std::min(least_, low) : low;
  greatest_ = seen_ ? std::max(greatest_, high) : high;
  low_ = seen_ ? low_ + share * (low - low_) : low;
  high_ = seen_ ? high_ + share * (high - high_) : high;
  if (wants_histogram()) add_to_histogram(x, std::max(-low, high));
  ++seen_;
}

// The range grows by doubling: pairs of bins become one, so counts stay exact.
void Observer::add_to_histogram(const Tensor& x, float reach) {
  if (width_ == 0 && reach <= 0) {
    counts_[0] += x.numel();
    return;
  }
  // A little more than the reach, so that the greatest value is inside its bin and not at the end of it.
  if (width_ == 0) width_ = std::max(reach * 1.0001f, 0x1p-100f) / static_cast<float>(bins);
  while (reach >= width_ * static_cast<float>(bins)) {
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      counts_[i] = 2 * i < counts_.size() ? counts_[2 * i] + counts_[2 * i + 1] : 0;
    }
    width_ *= 2;
  }
  const Tensor counts = tensor<std::int64_t>({bins}, counts_, x.device());
  dispatch(x.device(),
           [&](auto d) { kernels::histogram_abs(d, x.numel(), bins, width_, x.data<float>(), counts.data<std::int64_t>()); });
  counts_ = counts.to_vector<std::int64_t>();
}

float Observer::chosen_reach() const {
  const int levels = code_range(dtype_).high;
  std::int64_t best = bins;
  if (options_.choice == RangeChoice::percentile) {
    best = percentile_bin(counts_, options_.percentile);
  } else {
    double least = HUGE_VAL;
    const std::int64_t first = options_.choice == RangeChoice::entropy ? levels : 8;
    for (std::int64_t reach = bins; reach >= first; reach -= 8) {
      const double cost =
          options_.choice == RangeChoice::mse ? squared_error(counts_, reach, levels) : divergence(counts_, reach, levels);
      if (cost < least) least = cost, best = reach;
    }
  }
  return std::min(static_cast<float>(best) * width_, std::max(-least_, greatest_));
}

float Observer::scale() const {
  SHRIKE_CHECK(seen_ > 0, name_, ": no values were seen, so that it has no scale");
  if (options_.choice == RangeChoice::min_max) return scale_from_range(least_, greatest_, dtype_);
  if (options_.choice == RangeChoice::moving_average) return scale_from_range(low_, high_, dtype_);
  const float reach = width_ == 0 ? 0 : chosen_reach();
  return scale_from_range(dtype_ == Dtype::u8 ? 0 : -reach, reach, dtype_);
}

Tensor weight_scales(const Tensor& weight, const std::string& name) {
  const std::int64_t channels = weight.size(0);
  SHRIKE_CHECK(weight.numel() > 0, name, ": a weight of shape ", weight.shape(), " has no scales");
  const std::vector<float> range = ranges(weight, channels, name);
  std::vector<float> scales;
  for (std::size_t k = 0; k < range.size(); k += 2) scales.push_back(scale_from_range(range[k], range[k + 1], Dtype::s8));
  return tensor({channels}, scales, weight.device());
}

}  // namespace shrike::quant
