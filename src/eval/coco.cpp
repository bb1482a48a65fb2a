#include "shrike/eval/coco.hpp"

#include <algorithm>
#include <limits>

#include "inputs.hpp"

namespace shrike {
namespace {

using eval::ImageOfClass;

constexpr std::size_t thresholds = 10;
constexpr std::size_t recalls = 101;
constexpr std::size_t most = 100;  // detections of an image and class
constexpr double nothing = std::numeric_limits<double>::quiet_NaN();

struct Area {
  double low, high;
};
constexpr Area areas[] = {{0, 1e10}, {0, 32.0 * 32.0}, {32.0 * 32.0, 96.0 * 96.0}, {96.0 * 96.0, 1e10}};

// The steps of a linear space in double precision, its last point exact.
double iou_threshold(std::size_t i) {
  return i + 1 == thresholds ? 0.95 : 0.5 + static_cast<double>(i) * ((0.95 - 0.5) / (thresholds - 1));
}
double recall_point(std::size_t i) { return i + 1 == recalls ? 1.0 : static_cast<double>(i) * 0.01; }

// How one detection fared at each threshold.
struct Judged {
  float score = 0;
  std::size_t rank = 0;  // among its image's, by descending score
  bool right[thresholds] = {};
  bool counted[thresholds] = {};
};

// What an image of a class needs once for all area ranges and thresholds.
struct Prepared {
  const ImageOfClass* image;
  std::vector<const Detection*> detections;  // by descending score, at most 100
  std::vector<double> detection_areas, object_areas;
  std::vector<double> overlaps;  // [detection][object]
};

Prepared prepare(const ImageOfClass& image) {
  Prepared p{&image, image.detections, {}, {}, {}};
  std::stable_sort(p.detections.begin(), p.detections.end(),
                   [](const Detection* a, const Detection* b) { return a->score > b->score; });
  if (p.detections.size() > most) p.detections.resize(most);
  for (const Object* object : image.objects) p.object_areas.push_back(eval::overlap(object->box, object->box).object_area);
  for (const Detection* detection : p.detections) {
    p.detection_areas.push_back(eval::overlap(detection->box, detection->box).detection_area);
    for (const Object* object : image.objects) {
      const eval::Overlap overlap = eval::overlap(object->box, detection->box);
      p.overlaps.push_back(object->crowd ? overlap.of_detection() : overlap.iou());
    }
  }
  return p;
}

// Matches the detections of one image at one threshold; judged has one entry for each of them.
void judge(const Prepared& p, const Area& area, std::size_t t, const std::vector<std::size_t>& order,
           const std::vector<bool>& ignored, Judged* judged) {
  const std::size_t count = p.image->objects.size();
  std::vector<bool> taken(count);
  for (std::size_t d = 0; d < p.detections.size(); ++d) {
    double best = std::min(iou_threshold(t), 1 - 1e-10);
    std::size_t match = count;
    for (const std::size_t g : order) {  // those that count come first, and win over any that is ignored
      if (taken[g] && !p.image->objects[g]->crowd) continue;
      if (match < count && !ignored[match] && ignored[g]) break;
      const double overlap = p.overlaps[d * count + g];
      if (overlap < best) continue;
      best = overlap;
      match = g;
    }
    if (match < count) {
      taken[match] = true;
      judged[d].right[t] = judged[d].counted[t] = !ignored[match];
    } else {
      judged[d].counted[t] = p.detection_areas[d] >= area.low && p.detection_areas[d] <= area.high;
    }
  }
}

// One class and area range.
struct Accumulated {
  std::int64_t objects = 0;
  double precision[thresholds][recalls] = {};  // with 100 detections
  double recall[3][thresholds] = {};           // with 1, 10, 100
};

void accumulate(const std::vector<Judged>& judged, std::size_t limit, Accumulated& result, std::size_t m) {
  std::vector<double> recall, precision;
  for (std::size_t t = 0; t < thresholds; ++t) {
    recall.clear();
    precision.clear();
    double right = 0;
    double wrong = 0;
    for (const Judged& detection : judged) {
      if (detection.rank >= limit) continue;
      right += detection.right[t];
      wrong += detection.counted[t] && !detection.right[t];
      recall.push_back(right / static_cast<double>(result.objects));
      precision.push_back(right / (right + wrong + std::numeric_limits<double>::epsilon()));
    }
    result.recall[m][t] = recall.empty() ? 0 : recall.back();
    if (limit != most) continue;
    for (std::size_t i = precision.size(); i-- > 1;) precision[i - 1] = std::max(precision[i - 1], precision[i]);
    for (std::size_t r = 0; r < recalls; ++r) {
      const auto at = std::lower_bound(recall.begin(), recall.end(), recall_point(r)) - recall.begin();
      result.precision[t][r] = static_cast<std::size_t>(at) < precision.size() ? precision[static_cast<std::size_t>(at)] : 0;
    }
  }
}

Accumulated evaluate(const std::vector<Prepared>& images, const Area& area) {
  Accumulated result;
  std::vector<Judged> judged;
  for (const Prepared& p : images) {
    const std::size_t count = p.image->objects.size();
    std::vector<bool> ignored(count);
    std::vector<std::size_t> order;
    for (std::size_t g = 0; g < count; ++g) {
      const Object& object = *p.image->objects[g];
      ignored[g] = object.crowd || object.difficult || p.object_areas[g] < area.low || p.object_areas[g] > area.high;
      if (!ignored[g]) order.push_back(g);
    }
    result.objects += static_cast<std::int64_t>(order.size());
    for (std::size_t g = 0; g < count; ++g) {
      if (ignored[g]) order.push_back(g);
    }
    const std::size_t first = judged.size();
    judged.resize(first + p.detections.size());
    for (std::size_t d = 0; d < p.detections.size(); ++d) {
      judged[first + d].score = p.detections[d]->score;
      judged[first + d].rank = d;
    }
    for (std::size_t t = 0; t < thresholds; ++t) judge(p, area, t, order, ignored, judged.data() + first);
  }
  if (result.objects == 0) return result;
  std::stable_sort(judged.begin(), judged.end(), [](const Judged& a, const Judged& b) { return a.score > b.score; });
  constexpr std::size_t limits[] = {1, 10, most};
  for (std::size_t m = 0; m < 3; ++m) accumulate(judged, limits[m], result, m);
  return result;
}

double mean_precision(const Accumulated& a, std::size_t first, std::size_t last) {
  if (a.objects == 0) return nothing;
  double sum = 0;
  for (std::size_t t = first; t < last; ++t) {
    for (const double value : a.precision[t]) sum += value;
  }
  return sum / static_cast<double>((last - first) * recalls);
}

double mean_recall(const Accumulated& a, std::size_t m) {
  if (a.objects == 0) return nothing;
  double sum = 0;
  for (const double value : a.recall[m]) sum += value;
  return sum / thresholds;
}

constexpr double CocoScores::*all_scores[] = {&CocoScores::ap,       &CocoScores::ap50,      &CocoScores::ap75,
                                              &CocoScores::ap_small, &CocoScores::ap_medium, &CocoScores::ap_large,
                                              &CocoScores::ar1,      &CocoScores::ar10,      &CocoScores::ar100,
                                              &CocoScores::ar_small, &CocoScores::ar_medium, &CocoScores::ar_large};

CocoClassAp class_ap(std::int32_t label, const std::vector<ImageOfClass>& images) {
  CocoClassAp result;
  result.label = label;
  std::vector<Prepared> prepared;
  for (const ImageOfClass& image : images) {
    prepared.push_back(prepare(image));
    result.detections += static_cast<std::int64_t>(image.detections.size());
  }
  const Accumulated all = evaluate(prepared, areas[0]);
  const Accumulated small = evaluate(prepared, areas[1]);
  const Accumulated medium = evaluate(prepared, areas[2]);
  const Accumulated large = evaluate(prepared, areas[3]);
  result.objects = all.objects;
  std::copy(std::begin(all.precision[0]), std::end(all.precision[0]), result.precision50.begin());
  result.scores = {mean_precision(all, 0, thresholds),
                   mean_precision(all, 0, 1),
                   mean_precision(all, 5, 6),
                   mean_precision(small, 0, thresholds),
                   mean_precision(medium, 0, thresholds),
                   mean_precision(large, 0, thresholds),
                   mean_recall(all, 0),
                   mean_recall(all, 1),
                   mean_recall(all, 2),
                   mean_recall(small, 2),
                   mean_recall(medium, 2),
                   mean_recall(large, 2)};
  return result;
}

}  // namespace

CocoAp coco_ap(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found,
               int num_classes) {
  const auto classes = eval::by_class("coco_ap", truth, found, num_classes);
  CocoAp result;
  for (int label = 1; label < num_classes; ++label) {
    result.classes.push_back(class_ap(label, classes[static_cast<std::size_t>(label)]));
  }
  for (const auto score : all_scores) {
    double sum = 0;
    int counted = 0;
    for (const CocoClassAp& c : result.classes) {
      if (std::isnan(c.scores.*score)) continue;
      sum += c.scores.*score;
      ++counted;
    }
    result.mean.*score = counted > 0 ? sum / counted : nothing;
  }
  return result;
}

std::string to_table(const CocoAp& result, const std::vector<std::string>& names) {
  std::vector<std::vector<std::string>> rows;
  rows.push_back({"class", "objects", "detections", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs",
                  "ARm", "ARl"});
  const auto add = [&](const std::string& name, std::int64_t objects, std::int64_t detections, const CocoScores& scores) {
    rows.push_back({name, std::to_string(objects), std::to_string(detections)});
    for (const auto score : all_scores) rows.back().push_back(eval::format_score(scores.*score));
  };
  std::int64_t objects = 0;
  std::int64_t detections = 0;
  int counted = 0;
  for (const CocoClassAp& c : result.classes) {
    add(eval::class_name(names, c.label), c.objects, c.detections, c.scores);
    objects += c.objects;
    detections += c.detections;
    counted += c.objects > 0;
  }
  add("mean of " + std::to_string(counted) + (counted == 1 ? " class" : " classes"), objects, detections, result.mean);
  return eval::format_table(rows);
}

}  // namespace shrike
