#include "shrike/eval/voc.hpp"

#include <algorithm>
#include <limits>

#include "inputs.hpp"

namespace shrike {
namespace {

using eval::ImageOfClass;

bool set_aside(const Object& object) { return object.difficult || object.crowd; }

enum class Verdict : unsigned char { right, wrong, not_counted };

// One image of one class; its detections come by descending score, so the first to claim an object has it.
struct Referee {
  const ImageOfClass* image;
  std::vector<bool> taken;

  Verdict judge(const Detection& detection, double threshold) {
    double best = -1;
    std::size_t match = 0;
    for (std::size_t i = 0; i < image->objects.size(); ++i) {
      const double value = eval::overlap(image->objects[i]->box, detection.box).iou();
      if (value > best) {
        best = value;
        match = i;
      }
    }
    if (image->objects.empty() || best < threshold) return Verdict::wrong;
    if (set_aside(*image->objects[match])) return Verdict::not_counted;
    if (taken[match]) return Verdict::wrong;
    taken[match] = true;
    return Verdict::right;
  }
};

double eleven_point_ap(const VocClassAp& curve) {
  double sum = 0;
  for (int i = 0; i <= 10; ++i) {
    double best = 0;
    for (std::size_t k = 0; k < curve.recall.size(); ++k) {
      if (curve.recall[k] >= i * 0.1) best = std::max(best, curve.precision[k]);
    }
    sum += best;
  }
  return sum / 11;
}

// The area under the precision made monotonic from the right.
double area_ap(const VocClassAp& curve) {
  double area = 0;
  double best = 0;
  for (std::size_t k = curve.recall.size(); k-- > 0;) {
    best = std::max(best, curve.precision[k]);
    area += (curve.recall[k] - (k > 0 ? curve.recall[k - 1] : 0)) * best;
  }
  return area;
}

VocClassAp class_ap(std::int32_t label, const std::vector<ImageOfClass>& images, const VocApOptions& options) {
  VocClassAp result;
  result.label = label;
  std::vector<Referee> referees;
  std::vector<std::pair<const Detection*, std::size_t>> order;
  for (const ImageOfClass& image : images) {
    for (const Object* object : image.objects) result.objects += !set_aside(*object);
    for (const Detection* detection : image.detections) order.emplace_back(detection, referees.size());
    referees.push_back({&image, std::vector<bool>(image.objects.size())});
  }
  result.detections = static_cast<std::int64_t>(order.size());
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first->score > b.first->score; });
  std::int64_t right = 0;
  std::int64_t counted = 0;
  for (const auto& [detection, image] : order) {
    const Verdict verdict = referees[image].judge(*detection, options.iou);
    if (verdict == Verdict::not_counted) continue;
    ++counted;
    right += verdict == Verdict::right;
    result.score.push_back(detection->score);
    result.precision.push_back(static_cast<double>(right) / static_cast<double>(counted));
    result.recall.push_back(result.objects > 0 ? static_cast<double>(right) / static_cast<double>(result.objects) : 0);
  }
  if (result.objects == 0) {
    result.ap = std::numeric_limits<double>::quiet_NaN();
  } else {
    result.ap = options.eleven_point ? eleven_point_ap(result) : area_ap(result);
  }
  return result;
}

}  // namespace

VocAp voc_ap(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found, int num_classes,
             const VocApOptions& options) {
  SHRIKE_CHECK(options.iou > 0 && options.iou <= 1, "voc_ap: iou ", options.iou, ", expected one in (0, 1]");
  const auto classes = eval::by_class("voc_ap", truth, found, num_classes);
  VocAp result;
  result.options = options;
  double sum = 0;
  int counted = 0;
  for (int label = 1; label < num_classes; ++label) {
    result.classes.push_back(class_ap(label, classes[static_cast<std::size_t>(label)], options));
    const VocClassAp& last = result.classes.back();
    if (last.objects == 0) continue;
    sum += last.ap;
    ++counted;
  }
  result.mean = counted > 0 ? sum / counted : std::numeric_limits<double>::quiet_NaN();
  return result;
}

std::string to_table(const VocAp& result, const std::vector<std::string>& names) {
  std::vector<std::vector<std::string>> rows;
  const std::string measure = result.options.eleven_point ? "AP (11 points)" : "AP (area)";
  rows.push_back({"class", "objects", "detections", "recall", measure});
  std::int64_t objects = 0;
  std::int64_t detections = 0;
  int counted = 0;
  for (const VocClassAp& c : result.classes) {
    const double recall = c.objects == 0 ? c.ap : c.recall.empty() ? 0 : c.recall.back();
    rows.push_back({eval::class_name(names, c.label), std::to_string(c.objects), std::to_string(c.detections),
                    eval::format_score(recall), eval::format_score(c.ap)});
    objects += c.objects;
    detections += c.detections;
    counted += c.objects > 0;
  }
  const std::string title = "mean of " + std::to_string(counted) + (counted == 1 ? " class" : " classes");
  rows.push_back({title, std::to_string(objects), std::to_string(detections), "", eval::format_score(result.mean)});
  return eval::format_table(rows);
}

}  // namespace shrike
