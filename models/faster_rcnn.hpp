// Faster R-CNN (Ren, He, Girshick and Sun, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
// NeurIPS 2015): features, a network that proposes regions in them, and a head that names each region and refines its box.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "models/heads.hpp"
#include "shrike/core/box.hpp"
#include "shrike/core/replay.hpp"
#include "shrike/data/image.hpp"
#include "shrike/detection/anchors.hpp"
#include "shrike/detection/proposals.hpp"
#include "shrike/detection/rois.hpp"
#include "shrike/detection/targets.hpp"
#include "shrike/ops/layout.hpp"
#include "shrike/ops/loss.hpp"
#include "shrike/ops/roi.hpp"

namespace shrike::models {

struct FasterRcnnOptions {
  int num_classes = 21;  // with background
  // Pixels from a cell of the feature map to the next. 0: the quotient of image and map, rounded down, of images that are not
  // padded, as in checkpoints of version 0.1.
  int stride = 16;
  int size_divisor = 16;  // images are padded with zeros to a multiple of it
  AnchorOptions anchors;
  RpnTargetOptions rpn_targets;
  RoiTargetOptions roi_targets;
  bool divide_by_rpn_batch = false;  // the RPN's losses: by the anchors that were to be sampled, not by those that were
  ProposalOptions train_proposals;   // min_size as least_side() has it
  ProposalOptions test_proposals;
  DetectionOptions detections;
  RoiOptions roi;             // output size, sampling, alignment; the scale follows from the stride
  bool roi_align = true;      // false: RoIPool, as in the paper
  float rpn_beta = 1.0f / 9;  // where the smooth L1 losses turn from quadratic to linear
  float box_beta = 1.0f / 9;
  bool test_flip = false;  // detect() looks at the mirror image too, and suppresses what it finds in both together

  std::vector<double> inference_settings() const;
};

// All of the options that detect() depends on, as numbers.
inline std::vector<double> FasterRcnnOptions::inference_settings() const {
  std::vector<double> all;
  const auto add = [&](auto... values) { (all.push_back(static_cast<double>(values)), ...); };
  const ProposalOptions& p = test_proposals;
  const DetectionOptions& d = detections;
  add(num_classes, stride, size_divisor, p.pre_nms, p.post_nms, p.nms_threshold, p.min_size);
  add(d.score_threshold, d.nms_threshold, d.max_detections, d.min_size, d.weights.x, d.weights.y, d.weights.w, d.weights.h);
  add(static_cast<int>(d.soft_nms), d.soft_nms_sigma, test_flip);
  add(roi_align, roi.height, roi.width, roi.spatial_scale, roi.sampling_ratio, roi.aligned);
  add(anchors.offset, anchors.rounding, anchors.sizes.size(), anchors.ratios.size());
  for (const float size : anchors.sizes) add(size);
  for (const float ratio : anchors.ratios) add(ratio);
  return all;
}

// The least side of a proposal in an image, pixels: min_size counts pixels of the image as stored. Below one it is there for
// boxes without extent alone and stays as it is.
inline float least_side(const ProposalOptions& options, const ImageSize& size) {
  return options.min_size < 1 ? options.min_size : options.min_size * size.scale;
}

// One image's annotation, in pixels of the image as the network sees it.
struct Target {
  Tensor boxes;   // f32 [M, 4]
  Tensor labels;  // s32 [M], from 1
};

// The four losses of one step, each a scalar, and their sum.
struct Losses {
  Tensor rpn_cls;
  Tensor rpn_box;
  Tensor cls;
  Tensor box;
  Tensor total;
};

// The three static parts are Modules, so that each can be traced, fused and quantized; what joins them is the same for all.
class FasterRcnn : public nn::Module {
 public:
  FasterRcnn(nn::ModulePtr backbone, nn::ModulePtr rpn_head, nn::ModulePtr box_head, const FasterRcnnOptions& options)
      : backbone_(std::move(backbone)), rpn_head_(std::move(rpn_head)), box_head_(std::move(box_head)), options_(options) {}

  // Images [N, H, W, 3] -> feature maps of the padded images, finest first.
  Tensors forward(const Tensors& in) override { return backbone_->forward({padded(in[0])}); }
  // The images as the backbone sees them: zeros, the mean, below and on the right, up to a multiple of the divisor.
  Tensor padded(const Tensor& images) const;
  inline void visit(nn::Members& members) override;

