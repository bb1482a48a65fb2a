#include "shrike/data/split.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <unordered_map>

#include "shrike/core/check.hpp"
#include "shrike/core/random.hpp"

namespace shrike {
namespace {

// The places of the samples in an order that the seed decides, not the data set's.
std::vector<std::size_t> shuffled(const std::vector<Sample>& samples, Random random) {
  std::vector<std::size_t> order(samples.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return samples[a].id < samples[b].id; });
  random.shuffle(order);
  return order;
}

// Divides images in two, label by label. Part 1 gets `fraction` of them.
class Stratifier {
 public:
  Stratifier(const std::vector<Sample>& samples, double fraction, std::int64_t held_out)
      : shares_{1 - fraction, fraction},
        room_{static_cast<std::int64_t>(samples.size()) - held_out, held_out},
        part_(samples.size(), -1) {
    for (const Sample& sample : samples) {
      std::set<std::int32_t>& of = labels_.emplace_back();
      for (const Object& object : sample.objects) of.insert(object.label);
      for (const std::int32_t label : of) ++left_[label];
    }
    for (const auto& [label, images] : left_) {
      for (const std::size_t part : {0u, 1u}) wanted_[part][label] = shares_[part] * static_cast<double>(images);
    }
  }

  // The part of each image, 0 or 1.
  const std::vector<int>& divide(const std::vector<std::size_t>& order) {
    while (!left_.empty()) {
      const std::int32_t rarest =
          std::min_element(left_.begin(), left_.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
      for (const std::size_t image : order) {
        if (part_[image] < 0 && labels_[image].contains(rarest)) assign(image, wanted_[0][rarest], wanted_[1][rarest]);
      }
      left_.erase(rarest);
    }
    for (const std::size_t image : order) {  // without objects
      if (part_[image] < 0) assign(image, 0, 0);
    }
    return part_;
  }

 private:
  // To the part that wants more of its label; of equals to the one with more room for its share.
  void assign(std::size_t image, double wanted0, double wanted1) {
    const auto fullness = [&](std::size_t part) { return static_cast<double>(room_[part]) / shares_[part]; };
    std::size_t part = wanted0 != wanted1 ? wanted1 > wanted0 : fullness(1) > fullness(0);
    if (room_[part] == 0) part = 1 - part;
    part_[image] = static_cast<int>(part);
    --room_[part];
    for (const std::int32_t label : labels_[image]) {
      wanted_[part][label] -= 1;
      if (const auto found = left_.find(label); found != left_.end()) --found->second;
    }
  }

  std::array<double, 2> shares_;
  std::array<std::int64_t, 2> room_;
  std::vector<int> part_;                                 // of each image; -1: not yet
  std::vector<std::set<std::int32_t>> labels_;            // of each image
  std::map<std::int32_t, std::int64_t> left_;             // images of a label that have no part yet
  std::array<std::map<std::int32_t, double>, 2> wanted_;  // images of a label that a part still wants
};

}  // namespace

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

  const std::vector<std::size_t> order = shuffled(samples, Random(seed, RandomStream::split));
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

std::pair<Dataset, Dataset> hold_out(const Dataset& dataset, double fraction, std::uint64_t seed) {
  const auto n = static_cast<std::int64_t>(dataset.samples.size());
  SHRIKE_CHECK(fraction > 0 && fraction < 1, "a fraction of ", fraction, " of the images: expected one between 0 and 1");
  SHRIKE_CHECK(n >= 2, dataset.root, ": ", n, " image(s): expected at least 2 to hold some out");
  const auto held_out = std::clamp<std::int64_t>(std::llround(static_cast<double>(n) * fraction), 1, n - 1);
  Stratifier stratifier(dataset.samples, fraction, held_out);
  const std::vector<int>& parts = stratifier.divide(shuffled(dataset.samples, Random(seed, RandomStream::split, 1)));
  std::pair<Dataset, Dataset> result{{dataset.root, dataset.classes, {}}, {dataset.root, dataset.classes, {}}};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    (parts[i] == 1 ? result.second : result.first).samples.push_back(dataset.samples[i]);
  }
  return result;
}

std::int64_t count_shared(const Dataset& some, const Dataset& others) {
  std::unordered_map<std::string, const Sample*> by_id;
  for (const Sample& sample : others.samples) by_id.emplace(sample.id, &sample);
  const auto same = [](const Sample& a, const Sample& b) {
    return a.height == b.height && a.width == b.width &&
           std::equal(a.objects.begin(), a.objects.end(), b.objects.begin(), b.objects.end(),
                      [](const Object& x, const Object& y) { return x.box == y.box; });
  };
  return std::count_if(some.samples.begin(), some.samples.end(), [&](const Sample& sample) {
    const auto found = by_id.find(sample.id);
    return found != by_id.end() && same(sample, *found->second);
  });
}

}  // namespace shrike
