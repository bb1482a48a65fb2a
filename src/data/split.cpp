#include "shrike/data/split.hpp"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "shrike/core/check.hpp"
#include "shrike/core/random.hpp"

namespace shrike {

std::vector<int> parse_ratio(const std::string& text) {
  std::vector<int> ratio;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (;;) {
    int value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    const bool valid = error == std::errc{} && value >= 1 && value <= 1'000'000 && (next == end || *next == ':');
    SHRIKE_CHECK(valid, "split ratio '", text, "': expected whole numbers above 0 like 9:1");
    ratio.push_back(value);
    if (next == end) break;
    at = next + 1;
  }
  SHRIKE_CHECK(ratio.size() >= 2, "split ratio '", text, "': expected two or more parts like 9:1");
  return ratio;
}

std::vector<Dataset> split_dataset(const Dataset& dataset, const std::vector<int>& ratio, std::uint64_t seed) {
  const std::vector<Sample>& samples = dataset.samples;
  const auto n = static_cast<std::int64_t>(samples.size());
  std::int64_t whole = 0;
  for (const int share : ratio) {
    SHRIKE_CHECK(share > 0, "a split ratio has the share ", share, ": expected whole numbers above 0");
    whole += share;
  }

  std::vector<std::size_t> order(samples.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return samples[a].id < samples[b].id; });
  Random(seed, RandomStream::split).shuffle(order);

  std::vector<Dataset> parts;
  std::int64_t shares = 0, begin = 0;
  for (const int share : ratio) {
    shares += share;
    const std::int64_t end = (2 * n * shares + whole) / (2 * whole);
    SHRIKE_CHECK(end > begin, dataset.root, ": part ", parts.size() + 1, " of the split would be empty: ", n, " images in ",
                 whole, " shares");
    std::vector<std::size_t> chosen(order.begin() + begin, order.begin() + end);
    std::sort(chosen.begin(), chosen.end());
    Dataset& part = parts.emplace_back(Dataset{dataset.root, dataset.classes, {}});
    for (const std::size_t i : chosen) part.samples.push_back(samples[i]);
    begin = end;
  }
  return parts;
}

}  // namespace shrike