  // The losses of a batch, means over the anchors and regions that were sampled from all of its images; `sizes` are the parts
  // of the padded images that show something. Random samples depend on (seed, step, image in the batch) alone.
  Losses losses(const Tensor& images, const std::vector<ImageSize>& sizes, const std::vector<Target>& targets,
                std::uint64_t seed, std::uint64_t step);

  // The objects found in each image, in pixels of the image as given, best first. On a GPU, images of a size that comes again
  // are one launch of a CUDA graph (core/replay.hpp); soft suppression is done on the host after it. It follows weights that
  // change, in place or not, other options and other parts, but not a Graph whose nodes are changed after it ran.
  std::vector<std::vector<Detection>> detect(const Tensor& images, const std::vector<ImageSize>& sizes);

  // The boxes [n, 4] proposed in each image, of the feature maps that forward() made of them, and the features that the box
  // head sees of rois [n, 5]. Images and their height are as given, without padding.
  std::vector<Tensor> regions(const Tensors& maps, const Tensor& images, const std::vector<ImageSize>& sizes);
  Tensor pool(const Tensors& maps, std::int64_t image_height, const Tensor& rois) const;

  FasterRcnnOptions& options() { return options_; }
  nn::ModulePtr& backbone() { return backbone_; }
  nn::ModulePtr& rpn_head() { return rpn_head_; }
  nn::ModulePtr& box_head() { return box_head_; }
  const Replay& replay() const { return replay_; }

 private:
  // What the region proposal network says of each level, and the anchors [n, 4] of the whole map.
  struct Level {
    Tensor logits;  // [N, H, W, A]
    Tensor deltas;  // [N, H, W, 4 A]
    std::int64_t stride_y, stride_x;
    Tensor anchors;
    bool whole;  // all cells count for every image
    // Cells that show something of an image.
    std::int64_t rows(const ImageSize& size) const { return seen(logits.size(1), size.height, stride_y); }
    std::int64_t columns(const ImageSize& size) const { return seen(logits.size(2), size.width, stride_x); }
    std::int64_t seen(std::int64_t cells, std::int64_t pixels, std::int64_t stride) const {
      return whole ? cells : std::min(cells, (pixels + stride - 1) / stride);
    }
  };

  std::int64_t padded_side(std::int64_t pixels) const {
    return (pixels + options_.size_divisor - 1) / options_.size_divisor * options_.size_divisor;
  }
  std::vector<Level> propose(const Tensors& maps, const Tensor& images);
  Tensor anchors_of(const Level& level, const ImageSize& size) const;
  Proposals proposals_of(const std::vector<Level>& levels, std::int64_t image, const ImageSize& size,
                         const ProposalOptions& options);
  std::vector<RpnTargets> rpn_targets_of(const std::vector<Level>& levels, const std::vector<ImageSize>& sizes,
                                         const std::vector<Target>& targets, std::uint64_t seed, std::uint64_t step) const;
  void add_rpn_losses(Losses& losses, const std::vector<Level>& levels, const std::vector<ImageSize>& sizes,
                      const std::vector<Target>& targets, std::uint64_t seed, std::uint64_t step);
  std::vector<DetectionCandidates> candidates(const Tensor& images, const std::vector<ImageSize>& sizes);
  Tensors find(const Tensors& images, const std::vector<ImageSize>& sizes);
  Tensors find_again(const Tensors& images, const std::vector<ImageSize>& sizes);

