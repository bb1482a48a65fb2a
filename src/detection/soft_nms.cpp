// Soft non-maximum suppression, label by label, on the host.
#include "shrike/detection/soft_nms.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "shrike/core/check.hpp"

namespace shrike {
namespace {

// One candidate: its place among all, and its score as far as it has fallen.
struct Entry {
  std::size_t place;
  double score;
};

bool better(const Entry& a, const Entry& b) { return a.score != b.score ? a.score > b.score : a.place < b.place; }

double factor(double overlap, const SoftNmsOptions& options) {
  if (options.kind == SoftNms::gaussian) return std::exp(-overlap * overlap / options.sigma);
  return overlap > options.iou ? 1 - overlap : 1;
}

// The entries of one label in the order they are taken, at most max_detections.
std::vector<Entry> suppress(const std::vector<Detection>& candidates, std::vector<Entry> left, const SoftNmsOptions& options) {
  std::vector<Entry> taken;
  while (!left.empty() && static_cast<std::int64_t>(taken.size()) < options.max_detections) {
    const auto best = std::min_element(left.begin(), left.end(), better);
    const Entry chosen = *best;
    if (!(chosen.score > static_cast<double>(options.score_threshold))) break;
    left.erase(best);
    taken.push_back(chosen);
    const Box& box = candidates[chosen.place].box;
    for (Entry& entry : left) {
      entry.score *= factor(static_cast<double>(iou(box, candidates[entry.place].box)), options);
    }
  }
  return taken;
}

}  // namespace

SoftNms parse_soft_nms(const std::string& name) {
  if (name == "off") return SoftNms::off;
  if (name == "linear") return SoftNms::linear;
  if (name == "gaussian") return SoftNms::gaussian;
  fail("soft-nms '", name, "': expected off, linear or gaussian");
}

std::vector<Detection> soft_nms(const std::vector<Detection>& candidates, const SoftNmsOptions& options) {
  SHRIKE_CHECK(options.kind != SoftNms::off, "soft_nms: the kind is off: expected linear or gaussian");
  SHRIKE_CHECK(options.sigma > 0, "soft_nms: sigma ", options.sigma, ": expected a positive number");
  std::map<std::int32_t, std::vector<Entry>> labels;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    SHRIKE_CHECK(std::isfinite(candidates[i].score), "soft_nms: candidate ", i, " has the score ", candidates[i].score);
    labels[candidates[i].label].push_back({i, static_cast<double>(candidates[i].score)});
  }
  std::vector<Entry> all;
  for (auto& [label, entries] : labels) {
    const std::vector<Entry> taken = suppress(candidates, std::move(entries), options);
    all.insert(all.end(), taken.begin(), taken.end());
  }
  std::sort(all.begin(), all.end(), better);
  const auto most = static_cast<std::size_t>(std::max<std::int64_t>(options.max_detections, 0));
  if (all.size() > most) all.resize(most);
  std::vector<Detection> result;
  for (const Entry& entry : all) {
    result.push_back({candidates[entry.place].box, candidates[entry.place].label, static_cast<float>(entry.score)});
  }
  return result;
}

}  // namespace shrike
