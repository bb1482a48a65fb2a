// What the RPN and the box head are trained towards: which anchors and proposals are sampled, their classes and offsets
// (Ren et al., "Faster R-CNN"; Girshick, "Fast R-CNN"). Every output has a fixed size, and nothing is read back to the host.
//
// Sampling takes those of the smallest random keys; the key of candidate i is philox(seed, stream and index, i). The same
// (seed, index) gives the same sample on every device, every (seed, index) another one.
#pragma once

#include <cstdint>
#include <limits>

#include "shrike/core/random.hpp"
#include "shrike/core/tensor.hpp"
#include "shrike/detection/boxes.hpp"

namespace shrike {

struct RpnTargetOptions {
  float positive_iou = 0.7f;       // anchors with at least this IoU with some box are positive,
  bool best_is_positive = true;    // as are those, all of them when equal, that have the greatest IoU with some box
  float best_iou = 0;              // ... if it is at least this (0.3 in MMDetection)
  float negative_iou = 0.3f;       // below this IoU with every box: negative; between the two: left out
  int batch = 256;                 // anchors sampled from one image
  float positive_fraction = 0.5f;  // of the batch, at most
  // Anchors that reach further than this many pixels beyond the image are left out. 0 is py-faster-rcnn's rule; by default
  // all take part, as in torchvision.
  float straddle = std::numeric_limits<float>::infinity();
};

// Over the N anchors. The weights are 1 / (number sampled) for sampled anchors (box_weight: for positive ones) and 0 elsewhere,
// so weighted sums of losses are torchvision's means.
struct RpnTargets {
  Tensor cls_target;  // f32 [N], 1 for positive
  Tensor cls_weight;  // f32 [N]
  Tensor box_target;  // f32 [N, 4], offsets with anchor_weights; 0 where not sampled
  Tensor box_weight;  // f32 [N, 4]
  Tensor counts;      // s32 [2]: positive and negative anchors sampled
};

// anchors f32 [N, 4], boxes f32 [M, 4] in pixels; the caller leaves difficult and crowd objects out. Without boxes every anchor
// is negative. A box that overlaps no anchor makes none positive. Throws Error on shapes, dtypes, devices or options that do
// not fit.
RpnTargets rpn_targets(const Tensor& anchors, const Tensor& boxes, std::int64_t image_height, std::int64_t image_width,
                       const RpnTargetOptions& options, std::uint64_t seed, std::uint64_t index);

// Targets' weights are means over one image. These make them means over the images of a batch together: the weights of image i
// times (number sampled in i) / max(number sampled in all, least), so that their sum over the batch is 1 where least is not
// more. torchvision divides so (least 1); Detectron2 divides the RPN's losses by the number that was to be sampled.
void share_weights(const std::vector<RpnTargets*>& images, std::int64_t least = 1);

struct RoiTargetOptions {
  float positive_iou = 0.5f;        // foreground: at least this IoU with some box
  float negative_iou = 0.5f;        // background: IoU in [negative_low, negative_iou)
  float negative_low = 0.0f;        // 0.1 in py-faster-rcnn's VGG16 recipe
  int batch = 128;                  // rows of the result
  float positive_fraction = 0.25f;  // of the batch, at most
  BoxWeights weights = roi_weights;
};

// Sampled regions in order of candidate, B = options.batch rows. When fewer can be had, the last rows are padding: a region of
// zeros, label -1 (which the cross entropy ignores), weight 0.
struct RoiTargets {
  Tensor rois;        // f32 [B, 5]: image index, x1, y1, x2, y2
  Tensor labels;      // s32 [B]: 0 background, -1 padding
  Tensor box_target;  // f32 [B, 4 num_classes]: offsets at the label's four places for foreground, else 0
  Tensor box_weight;  // f32 [B, 4 num_classes]: 1 / (number sampled) at those places, else 0
  Tensor counts;      // s32 [2]: foreground and background regions sampled
};

// proposals f32 [P, 4], boxes f32 [M, 4], labels s32 [M] in 1 .. num_classes - 1; num_classes counts the background. The boxes
// join the proposals as candidates P .. P + M - 1. Proposals without area, such as the padding of proposals(), take no part.
RoiTargets roi_targets(const Tensor& proposals, const Tensor& boxes, const Tensor& labels, int num_classes,
                       const RoiTargetOptions& options, std::uint64_t seed, std::uint64_t index, int image_index = 0);

// Likewise; the labels' cross entropy is a mean over the batch, too.
void share_weights(const std::vector<RoiTargets*>& images);

namespace kernels {

// Labels for matching: 1 and up positive, 0 negative, -1 left out.
struct RpnMatchSizes {
  std::int64_t anchors, boxes;      // N, M
  float image_height, image_width;  // pixels
  float straddle, positive_iou, negative_iou, best_iou;
  bool best_is_positive;
};
// match [N]: the box of greatest IoU, the first of equals. best [M]: scratch, the greatest IoU of each box with any anchor.
SHRIKE_KERNEL(rpn_match, RpnMatchSizes sizes, const float* anchors, const float* boxes, std::int32_t* match,
              std::int32_t* labels, float* best);

struct RoiMatchSizes {
  std::int64_t candidates, boxes;  // P + M, M
  float positive_iou, negative_iou, negative_low;
};
SHRIKE_KERNEL(roi_match, RoiMatchSizes sizes, const float* candidates, const float* boxes, const std::int32_t* box_labels,
              std::int32_t* match, std::int32_t* labels);

struct SampleSizes {
  std::int64_t candidates, batch, max_positive;
  std::uint64_t key, counter_high;  // of philox
};
// At most max_positive of the positive and then as many of the negative as the batch still holds. selected [batch]: their
// numbers in ascending order, then -1. counts [2]: positive and negative.
SHRIKE_KERNEL(sample_balanced, SampleSizes sizes, const std::int32_t* labels, std::int32_t* selected, std::int32_t* counts);

// shares [images] = (counts[2 i] + counts[2 i + 1]) / max(sum of all counts, least).
SHRIKE_KERNEL(sample_shares, std::int64_t images, std::int64_t least, const std::int32_t* counts, float* shares);

struct RpnEncodeSizes {
  std::int64_t anchors, batch;
};
SHRIKE_KERNEL(rpn_encode, RpnEncodeSizes sizes, const float* anchors, const float* boxes, const std::int32_t* match,
              const std::int32_t* labels, const std::int32_t* selected, const std::int32_t* counts, float* cls_target,
              float* cls_weight, float* box_target, float* box_weight);

struct RoiEncodeSizes {
  std::int64_t batch, num_classes;
  BoxWeights weights;
  float image_index;
};
SHRIKE_KERNEL(roi_encode, RoiEncodeSizes sizes, const float* candidates, const float* boxes, const std::int32_t* match,
              const std::int32_t* candidate_labels, const std::int32_t* selected, const std::int32_t* counts, float* rois,
              std::int32_t* labels, float* box_target, float* box_weight);

}  // namespace kernels

}  // namespace shrike