  nn::ModulePtr backbone_;
  nn::ModulePtr rpn_head_;
  nn::ModulePtr box_head_;
  FasterRcnnOptions options_;
  Replay replay_;
};

inline void FasterRcnn::visit(nn::Members& members) {
  members.child("backbone", *backbone_);
  members.child("rpn.head", *rpn_head_);
  members.child("roi_heads", *box_head_);
}

namespace detail {

// x with zeros after it along `dim`, up to `size`.
inline Tensor pad_end(const Tensor& x, std::int64_t dim, std::int64_t size) {
  if (x.size(dim) == size) return x;
  std::vector<std::int64_t> missing = x.shape().to_vector();
  missing[static_cast<std::size_t>(dim)] = size - x.size(dim);
  return concat({x, zeros(Shape(missing), x.dtype(), x.device())}, dim);
}

// The rows and columns of a map [1, H, W, C], from the first on.
inline Tensor crop(const Tensor& map, std::int64_t rows, std::int64_t columns) {
  const Tensor x = rows == map.size(1) ? map : slice(map, 1, 0, rows);
  return columns == map.size(2) ? x : slice(x, 2, 0, columns);
}

// Images [N, H, W, 3], each mirrored within its size: left and right exchanged, and what is right of it and below it, padding,
// stays there.
inline Tensor mirrored(const Tensor& images, const std::vector<ImageSize>& sizes) {
  const std::int64_t width = images.size(2);
  Tensors result;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    std::vector<std::int32_t> from(static_cast<std::size_t>(width), -1);  // zeros
    for (int x = 0; x < sizes[i].width; ++x) from[static_cast<std::size_t>(x)] = sizes[i].width - 1 - x;
    const auto first = static_cast<std::int64_t>(i);
    const Tensor columns = permute(slice(images, 0, first, first + 1), {2, 0, 1, 3});
    result.push_back(permute(index_rows(columns, tensor<std::int32_t>({width}, from, images.device())), {1, 2, 0, 3}));
  }
  return result.size() == 1 ? result[0] : concat(result, 0);
}

}  // namespace detail

inline Tensor FasterRcnn::padded(const Tensor& images) const {
  if (options_.stride == 0) return images;
  return detail::pad_end(detail::pad_end(images, 1, padded_side(images.size(1))), 2, padded_side(images.size(2)));
}

inline std::vector<FasterRcnn::Level> FasterRcnn::propose(const Tensors& maps, const Tensor& images) {
  const bool quotient = options_.stride == 0;
  const auto cells = [&](std::int64_t pixels) { return (padded_side(pixels) + options_.stride - 1) / options_.stride; };
  std::vector<Level> levels;
  for (const Tensor& map : maps) {
    SHRIKE_CHECK(quotient || (map.size(1) == cells(images.size(1)) && map.size(2) == cells(images.size(2))),
                 "a feature map of ", map.size(1), "x", map.size(2), " cells for images of ", images.size(1), "x",
                 images.size(2), " pixels: expected one cell for each ", options_.stride,
                 " pixels; FasterRcnnOptions::stride is the backbone's, and one that rounds down needs a size_divisor of it");
    const Tensors head = rpn_head_->forward({map});
    const std::int64_t stride_y = quotient ? images.size(1) / map.size(1) : options_.stride;
    const std::int64_t stride_x = quotient ? images.size(2) / map.size(2) : options_.stride;
    levels.push_back({head[0], head[1], stride_y, stride_x,
                      anchors(options_.anchors, stride_y, stride_x, map.size(1), map.size(2), map.device()), quotient});
  }
  return levels;
}

// The anchors of the cells that show something of an image. Those over padding take no part.
inline Tensor FasterRcnn::anchors_of(const Level& level, const ImageSize& size) const {
  const std::int64_t rows = level.rows(size), columns = level.columns(size);
  if (rows == level.logits.size(1) && columns == level.logits.size(2)) return level.anchors;
  return anchors(options_.anchors, level.stride_y, level.stride_x, rows, columns, level.logits.device());
}

// Objectness and boxes are taken as they are here: no gradient flows through proposals.
inline Proposals FasterRcnn::proposals_of(const std::vector<Level>& levels, std::int64_t image, const ImageSize& size,
                                          const ProposalOptions& options) {
  std::vector<Proposals> found;
  for (const Level& level : levels) {
    const auto seen = [&](const Tensor& map) {
      return detail::crop(slice(map.detach(), 0, image, image + 1), level.rows(size), level.columns(size));
    };
    const Tensor logits = seen(level.logits), deltas = seen(level.deltas);
    ProposalOptions here = options;
    here.min_size = least_side(options, size);
    found.push_back(proposals(reshape(logits, {logits.numel()}), reshape(deltas, {logits.numel(), 4}), anchors_of(level, size),
                              size.height, size.width, here));
  }
  return found.size() == 1 ? found[0] : merge_proposals(found, options.post_nms);
}

namespace detail {

// share_weights() where there is something to share.
template <class Targets, class... Least> void share_in_batch(std::vector<Targets>& images, Least... least) {
  std::vector<Targets*> all;
  for (Targets& image : images) all.push_back(&image);
  share_weights(all, least...);
}

}  // namespace detail

