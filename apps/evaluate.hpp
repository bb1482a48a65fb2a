// Runs a detector over a data set and measures it.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "apps/datasets.hpp"
#include "apps/signals.hpp"
#include "models/faster_rcnn.hpp"
#include "shrike/data/loader.hpp"
#include "shrike/eval/coco.hpp"
#include "shrike/eval/voc.hpp"
#include "shrike/io/json.hpp"

namespace shrike::apps {

struct Evaluation {
  double map = 0;                                      // VOC 2007's mean AP at IoU 0.5, 0 when there was nothing to find
  std::string table;                                   // for people
  std::vector<std::pair<std::string, double>> values;  // for logs
  std::string json;                                    // the values and those of each class
  std::string curves;                                  // precision and recall as CSV
  std::vector<std::vector<Detection>> found;           // in each image
  bool stopped = false;                                // by a signal: nothing else is filled in

  double value(const std::string& key) const {
    for (const auto& [name, value] : values) {
      if (name == key) return value;
    }
    fail("an evaluation has no ", key);
  }
};

// The objects found in every image of the data set, in pixels of the image as stored. Empty when a signal stopped it.
inline std::vector<std::vector<Detection>> detect_all(models::FasterRcnn& model, const Dataset& data, LoaderOptions options,
                                                      Device device,
                                                      const std::function<void(std::int64_t, std::int64_t)>& progress) {
  std::vector<std::vector<Detection>> found(data.samples.size());
  nn::train(model, false);
  options.device = device;
  Loader loader(data, options);
  loader.start(0, 0);
  std::int64_t done = 0;
  while (const auto batch = loader.next()) {
    if (stop_signal != 0) return {};
    std::vector<ImageSize> sizes;
    for (const auto& item : batch->items) sizes.push_back({item.height, item.width, item.scale_x});
    auto detections = model.detect(batch->images, sizes);
    for (std::size_t i = 0; i < batch->items.size(); ++i) {
      const auto& item = batch->items[i];
      for (Detection& detection : detections[i]) {
        Box& box = detection.box;
        box = {box.x1 / item.scale_x, box.y1 / item.scale_y, box.x2 / item.scale_x, box.y2 / item.scale_y};
      }
      found[static_cast<std::size_t>(item.index)] = std::move(detections[i]);
      progress(++done, static_cast<std::int64_t>(data.samples.size()));
    }
  }
  return found;
}

namespace detail {

// "0.873", or "-" where there is nothing to find.
inline std::string score_text(double score) {
  if (std::isnan(score)) return "-";
  char text[16];
  std::snprintf(text, sizeof text, "%.3f", score);
  return text;
}

inline std::string table(const VocAp& eleven_point, const VocAp& area, const CocoAp& coco,
                         const std::vector<std::string>& names) {
  std::size_t width = 5;
  for (const std::string& name : names) width = std::max(width, name.size());
  std::string text;
  const auto row = [&](const std::string& name, const std::string& objects, const std::vector<double>& scores) {
    char cell[64];
    text += "  " + name + std::string(width - name.size(), ' ');
    std::snprintf(cell, sizeof cell, "  %7s", objects.c_str());
    text += cell;
    for (const double score : scores) {
      std::snprintf(cell, sizeof cell, "  %8s", score_text(score).c_str());
      text += cell;
    }
    text += '\n';
  };
  text += "  " + std::string("class") + std::string(width - 5, ' ') +
          "  objects  VOC07 AP   area AP   COCO AP      AP50      AP75\n";
  std::int64_t objects = 0;
  for (std::size_t i = 0; i < eleven_point.classes.size(); ++i) {
    const auto& scores = coco.classes[i].scores;
    objects += eleven_point.classes[i].objects;
    row(names.at(i), std::to_string(eleven_point.classes[i].objects),
        {eleven_point.classes[i].ap, area.classes[i].ap, scores.ap, scores.ap50, scores.ap75});
  }
  row("mean", std::to_string(objects), {eleven_point.mean, area.mean, coco.mean.ap, coco.mean.ap50, coco.mean.ap75});
  return text;
}

}  // namespace detail

// What is annotated in each image.
inline std::vector<std::vector<Object>> objects_of(const Dataset& data) {
  std::vector<std::vector<Object>> truth;
  for (const Sample& sample : data.samples) truth.push_back(sample.objects);
  return truth;
}

// VOC's measure by 11 points, or the area under the curve, as the settings have it.
inline VocApOptions voc_options(const TrainConfig& config, bool eleven_point = true) {
  return {0.5, eleven_point, config.match_inclusive};
}

// Images are loaded and detections counted as the settings say.
inline Evaluation evaluate_detector(models::FasterRcnn& model, const Dataset& data, const TrainConfig& config, Device device,
                                    const std::function<void(std::int64_t, std::int64_t)>& progress) {
  Evaluation result;
  result.found = detect_all(model, data, loader_options(config, false), device, progress);
  const auto& found = result.found;
  if (found.size() != data.samples.size()) {
    result.stopped = true;
    return result;
  }
  const std::vector<std::vector<Object>> truth = objects_of(data);
  const int classes = static_cast<int>(data.classes.size()) + 1;
  const VocAp eleven_point = voc_ap(truth, found, classes, voc_options(config));
  const VocAp area = voc_ap(truth, found, classes, voc_options(config, false));
  const CocoAp coco = coco_ap(truth, found, classes);
  result.map = std::isnan(eleven_point.mean) ? 0.0 : eleven_point.mean;
  result.table = detail::table(eleven_point, area, coco, data.classes);
  const Interval interval = voc_interval(truth, found, classes, voc_options(config));
  result.table += message("  VOC07 mean over other choices of images, 95 %: ", detail::score_text(interval.low), " to ",
                          detail::score_text(interval.high), "\n");
  result.curves = curves_csv(eleven_point, data.classes);
  result.values = {{"map_voc07", eleven_point.mean}, {"map_area", area.mean},       {"coco_ap", coco.mean.ap},
                   {"coco_ap50", coco.mean.ap50},    {"coco_ap75", coco.mean.ap75}, {"map_voc07_low", interval.low},
                   {"map_voc07_high", interval.high}};
  JsonWriter json;
  json.begin_object();
  for (const auto& [name, value] : result.values) json.field(name, value);
  json.key("classes").begin_object();
  for (std::size_t i = 0; i < data.classes.size(); ++i) {
    json.key(data.classes[i])
        .begin_object()
        .field("objects", eleven_point.classes[i].objects)
        .field("ap_voc07", eleven_point.classes[i].ap);
    json.field("ap_area", area.classes[i].ap).field("coco_ap", coco.classes[i].scores.ap).end_object();
  }
  result.json = json.end_object().end_object().str();
  return result;
}

}  // namespace shrike::apps
