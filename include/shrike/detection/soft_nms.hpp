// Soft non-maximum suppression (Bodla, Singh, Chellappa and Davis, "Soft-NMS: Improving Object Detection With One Line of
// Code", ICCV 2017): a box that overlaps a better one loses score instead of dropping out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shrike/core/box.hpp"

namespace shrike {

// How the score of a box falls that overlaps a better one by `iou`: linear: times 1 - iou where iou > SoftNmsOptions::iou;
// gaussian: times exp(-iou^2 / sigma). off: suppression is not soft.
enum class SoftNms { off, linear, gaussian };

// "off", "linear" or "gaussian". Throws Error for another name.
SoftNms parse_soft_nms(const std::string& name);

struct SoftNmsOptions {
  SoftNms kind = SoftNms::gaussian;
  double iou = 0.3;                   // linear
  double sigma = 0.5;                 // gaussian; above 0
  float score_threshold = 0.05f;      // scores must be above it after they fell
  std::int64_t max_detections = 100;  // of all classes
};

// From the candidates of one image, within each label: the one of the highest score is taken, the others' scores fall by their
// overlap with it, and so on while a score is above the threshold. Returned are the best of all labels with the scores that
// they were taken at, by descending score; ties, in choosing too, go to the earlier candidate. Runs on the host, scores in
// double precision. Throws Error when a score is not finite or the options make no sense.
std::vector<Detection> soft_nms(const std::vector<Detection>& candidates, const SoftNmsOptions& options);

}  // namespace shrike