inline std::vector<RpnTargets> FasterRcnn::rpn_targets_of(const std::vector<Level>& levels, const std::vector<ImageSize>& sizes,
                                                          const std::vector<Target>& targets, std::uint64_t seed,
                                                          std::uint64_t step) const {
  std::vector<RpnTargets> images;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    Tensors all_anchors;
    for (const Level& level : levels) all_anchors.push_back(anchors_of(level, sizes[i]));
    images.push_back(rpn_targets(concat(all_anchors, 0), targets[i].boxes, sizes[i].height, sizes[i].width,
                                 options_.rpn_targets, seed, step * sizes.size() + i));
  }
  const bool whole = options_.divide_by_rpn_batch;
  const auto wanted = static_cast<std::int64_t>(sizes.size()) * options_.rpn_targets.batch;
  if (images.size() > 1 || whole) detail::share_in_batch(images, whole ? wanted : std::int64_t{1});
  return images;
}

inline void FasterRcnn::add_rpn_losses(Losses& losses, const std::vector<Level>& levels, const std::vector<ImageSize>& sizes,
                                       const std::vector<Target>& targets, std::uint64_t seed, std::uint64_t step) {
  const std::vector<RpnTargets> images = rpn_targets_of(levels, sizes, targets, seed, step);
  std::vector<std::int64_t> first(sizes.size());  // anchor of the level, by image
  for (const Level& level : levels) {
    const std::int64_t per_cell = level.logits.size(3);
    // What is wanted of the level's map, [N H W A k]: nothing of what lies over padding.
    const auto gather = [&](Tensor RpnTargets::*part, std::int64_t k) {
      Tensors maps;
      for (std::size_t i = 0; i < images.size(); ++i) {
        const std::int64_t rows = level.rows(sizes[i]), columns = level.columns(sizes[i]), n = rows * columns * per_cell;
        const Tensor seen = reshape(slice(images[i].*part, 0, first[i], first[i] + n), {1, rows, columns, per_cell * k});
        maps.push_back(detail::pad_end(detail::pad_end(seen, 1, level.logits.size(1)), 2, level.logits.size(2)));
      }
      const Tensor all = concat(maps, 0);
      return k == 1 ? reshape(all, {all.numel()}) : reshape(all, {all.numel() / k, k});
    };
    const Tensor cls = bce_with_logits(reshape(level.logits, {level.logits.numel()}), gather(&RpnTargets::cls_target, 1),
                                       gather(&RpnTargets::cls_weight, 1));
    const Tensor box = smooth_l1(reshape(level.deltas, {level.logits.numel(), 4}), gather(&RpnTargets::box_target, 4),
                                 gather(&RpnTargets::box_weight, 4), options_.rpn_beta);
    losses.rpn_cls = losses.rpn_cls.defined() ? add(losses.rpn_cls, cls) : cls;
    losses.rpn_box = losses.rpn_box.defined() ? add(losses.rpn_box, box) : box;
    for (std::size_t i = 0; i < sizes.size(); ++i) first[i] += level.rows(sizes[i]) * level.columns(sizes[i]) * per_cell;
  }
}

inline Tensor FasterRcnn::pool(const Tensors& maps, std::int64_t image_height, const Tensor& rois) const {
  SHRIKE_CHECK(maps.size() == 1, "regions are pooled from one feature map, not from ", maps.size());
  RoiOptions roi = options_.roi;
  if (options_.stride > 0) {
    roi.spatial_scale = 1.0 / options_.stride;
  } else {
    // The scale as a power of two, so that it does not depend on how pooling rounded the map's size.
    const float ratio = static_cast<float>(maps[0].size(1)) / static_cast<float>(image_height);
    roi.spatial_scale = std::exp2(std::round(std::log2(ratio)));
  }
  return options_.roi_align ? roi_align(maps[0], rois, roi) : roi_pool(maps[0], rois, roi);
}

