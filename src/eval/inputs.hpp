// What voc_ap and coco_ap have in common: checking and sorting what they are given, and writing tables.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "shrike/core/box.hpp"
#include "shrike/core/check.hpp"

namespace shrike::eval {

// The objects and detections of one class in one image, in input order.
struct ImageOfClass {
  std::size_t image = 0;
  std::vector<const Object*> objects;
  std::vector<const Detection*> detections;
};

// By label, then the images in order that have any. Throws Error as voc_ap() promises.
std::vector<std::vector<ImageOfClass>> by_class(const char* who, const std::vector<std::vector<Object>>& truth,
                                                const std::vector<std::vector<Detection>>& found, int num_classes);

struct Overlap {
  double intersection, object_area, detection_area;

  double iou() const {
    const double either = object_area + detection_area - intersection;
    return either > 0 ? intersection / either : 0;
  }
  double of_detection() const { return detection_area > 0 ? intersection / detection_area : 0; }
};
Overlap overlap(const Box& object, const Box& detection);

// Columns padded to their widest cell: the first to the left, the others to the right, two blanks between.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

// Four decimals, "-" for NaN.
std::string format_score(double value);

// names[label - 1]; throws Error when there is none.
const std::string& class_name(const std::vector<std::string>& names, std::int32_t label);

}  // namespace shrike::eval
