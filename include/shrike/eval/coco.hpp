// Average precision and recall as the COCO evaluation defines them (cocodataset.org, "Detection evaluation").
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "shrike/core/box.hpp"

namespace shrike {

// NaN where there is nothing to find.
struct CocoScores {
  double ap = 0;                                     // mean over IoU 0.50, 0.55 .. 0.95
  double ap50 = 0, ap75 = 0;                         // at one IoU
  double ap_small = 0, ap_medium = 0, ap_large = 0;  // objects of area up to 32^2, up to 96^2, above
  double ar1 = 0, ar10 = 0, ar100 = 0;               // mean of the greatest recall, with so many detections an image and class
  double ar_small = 0, ar_medium = 0, ar_large = 0;
};

struct CocoClassAp {
  std::int32_t label = 0;
  CocoScores scores;
  std::int64_t objects = 0;               // without crowds and difficult ones
  std::int64_t detections = 0;            // all of them
  std::array<double, 101> precision50{};  // at IoU 0.5 and recalls 0, 0.01 .. 1; zeros for a class without objects
};

struct CocoAp {
  CocoScores mean;                   // each number over the classes that have such objects
  std::vector<CocoClassAp> classes;  // labels 1 .. num_classes - 1
};

// truth[i] and found[i] belong to image i; num_classes counts the background. Areas are those of the boxes (COCO's annotations
// give the area of the mask instead). A crowd may be matched by any number of detections, whose overlap with it is taken over
// their own area; those do not count. A difficult object is ignored in the same way, but has the usual overlap and takes one
// detection. At most 100 detections of an image and class take part. Throws Error as voc_ap() does.
CocoAp coco_ap(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found,
               int num_classes);

// An aligned table, one line per class and one for the mean, "-" for NaN; names[i] is that of label i + 1.
std::string to_table(const CocoAp& result, const std::vector<std::string>& names);

}  // namespace shrike
