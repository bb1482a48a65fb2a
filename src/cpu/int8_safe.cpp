#include "int8_safe.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace shrike::int8 {
namespace {

constexpr std::size_t columns = 16, halves = 2 * columns;

// Of each half of a step's weights of a column, the sum of those above 0, then of each minus the sum of those below.
using Load = std::array<std::uint16_t, 2 * halves>;

// A step, or one of two parts of it, as it will lie in the panel.
struct Entry {
  std::int32_t step;
  std::array<std::int8_t, 4 * columns> weights;
  Load load;
};

void weigh(Entry& entry) {
  for (std::size_t half = 0; half < halves; ++half) {
    const int a = entry.weights[2 * half], b = entry.weights[2 * half + 1];
    entry.load[half] = static_cast<std::uint16_t>(std::max(a, 0) + std::max(b, 0));
    entry.load[halves + half] = static_cast<std::uint16_t>(std::max(-a, 0) + std::max(-b, 0));
  }
}

bool fit(const Load& a, const Load& b) {
  std::uint16_t most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max<std::uint16_t>(most, static_cast<std::uint16_t>(a[i] + b[i]));
  return most <= safe;
}

// Takes half of what is too much out of the entry: at most 2 * 64 is left, and at most 2 * 64 taken.
Entry split(Entry& entry) {
  Entry taken{entry.step, {}, {}};
  for (std::size_t half = 0; half < halves; ++half) {
    if (std::max(entry.load[half], entry.load[halves + half]) <= safe) continue;
    for (const std::size_t i : {2 * half, 2 * half + 1}) {
      taken.weights[i] = static_cast<std::int8_t>(entry.weights[i] / 2);
      entry.weights[i] = static_cast<std::int8_t>(entry.weights[i] - taken.weights[i]);
    }
  }
  weigh(taken);
  weigh(entry);
  return taken;
}

class Order {
 public:
  explicit Order(std::int64_t width) : width_(width) {}

  void add(Entry entry) {
    weigh(entry);
    if (!fit(entry.load, Load{})) place(split(entry));
    place(entry);
  }

  std::int64_t steps() const { return static_cast<std::int64_t>(order_.size()); }

  Panel finish() {
    for (const Entry& entry : waiting_) put(entry), put({});
    const std::int64_t count = steps();
    Panel result{Scratch(weights_.size()), std::move(order_), count};
    std::memcpy(result.weights.data(), weights_.data(), weights_.size());
    return result;
  }

 private:
  static constexpr std::size_t window = 16;  // few enough to be near in a row

  void place(const Entry& entry) {
    const auto partner =
        std::find_if(waiting_.begin(), waiting_.end(), [&](const Entry& other) { return fit(entry.load, other.load); });
    if (partner != waiting_.end()) {
      put(*partner), put(entry);
      waiting_.erase(partner);
      return;
    }
    waiting_.push_back(entry);
    if (waiting_.size() <= window) return;
    put(waiting_.front()), put({});
    waiting_.erase(waiting_.begin());
  }

  void put(const Entry& entry) {
    order_.push_back(4 * entry.step);
    weights_.insert(weights_.end(), entry.weights.begin(), entry.weights.begin() + 4 * width_);
  }

  std::int64_t width_;
  std::vector<Entry> waiting_;
  std::vector<std::int32_t> order_;
  std::vector<std::int8_t> weights_;
};

}  // namespace

std::optional<Panel> safe_panel(std::int64_t steps, std::int64_t width, const std::int8_t* weights, std::int64_t most) {
  SHRIKE_CHECK(width <= static_cast<std::int64_t>(columns), "a panel of ", width, " columns: expected at most ", columns);
  Order order(width);
  for (std::int64_t step = 0; step < steps; ++step) {
    Entry entry{static_cast<std::int32_t>(step), {}, {}};
    std::copy_n(weights + step * width * 4, width * 4, entry.weights.begin());
    order.add(entry);
    if (order.steps() > most) return std::nullopt;
  }
  Panel panel = order.finish();
  if (panel.steps > most) return std::nullopt;
  return panel;
}

}  // namespace shrike::int8
