#include "shrike/eval/voc.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "inputs.hpp"
#include "shrike/core/random.hpp"

namespace shrike {
namespace {

using eval::ImageOfClass;

bool set_aside(const Object& object) { return object.difficult || object.crowd; }

enum class Verdict : unsigned char { right, wrong, not_counted };

// One image of one class; its detections come by descending score, so the first to claim an object has it.
struct Referee {
  const ImageOfClass* image;
  std::vector<bool> taken;

  Verdict judge(const Detection& detection, const VocApOptions& options) {
    double best = -1;
    std::size_t match = 0;
    for (std::size_t i = 0; i < image->objects.size(); ++i) {
      const double value = eval::overlap(image->objects[i]->box, detection.box).iou();
      if (value > best) {
        best = value;
        match = i;
      }
    }
    if (image->objects.empty() || best < options.iou || (best == options.iou && !options.inclusive)) return Verdict::wrong;
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

// The detections of a class that count, by descending score, and its objects, each with its image.
struct Judged {
  struct Entry {
    std::size_t image;
    float score;
    bool right;
  };
  std::vector<Entry> entries;
  std::vector<std::pair<std::size_t, std::int64_t>> objects;
  std::int64_t detections = 0;  // all of them
};

Judged judge(const std::vector<ImageOfClass>& images, const VocApOptions& options) {
  Judged result;
  std::vector<Referee> referees;
  std::vector<std::pair<const Detection*, std::size_t>> order;
  for (const ImageOfClass& image : images) {
    const auto objects =
        std::count_if(image.objects.begin(), image.objects.end(), [](const Object* o) { return !set_aside(*o); });
    result.objects.emplace_back(image.image, objects);
    for (const Detection* detection : image.detections) order.emplace_back(detection, referees.size());
    referees.push_back({&image, std::vector<bool>(image.objects.size())});
  }
  result.detections = static_cast<std::int64_t>(order.size());
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first->score > b.first->score; });
  for (const auto& [detection, referee] : order) {
    const Verdict verdict = referees[referee].judge(*detection, options);
    if (verdict == Verdict::not_counted) continue;
    result.entries.push_back({referees[referee].image->image, detection->score, verdict == Verdict::right});
  }
  return result;
}

// The measure when every image stands there weights[image] times; once each without weights.
VocClassAp class_ap(std::int32_t label, const Judged& judged, const VocApOptions& options, const std::vector<int>* weights) {
  const auto times = [&](std::size_t image) { return std::int64_t{weights != nullptr ? (*weights)[image] : 1}; };
  VocClassAp result;
  result.label = label;
  result.detections = judged.detections;
  for (const auto& [image, objects] : judged.objects) result.objects += times(image) * objects;
  std::int64_t right = 0;
  std::int64_t counted = 0;
  for (const Judged::Entry& entry : judged.entries) {
    const std::int64_t n = times(entry.image);
    if (n == 0) continue;
    counted += n;
    right += entry.right ? n : 0;
    result.score.push_back(entry.score);
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

// Over the classes that have objects.
double mean_ap(const std::vector<VocClassAp>& classes) {
  double sum = 0;
  int counted = 0;
  for (const VocClassAp& one : classes) {
    if (one.objects == 0) continue;
    sum += one.ap;
    ++counted;
  }
  return counted > 0 ? sum / counted : std::numeric_limits<double>::quiet_NaN();
}

std::vector<Judged> judge_all(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found,
                              int num_classes, const VocApOptions& options) {
  SHRIKE_CHECK(options.iou > 0 && options.iou <= 1, "voc_ap: iou ", options.iou, ", expected one in (0, 1]");
  const auto classes = eval::by_class("voc_ap", truth, found, num_classes);
  std::vector<Judged> result;
  for (int label = 1; label < num_classes; ++label) result.push_back(judge(classes[static_cast<std::size_t>(label)], options));
  return result;
}

// How often each of so many images is drawn, for each resample.
std::vector<std::vector<int>> draws(std::size_t images, int resamples) {
  Random random(1, RandomStream::bootstrap);
  std::vector<std::vector<int>> weights;
  for (int i = 0; i < resamples; ++i) {
    std::vector<int>& one = weights.emplace_back(images);
    for (std::size_t k = 0; k < images; ++k) ++one[random.below(static_cast<std::uint32_t>(images))];
  }
  return weights;
}

// Where 95 % of the values that are numbers lie.
Interval middle(std::vector<double> values) {
  std::erase_if(values, [](double value) { return std::isnan(value); });
  if (values.empty()) return {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
  };
  return {at(0.025), at(0.975)};
}

}  // namespace

VocAp voc_ap(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found, int num_classes,
             const VocApOptions& options) {
  VocAp result;
  result.options = options;
  for (const Judged& judged : judge_all(truth, found, num_classes, options)) {
    result.classes.push_back(class_ap(static_cast<std::int32_t>(result.classes.size() + 1), judged, options, nullptr));
  }
  result.mean = mean_ap(result.classes);
  return result;
}

std::vector<double> voc_means(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found,
                              int num_classes, const std::vector<std::vector<int>>& weights, const VocApOptions& options) {
  const std::vector<Judged> judged = judge_all(truth, found, num_classes, options);
  std::vector<double> means;
  for (const std::vector<int>& one : weights) {
    SHRIKE_CHECK(one.size() == truth.size(), "voc_means: ", one.size(), " weights for ", truth.size(), " images");
    std::vector<VocClassAp> classes;
    for (const Judged& of : judged) classes.push_back(class_ap(0, of, options, &one));
    means.push_back(mean_ap(classes));
  }
  return means;
}

Interval voc_interval(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found,
                      int num_classes, const VocApOptions& options, int resamples) {
  return middle(voc_means(truth, found, num_classes, draws(truth.size(), resamples), options));
}

PairedDifference voc_difference(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& first,
                                const std::vector<std::vector<Detection>>& second, int num_classes, const VocApOptions& options,
                                int resamples) {
  std::vector<std::vector<int>> weights = draws(truth.size(), resamples);
  weights.emplace_back(truth.size(), 1);  // the images as they are
  const std::vector<double> a = voc_means(truth, first, num_classes, weights, options);
  std::vector<double> b = voc_means(truth, second, num_classes, weights, options);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] -= a[i];
  PairedDifference result;
  result.mean = b.back();
  b.pop_back();
  std::erase_if(b, [](double value) { return std::isnan(value); });
  double sum = 0, squares = 0;
  for (const double value : b) sum += value;
  const auto n = static_cast<double>(b.size());
  for (const double value : b) squares += (value - sum / n) * (value - sum / n);
  result.deviation = b.size() > 1 ? std::sqrt(squares / (n - 1)) : std::numeric_limits<double>::quiet_NaN();
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
