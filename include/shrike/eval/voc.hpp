// Average precision as the PASCAL VOC development kit defines it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shrike/core/box.hpp"

namespace shrike {

struct VocApOptions {
  double iou = 0.5;          // a detection needs this overlap
  bool eleven_point = true;  // VOC 2007's measure; false: the area under the curve, as since VOC 2010
  bool inclusive = true;     // or more, as the development kit's VOCevaldet.m; false: more, as py-faster-rcnn's voc_eval.py
};

// One class. The curve has one point per detection that counts, by descending score.
struct VocClassAp {
  std::int32_t label = 0;
  double ap = 0;                // NaN for a class without objects
  std::int64_t objects = 0;     // without difficult ones and crowds
  std::int64_t detections = 0;  // all of them
  std::vector<float> score;
  std::vector<double> precision, recall;
};

struct VocAp {
  VocApOptions options;
  double mean = 0;                  // over the classes that have objects; NaN if none has
  std::vector<VocClassAp> classes;  // labels 1 .. num_classes - 1
};

// truth[i] and found[i] belong to image i; num_classes counts the background. By descending score, ties in input order, a
// detection goes to the object of its image and class that it overlaps most (the first of equals): if the overlap is too small
// it is a false positive, if the object is difficult or a crowd it does not count, if the object was taken before it is a false
// positive. The 11-point measure averages the best precision at recalls of at least 0.1 i, in double precision (3 objects of 10
// do not reach 0.1 * 3). Throws Error naming image and value for labels out of range, scores that are not finite, and lists of
// different length.
VocAp voc_ap(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found, int num_classes,
             const VocApOptions& options = {});

// The means of voc_ap() when image i stands there weights[k][i] times, for each k. Throws Error as voc_ap() does.
std::vector<double> voc_means(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found,
                              int num_classes, const std::vector<std::vector<int>>& weights, const VocApOptions& options = {});

// Between which values 95 % of the means lie when as many images are drawn anew, with repetition: the percentile bootstrap
// (Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979). What it says of is the choice of the test images, not of
// training. The same draws for every detector, so that two can be compared. NaN without objects.
struct Interval {
  double low = 0, high = 0;
};
Interval voc_interval(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found,
                      int num_classes, const VocApOptions& options = {}, int resamples = 500);

// How much more one detector reaches than another on the same images.
struct PairedDifference {
  double mean = 0;       // on the images as they are
  double deviation = 0;  // standard deviation over the choice of images

  // Half the width of the 95 % confidence interval.
  double error() const { return 1.96 * deviation; }
};

// How much more `second` reaches than `first`. Images are drawn as for voc_interval(), both detectors on the same draws: what
// they have in common is not in the deviation. It is the bootstrap's standard interval (Efron, 1979) that is centred on the
// difference: percentiles need not contain it, as copies of images raise the 11-point measure. NaN without objects.
PairedDifference voc_difference(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& first,
                                const std::vector<std::vector<Detection>>& second, int num_classes,
                                const VocApOptions& options = {}, int resamples = 500);

// An aligned table, one line per class and one for the mean; names[i] is that of label i + 1. A class without objects shows
// "-" and is left out of the mean.
std::string to_table(const VocAp& result, const std::vector<std::string>& names);

// The curves as CSV (RFC 4180): class,score,precision,recall.
std::string curves_csv(const VocAp& result, const std::vector<std::string>& names);

// The curves as one SVG picture, precision over recall, a line per class that has objects.
std::string curves_svg(const VocAp& result, const std::vector<std::string>& names);

}  // namespace shrike