inline Losses FasterRcnn::losses(const Tensor& images, const std::vector<ImageSize>& sizes, const std::vector<Target>& targets,
                                 std::uint64_t seed, std::uint64_t step) {
  const auto n = static_cast<std::size_t>(images.size(0));
  SHRIKE_CHECK(sizes.size() == n && targets.size() == n, "a batch of ", n, " images with ", sizes.size(), " sizes and ",
               targets.size(), " targets");
  Losses losses;
  const Tensors maps = forward({images});
  const std::vector<Level> levels = propose(maps, images);
  add_rpn_losses(losses, levels, sizes, targets, seed, step);

  std::vector<RoiTargets> sampled;
  for (std::size_t i = 0; i < n; ++i) {
    const Proposals found = proposals_of(levels, static_cast<std::int64_t>(i), sizes[i], options_.train_proposals);
    sampled.push_back(roi_targets(found.boxes, targets[i].boxes, targets[i].labels, options_.num_classes, options_.roi_targets,
                                  seed, step * n + i, static_cast<int>(i)));
  }
  if (n > 1) detail::share_in_batch(sampled);
  const auto of_all = [&](Tensor RoiTargets::*part) {
    Tensors parts;
    for (const RoiTargets& image : sampled) parts.push_back(image.*part);
    return concat(parts, 0);
  };
  const Tensors head = box_head_->forward({pool(maps, images.size(1), of_all(&RoiTargets::rois))});
  losses.cls = softmax_cross_entropy(head[0], of_all(&RoiTargets::labels));
  losses.box = smooth_l1(head[1], of_all(&RoiTargets::box_target), of_all(&RoiTargets::box_weight), options_.box_beta);
  losses.total = add(add(losses.rpn_cls, losses.rpn_box), add(losses.cls, losses.box));
  return losses;
}

inline std::vector<Tensor> FasterRcnn::regions(const Tensors& maps, const Tensor& images, const std::vector<ImageSize>& sizes) {
  const NoGrad no_grad;
  const std::vector<Level> levels = propose(maps, images);
  std::vector<Tensor> boxes;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const Proposals found = proposals_of(levels, static_cast<std::int64_t>(i), sizes[i], options_.test_proposals);
    // The host knows the count at no cost; on a device the padding is computed along.
    const std::int64_t count = found.boxes.device() == Device::cpu ? found.count.item<std::int32_t>() : found.boxes.size(0);
    boxes.push_back(slice(found.boxes, 0, 0, count));
  }
  return boxes;
}

// What may be found in each image. On a device nothing is read back, and every size follows from the image's shape and the
// options.
inline std::vector<DetectionCandidates> FasterRcnn::candidates(const Tensor& images, const std::vector<ImageSize>& sizes) {
  const Tensors maps = forward({images});
  const std::vector<Tensor> boxes = regions(maps, images, sizes);
  std::vector<DetectionCandidates> result;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const Tensors head = box_head_->forward({pool(maps, images.size(1), boxes_to_rois(boxes[i], static_cast<int>(i)))});
    SHRIKE_CHECK(head[0].size(1) == options_.num_classes, "a box head of ", head[0].size(1), " classes in a detector of ",
                 options_.num_classes);
    result.push_back(detection_candidates(head[0], head[1], boxes[i], sizes[i].height, sizes[i].width, options_.detections));
  }
  return result;
}

// What select_detections() says of each image. `images`: the batch, and its mirror image if that is looked at too.
inline Tensors FasterRcnn::find(const Tensors& images, const std::vector<ImageSize>& sizes) {
  std::vector<DetectionCandidates> all = candidates(images[0], sizes);
  if (images.size() > 1) {
    const std::vector<DetectionCandidates> mirror = candidates(images[1], sizes);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = join_mirrored(all[i], mirror[i], sizes[i].width);
  }
  Tensors result;
  for (const DetectionCandidates& image : all) result.push_back(select_detections(image, options_.detections));
  return result;
}

// The same, recorded and replayed where that is possible.
inline Tensors FasterRcnn::find_again(const Tensors& images, const std::vector<ImageSize>& sizes) {
  const auto state = nn::replayable_state(*this);
  if (!state) return find(images, sizes);
  std::vector<double> settings = options_.inference_settings();
  for (const ImageSize& size : sizes) {
    settings.insert(settings.end(), {1.0 * size.height, 1.0 * size.width, 1.0 * least_side(options_.test_proposals, size)});
  }
  return replay_(settings, {*state, {backbone_, rpn_head_, box_head_}}, images,
                 [&](const Tensors& in) { return find(in, sizes); });
}

inline std::vector<std::vector<Detection>> FasterRcnn::detect(const Tensor& images, const std::vector<ImageSize>& sizes) {
  const NoGrad no_grad;
  Tensors in = {images};
  if (options_.test_flip) in.push_back(detail::mirrored(images, sizes));
  const Tensors found = images.device() == Device::cpu ? find(in, sizes) : find_again(in, sizes);
  std::vector<std::vector<Detection>> result;
  for (const Tensor& image : found) result.push_back(read_detections(image, options_.num_classes, options_.detections));
  return result;
}

}  // namespace shrike::models
