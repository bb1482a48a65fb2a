#include "shrike/quant/observer.hpp"

#include <cmath>

#include "shrike/ops/layout.hpp"
#include "shrike/ops/quantize.hpp"

namespace shrike::quant {
namespace {

using Counts = std::vector<std::int64_t>;

// The finite extremes of each row, [rows, 2], and the number of values that are not finite, [1].
struct Ranges {
  Tensor range, odd;
};

Ranges ranges(const Tensor& x, std::int64_t rows) {
  const Ranges result{Tensor({rows, 2}, Dtype::f32, x.device()), Tensor({1}, Dtype::s64, x.device())};
  dispatch(x.device(), [&](auto d) {
    kernels::min_max_rows(d, rows, x.numel() / rows, x.data<float>(), result.range.data<float>(),
                          result.odd.data<std::int64_t>());
  });
  return result;
}

void check_finite(const Tensor& odd, std::int64_t all, const std::string& name) {
  const auto count = odd.item<std::int64_t>();
  SHRIKE_CHECK(count == 0, name, ": ", count, " of ", all, " values are not finite");
}

// The scales of the first two columns of each row of `range`.
void write_scales(const Tensor& range, Dtype dtype, std::int64_t column, const Tensor& scales) {
  const CodeRange codes = code_range(dtype);
  dispatch(range.device(), [&](auto d) {
    kernels::range_scales(d, range.size(0), range.size(1), codes.low, codes.high, range.data<float>() + column,
                          scales.data<float>());
  });
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

// The zeros of a ReLU are exact at any scale. As a bin of their own they would weigh on the first level, and so on the choice.
Counts without_zeros(Counts counts) {
  if (counts.size() > 1) counts[0] = std::min(counts[0], counts[1]);
  return counts;
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
  const Ranges now = ranges(x, 1);
  const Tensor state({1, 4}, Dtype::f32, x.device()), odd({1}, Dtype::s64, x.device());
  const bool start = seen_ == 0;
  const Tensor before = start ? Tensor() : state_.to(x.device()), odd_before = start ? Tensor() : odd_.to(x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::track_range(d, 1, static_cast<float>(options_.momentum), start, now.range.data<float>(),
                         now.odd.data<std::int64_t>(), start ? nullptr : before.data<float>(),
                         start ? nullptr : odd_before.data<std::int64_t>(), state.data<float>(), odd.data<std::int64_t>());
  });
  if (x.device() == Device::cpu || wants_histogram()) check_finite(now.odd, x.numel(), name_);
  state_ = state;
  odd_ = odd;
  ++seen_;
  values_ += x.numel();
  if (!wants_histogram()) return;
  const std::vector<float> range = now.range.to_vector<float>();
  add_to_histogram(x, std::max(-range[0], range[1]));
}

void Observer::seed(float scale) {
  SHRIKE_CHECK(!wants_histogram(), name_, ": a histogram cannot begin with a scale");
  const CodeRange codes = code_range(dtype_);
  const float low = static_cast<float>(codes.low) * scale, high = static_cast<float>(codes.high) * scale;
  seen_ = values_ = 1;
  state_ = tensor<float>({1, 4}, {low, high, low, high});
  odd_ = tensor<std::int64_t>({1}, {0});
}

std::vector<float> Observer::extremes() const {
  SHRIKE_CHECK(seen_ > 0, name_, ": no values were seen, so that it has no scale");
  check_finite(odd_, values_, name_);
  return state_.to_vector<float>();
}

Observer::State Observer::state() const {
  std::vector<float> range = seen_ > 0 ? state_.to_vector<float>() : std::vector<float>(4);
  range.push_back(width_);
  Counts counts = {seen_, values_, seen_ > 0 ? odd_.item<std::int64_t>() : 0};
  counts.insert(counts.end(), counts_.begin(), counts_.end());
  return {tensor({5}, range), tensor({static_cast<std::int64_t>(counts.size())}, counts)};
}

void Observer::set_state(const State& state) {
  const Shape counts_shape{static_cast<std::int64_t>(3 + counts_.size())};
  SHRIKE_CHECK(state.range.shape() == Shape{5} && state.counts.shape() == counts_shape, name_,
               ": what an observer saw has shapes ", state.range.shape(), " and ", state.counts.shape(), ": expected [5] and ",
               counts_shape);
  const auto range = state.range.to_vector<float>();
  const auto counts = state.counts.to_vector<std::int64_t>();
  for (const std::int64_t count : counts) SHRIKE_CHECK(count >= 0, name_, ": what an observer saw holds the count ", count);
  seen_ = counts[0];
  values_ = counts[1];
  state_ = tensor<float>({1, 4}, {range.begin(), range.begin() + 4});
  odd_ = tensor<std::int64_t>({1}, {counts[2]});
  width_ = range[4];
  counts_.assign(counts.begin() + 3, counts.end());
}

bool Observer::constant() const {
  if (seen_ == 0) return false;
  const std::vector<float> seen = extremes();
  return seen[0] == seen[1];
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
    const Counts counts = options_.choice == RangeChoice::entropy ? without_zeros(counts_) : counts_;
    const std::int64_t first = options_.choice == RangeChoice::entropy ? levels : 8;
    for (std::int64_t reach = bins; reach >= first; reach -= 8) {
      const double cost =
          options_.choice == RangeChoice::mse ? squared_error(counts, reach, levels) : divergence(counts, reach, levels);
      if (cost < least) least = cost, best = reach;
    }
  }
  const std::vector<float> seen = extremes();
  return std::min(static_cast<float>(best) * width_, std::max(-seen[0], seen[1]));
}

float Observer::scale() const {
  extremes();
  const Tensor scale({1}, Dtype::f32, state_.device());
  write_scale(scale);
  return scale.item();
}

void Observer::write_scale(const Tensor& scale) const {
  SHRIKE_CHECK(seen_ > 0, name_, ": no values were seen, so that it has no scale");
  if (wants_histogram()) {
    const float reach = width_ == 0 ? 0 : chosen_reach();
    scale.copy_from(full({1}, scale_from_range(dtype_ == Dtype::u8 ? 0 : -reach, reach, dtype_), scale.device()));
    return;
  }
  const Tensor made({1}, Dtype::f32, state_.device());
  write_scales(state_, dtype_, options_.choice == RangeChoice::min_max ? 0 : 2, made);
  scale.copy_from(made);
}

ChannelObserver::ChannelObserver(const std::string& name, std::int64_t channels, Dtype dtype, const ObserverOptions& options) {
  for (std::int64_t k = 0; k < channels; ++k) observers_.emplace_back(message(name, '[', k, ']'), dtype, options);
}

void ChannelObserver::update(const Tensor& x) {
  const auto channels = static_cast<std::int64_t>(observers_.size());
  SHRIKE_CHECK(x.rank() > 0 && x.size(0) == channels, "an observer of ", channels, " channels sees a tensor of shape ",
               x.shape());
  for (std::int64_t k = 0; k < channels; ++k) observers_[static_cast<std::size_t>(k)].update(slice(x, 0, k, k + 1));
}

Tensor ChannelObserver::scales() const {
  std::vector<float> scales;
  for (const Observer& observer : observers_) scales.push_back(observer.scale());
  return tensor({static_cast<std::int64_t>(scales.size())}, scales);
}

Tensor weight_scales(const Tensor& weight, const std::string& name, const ObserverOptions& options) {
  SHRIKE_CHECK(weight.numel() > 0, name, ": a weight of shape ", weight.shape(), " has no scales");
  if (options.choice >= RangeChoice::percentile) {
    ChannelObserver channels(name, weight.size(0), Dtype::s8, options);
    channels.update(weight.to(Device::cpu).detach());
    return channels.scales().to(weight.device());
  }
  const Ranges now = ranges(weight, weight.size(0));
  check_finite(now.odd, weight.numel(), name);
  const Tensor scales({weight.size(0)}, Dtype::f32, weight.device());
  write_scales(now.range, Dtype::s8, 0, scales);
  return scales;
}

void write_weight_scales(const Tensor& weight, const Tensor& scales) {
  write_scales(ranges(weight, weight.size(0)).range, Dtype::s8, 0, scales);
}

}  // namespace shrike::quant
