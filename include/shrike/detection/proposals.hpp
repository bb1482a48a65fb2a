// From the RPN's outputs to proposals, and from the box head's to detections (Ren et al., "Faster R-CNN").
#pragma once

#include <cstdint>
#include <vector>

#include "shrike/core/box.hpp"
#include "shrike/core/tensor.hpp"
#include "shrike/detection/boxes.hpp"
#include "shrike/detection/soft_nms.hpp"

namespace shrike {

struct ProposalOptions {
  std::int64_t pre_nms = 6000;  // the best so many go into suppression (12000 in training)
  std::int64_t post_nms = 300;  // so many come out (2000 in training): rows of the result
  double nms_threshold = 0.7;
  float min_size = 1e-3f;  // sides in pixels after clipping; 16 in py-faster-rcnn
};

// Sorted by score. Rows from `count` on are padding: boxes of zeros, scores of minus infinity.
struct Proposals {
  Tensor boxes;   // f32 [post_nms, 4]
  Tensor scores;  // f32 [post_nms], objectness as given (logits: a sigmoid would make the best ones equal)
  Tensor count;   // s32 [1]
};

// objectness f32 [N], deltas f32 [N, 4] and anchors f32 [N, 4] of one feature map of one image: decode, clip to the image, take
// the pre_nms best that are numbers, drop what is smaller than min_size, suppress, keep the post_nms best: torchvision's order
// and the paper's. Ties go to the lower anchor. Nothing is read back to the host and no gradient is recorded. Throws Error on
// shapes, dtypes, devices or options that do not fit.
Proposals proposals(const Tensor& objectness, const Tensor& deltas, const Tensor& anchors, std::int64_t image_height,
                    std::int64_t image_width, const ProposalOptions& options);

// The post_nms best of all levels of a feature pyramid; ties go to the earlier level.
Proposals merge_proposals(const std::vector<Proposals>& levels, std::int64_t post_nms);

struct DetectionOptions {
  float score_threshold = 0.05f;  // scores must be above it
  double nms_threshold = 0.3;     // within a class
  std::int64_t max_detections = 100;
  float min_size = 0.01f;  // sides in pixels after clipping
  BoxWeights weights = roi_weights;
  SoftNms soft_nms = SoftNms::off;  // in place of suppression; linear from nms_threshold on
  double soft_nms_sigma = 0.5;
};

// class_logits f32 [P, C] with the background first, deltas f32 [P, 4 C], proposals f32 [P, 4] of one image: softmax, decode
// each class' box, clip to the image, drop the background, low scores and small boxes (so also the padding of proposals()),
// suppress within each class, keep the best. By descending score; ties go to the earlier proposal, then the lower label. The
// boxes are in pixels of the image given.
std::vector<Detection> detections(const Tensor& class_logits, const Tensor& deltas, const Tensor& proposals,
                                  std::int64_t image_height, std::int64_t image_width, const DetectionOptions& options);

// The same in steps that stay on the device: nothing is read back to the host, and sizes depend on shapes and options alone
// (on the CPU, where the number of candidates that stay costs nothing, on that too).
struct DetectionCandidates {
  Tensor boxes;   // f32 [N, 4], N = P (C - 1): place p (C - 1) + c - 1 is class c of proposal p
  Tensor scores;  // f32 [N], minus infinity where a candidate drops out
  Tensor labels;  // s32 [N]
  Tensor count;   // s32 [1]: those that stay
};
DetectionCandidates detection_candidates(const Tensor& class_logits, const Tensor& deltas, const Tensor& proposals,
                                         std::int64_t image_height, std::int64_t image_width, const DetectionOptions& options);

// Those of an image and those that were found in its mirror image, whose boxes are mirrored back.
DetectionCandidates join_mirrored(const DetectionCandidates& image, const DetectionCandidates& mirror,
                                  std::int64_t image_width);

// Suppression, and the best of what is left: f32 [6 K], boxes [K, 4], scores [K], then as bits of s32 the candidates' places
// [K], or -1 from where on there are no more. K is at most max_detections, or N with soft suppression, which is left to the
// host: then these are the candidates, by descending score.
Tensor select_detections(const DetectionCandidates& candidates, const DetectionOptions& options);

// Brings that to the host; with soft suppression, does it.
std::vector<Detection> read_detections(const Tensor& found, std::int64_t classes, const DetectionOptions& options);

namespace kernels {

struct ProposalSizes {
  std::int64_t anchors;
  float image_height, image_width;
};
// boxes [N, 4]: decoded and clipped. scores [N]: the objectness, minus infinity where it is no number.
SHRIKE_KERNEL(proposal_candidates, ProposalSizes sizes, const float* objectness, const float* deltas, const float* anchors,
              float* boxes, float* scores);

// order[i] = -1 where the box order[i] has no area or a side below min_size, or its score is minus infinity.
SHRIKE_KERNEL(proposal_drop, std::int64_t n, float min_size, const float* boxes, const float* scores, std::int32_t* order);

// Rows index[0], index[1], ... of boxes and scores up to the first index below 0, then padding, `rows` in all; count [1] gets
// the number before the padding. index has `indices` entries, which may be fewer.
struct ProposalGatherSizes {
  std::int64_t rows, indices;
};
SHRIKE_KERNEL(proposal_gather, ProposalGatherSizes sizes, const std::int32_t* index, const float* boxes, const float* scores,
              float* out_boxes, float* out_scores, std::int32_t* count);

struct DetectionSizes {
  std::int64_t proposals, classes;  // P, C
  float image_height, image_width, score_threshold, min_size;
  BoxWeights weights;
};
// Candidate p (C - 1) + c - 1 is class c of proposal p: boxes [P (C - 1), 4], scores [P (C - 1)], minus infinity where it drops
// out, labels [P (C - 1)]. count [1]: those that stay.
SHRIKE_KERNEL(detection_candidates, DetectionSizes sizes, const float* class_logits, const float* deltas,
              const float* proposals, float* boxes, float* scores, std::int32_t* labels, std::int32_t* count);

}  // namespace kernels

}  // namespace shrike
