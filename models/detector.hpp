// A whole detector from a handful of settings: those of the command line, and those that a checkpoint carries.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "models/faster_rcnn.hpp"
#include "models/res5_head.hpp"
#include "models/resnet.hpp"
#include "models/vgg.hpp"
#include "shrike/data/image.hpp"

namespace shrike::models {

// Everything that decides what the network computes. A visitor is called as v(name, value, help) for each setting.
struct DetectorConfig {
  std::string backbone = "vgg16";
  int width = 64;
  bool batch_norm = false;
  std::string norm = "auto";
  int frozen_stages = 0;
  std::string head = "fc";
  int head_width = 0;
  double dropout = 0;
  std::string pool_rounding = "floor";
  int size_divisor = 16;
  std::string grid = "backbone";
  std::string roi = "align";
  int roi_size = 0;
  int sampling_ratio = 2;
  std::vector<float> anchor_sizes = {128, 256, 512};
  std::vector<float> anchor_ratios = {0.5f, 1, 2};
  std::string anchor_rounding = "corners";
  double anchor_offset = -1;
  std::string anchor_border = "keep";
  int min_size = 600;
  int max_size = 1000;
  std::string input = "imagenet";
  int train_pre_nms = 2000;
  int train_post_nms = 500;
  int test_pre_nms = 6000;
  int test_post_nms = 300;
  double rpn_nms = 0.7;
  double proposal_min_size = 1e-3;
  double rpn_positive_iou = 0.7;
  double rpn_negative_iou = 0.3;
  bool rpn_low_quality = true;
  double rpn_low_quality_iou = 0;
  int rpn_batch = 256;
  std::string rpn_divisor = "sampled";
  double rpn_beta = 1.0 / 9;
  int roi_batch = 128;
  double roi_positive_iou = 0.5;
  double roi_positive_fraction = 0.25;
  double roi_background_low = 0;
  double box_beta = 1.0 / 9;
  double score_threshold = 0.05;
  double nms_threshold = 0.3;
  std::string soft_nms = "off";
  double soft_nms_sigma = 0.5;
  int max_detections = 100;
  std::vector<std::string> classes;

  template <class Visitor> void visit(Visitor& v) {
    v("backbone", backbone, "vgg11, vgg13, vgg16, resnet18, resnet34, resnet50 or resnet101");
    v("width", width, "channels of the first stage; 64 is the published network");
    v("batch-norm", batch_norm, "batch norm after each convolution; otherwise none (or folded in)");
    v("norm", norm,
      "batch norm: live (learns, by the statistics of its batches), frozen (does not, by the running ones) or auto (live, but "
      "frozen in a ResNet that starts from --weights); in frozen stages it is frozen");
    v("frozen-stages", frozen_stages, "first stages that are not trained; of a ResNet conv1, layer1, ...");
    v("head", head, "what sees a pooled region: fc (fc6 and fc7) or res5 (a ResNet's layer4, and the mean over its places)");
    v("head-width", head_width, "units of fc6 and fc7; 0 means 64 x width for VGG, 8 x width for ResNet");
    v("dropout", dropout, "probability of dropout after fc6 and fc7");
    v("pool-rounding", pool_rounding,
      "how VGG's poolings round a map's size: floor (torchvision) or ceil (Caffe, py-faster-rcnn; needs no padding)");
    v("size-divisor", size_divisor,
      "images are padded to a multiple of this: 32 in torchvision and MMDetection, 1 for not at all (py-faster-rcnn, "
      "Detectron2); a VGG that rounds down needs a multiple of 16");
    v("grid", grid,
      "where anchors and RoIAlign see the cells of the map: backbone (where they are), torchvision (in VGG's too at their "
      "corners) "
      "or quotient (strides of image / map, as in checkpoints of version 0.1)");
    v("roi", roi, "how regions are pooled: align or pool");
    v("roi-size", roi_size, "height and width of a pooled region; 0 means 7, or 14 for head res5, which halves it");
    v("sampling-ratio", sampling_ratio, "samples per bin and side for roi align; 0 adapts to the region");
    v("anchor-sizes", anchor_sizes, "sides of the square anchors, in pixels of the resized image");
    v("anchor-ratios", anchor_ratios, "height : width of the anchors");
    v("anchor-rounding", anchor_rounding,
      "how anchors' sides are rounded: corners (half sides, torchvision), base (at 16 pixels, then scaled, py-faster-rcnn) or "
      "none (Detectron2)");
    v("anchor-offset", anchor_offset,
      "pixels from the image's corner to the first anchor's centre: 0 in torchvision, Detectron2 and MMDetection, 8 in "
      "py-faster-rcnn (7.5 between pixels' centres); negative: as --grid says");
    v("anchor-border", anchor_border,
      "anchors across the image's border in training: keep (torchvision, Detectron2, MMDetection) or drop (py-faster-rcnn)");
    v("min-size", min_size, "images are resized until the shorter side has this many pixels ...");
    v("max-size", max_size, "... or the longer side this many");
    v("input", input, "imagenet (RGB in [0, 1], mean and deviation of ImageNet) or caffe (BGR minus mean)");
    v("train-pre-nms", train_pre_nms, "proposals before non-maximum suppression, in training");
    v("train-post-nms", train_post_nms, "proposals after it");
    v("test-pre-nms", test_pre_nms, "the same in inference");
    v("test-post-nms", test_post_nms, "");
    v("rpn-nms", rpn_nms, "proposals that overlap a better one by more than this IoU are dropped");
    v("proposal-min-size", proposal_min_size,
      "proposals with a side below so many pixels of the image as stored are dropped: 16 in py-faster-rcnn; below 1: pixels of "
      "the resized one");
    v("rpn-positive-iou", rpn_positive_iou, "anchors at or above this IoU with a box are positive");
    v("rpn-negative-iou", rpn_negative_iou, "anchors below this IoU with every box are negative");
    v("rpn-low-quality", rpn_low_quality, "the anchors that overlap a box most are positive at any IoU (all recipes) ...");
    v("rpn-low-quality-iou", rpn_low_quality_iou, "... from this one on: 0.3 in MMDetection");
    v("rpn-batch", rpn_batch, "anchors sampled per image for the proposal losses, at most half of them positive");
    v("rpn-divisor", rpn_divisor,
      "what the proposal losses are divided by: sampled (the number of anchors, py-faster-rcnn, torchvision) or batch "
      "(rpn-batch for each image, Detectron2)");
    v("rpn-beta", rpn_beta,
      "where the proposals' smooth L1 loss turns linear: 1/9 in py-faster-rcnn (sigma 3) and torchvision, 0 (L1) in "
      "Detectron2 and MMDetection");
    v("roi-batch", roi_batch, "regions sampled per image for the head's losses");
    v("roi-positive-iou", roi_positive_iou, "regions at or above this IoU with a box are of its class");
    v("roi-positive-fraction", roi_positive_fraction, "at most this part of the regions");
    v("roi-background-low", roi_background_low, "regions below this IoU are not used as background either");
    v("box-beta", box_beta, "rpn-beta for the head's boxes: 1 in py-faster-rcnn, 1/9 in torchvision, 0 in the others");
    v("score-threshold", score_threshold, "detections below this score are dropped");
    v("nms-threshold", nms_threshold, "detections that overlap a better one of their class by more than this IoU are dropped");
    v("soft-nms", soft_nms,
      "off, or linear or gaussian: such detections lose score instead (Bodla et al., 2017), on the CPU; those whose score "
      "falls "
      "below the threshold are dropped");
    v("soft-nms-sigma", soft_nms_sigma, "soft-nms gaussian: scores fall by exp(-IoU^2 / sigma)");
    v("max-detections", max_detections, "at most this many detections an image");
    v("classes", classes, "names of the classes, label 1 first");
  }

  bool is_vgg() const { return backbone.rfind("vgg", 0) == 0; }
  // 16, say, of vgg16. 0 without a number.
  int depth() const { return std::atoi(backbone.c_str() + std::min<std::size_t>(backbone.size(), is_vgg() ? 3 : 6)); }
  // Channels of the feature map.
  std::int64_t channels() const { return is_vgg() ? std::int64_t{8} * width : resnet_channels(depth(), width, 3); }
  // Height and width of a pooled region.
  int pooled_size() const { return roi_size != 0 ? roi_size : head == "res5" ? 14 : 7; }
  // Whether batch norm is frozen in all stages. Throws Error where `norm` is no such setting.
  bool frozen_norm() const {
    SHRIKE_CHECK(norm == "auto" || norm == "live" || norm == "frozen", "norm '", norm, "': expected auto, live or frozen");
    SHRIKE_CHECK(norm != "live" || batch_norm, "norm live: the detector has no batch norm; give --batch-norm, or --weights of ",
                 "a network that has it");
    return norm == "frozen" || (norm == "auto" && !is_vgg());
  }
};

// Sets strides, the anchors' centres and RoIAlign's alignment.
inline void set_grid(const DetectorConfig& config, FasterRcnnOptions& options) {
  SHRIKE_CHECK(config.grid == "backbone" || config.grid == "torchvision" || config.grid == "quotient", "grid '", config.grid,
               "': expected backbone, torchvision or quotient");
  const MapGrid grid = config.is_vgg() ? vgg_grid : resnet_c4_grid;
  options.stride = config.grid == "quotient" ? 0 : grid.stride;
  if (config.grid == "backbone") {
    options.anchors.offset = grid.centre;
    options.roi.aligned = grid.centre == 0.5f;  // values of the map lie at the centres of its cells
  }
  if (config.anchor_offset < 0) return;
  SHRIKE_CHECK(options.stride > 0, "anchor-offset ", config.anchor_offset, " with grid quotient: expected another grid");
  options.anchors.offset = static_cast<float>(config.anchor_offset) / static_cast<float>(options.stride);
}

// Sets how images are padded. Throws Error where the map would then have other cells than the anchors.
inline void set_padding(const DetectorConfig& config, FasterRcnnOptions& options) {
  SHRIKE_CHECK(config.pool_rounding == "floor" || config.pool_rounding == "ceil", "pool-rounding '", config.pool_rounding,
               "': expected floor or ceil");
  SHRIKE_CHECK(config.size_divisor >= 1 && config.size_divisor <= 4096, "size-divisor ", config.size_divisor,
               ": expected 1 to 4096");
  const bool rounds_down = config.is_vgg() && config.pool_rounding == "floor";
  SHRIKE_CHECK(options.stride == 0 || !rounds_down || config.size_divisor % options.stride == 0, "size-divisor ",
               config.size_divisor, " with pool-rounding floor: expected a multiple of ", options.stride,
               ", or pool-rounding ceil");
  options.size_divisor = config.size_divisor;
}

// The options of anchors and of their targets.
inline void set_anchors(const DetectorConfig& config, FasterRcnnOptions& options) {
  options.anchors.sizes = config.anchor_sizes;
  options.anchors.ratios = config.anchor_ratios;
  const std::string& rounding = config.anchor_rounding;
  SHRIKE_CHECK(rounding == "corners" || rounding == "base" || rounding == "none", "anchor-rounding '", rounding,
               "': expected corners, base or none");
  options.anchors.rounding = rounding == "corners" ? AnchorRounding::corners
                             : rounding == "base"  ? AnchorRounding::base
                                                   : AnchorRounding::none;
  SHRIKE_CHECK(config.anchor_border == "keep" || config.anchor_border == "drop", "anchor-border '", config.anchor_border,
               "': expected keep or drop");
  if (config.anchor_border == "drop") options.rpn_targets.straddle = 0;
  options.rpn_targets.positive_iou = static_cast<float>(config.rpn_positive_iou);
  options.rpn_targets.negative_iou = static_cast<float>(config.rpn_negative_iou);
  options.rpn_targets.best_is_positive = config.rpn_low_quality;
  options.rpn_targets.best_iou = static_cast<float>(config.rpn_low_quality_iou);
  options.rpn_targets.batch = config.rpn_batch;
  SHRIKE_CHECK(config.rpn_divisor == "sampled" || config.rpn_divisor == "batch", "rpn-divisor '", config.rpn_divisor,
               "': expected sampled or batch");
  options.divide_by_rpn_batch = config.rpn_divisor == "batch";
}

// What joins the parts of a configuration's network. Throws Error naming the setting that does not fit.
inline FasterRcnnOptions detector_options(const DetectorConfig& config) {
  SHRIKE_CHECK(!config.classes.empty(), "a detector needs at least one class");
  SHRIKE_CHECK(!config.anchor_sizes.empty() && !config.anchor_ratios.empty(), "a detector needs anchor sizes and ratios");
  SHRIKE_CHECK(config.roi == "align" || config.roi == "pool", "roi '", config.roi, "': expected align or pool");
  FasterRcnnOptions options;
  options.num_classes = static_cast<int>(config.classes.size()) + 1;
  SHRIKE_CHECK(config.rpn_beta >= 0 && config.box_beta >= 0, "rpn-beta ", config.rpn_beta, " and box-beta ", config.box_beta,
               ": expected 0 or more");
  SHRIKE_CHECK(config.proposal_min_size >= 0, "proposal-min-size ", config.proposal_min_size, ": expected 0 or more");
  options.rpn_beta = static_cast<float>(config.rpn_beta);
  options.box_beta = static_cast<float>(config.box_beta);
  options.roi_targets.batch = config.roi_batch;
  options.roi_targets.positive_iou = static_cast<float>(config.roi_positive_iou);
  options.roi_targets.negative_iou = options.roi_targets.positive_iou;
  options.roi_targets.positive_fraction = static_cast<float>(config.roi_positive_fraction);
  options.roi_targets.negative_low = static_cast<float>(config.roi_background_low);
  options.train_proposals.pre_nms = config.train_pre_nms;
  options.train_proposals.post_nms = config.train_post_nms;
  options.train_proposals.nms_threshold = static_cast<float>(config.rpn_nms);
  options.train_proposals.min_size = static_cast<float>(config.proposal_min_size);
  options.test_proposals = options.train_proposals;
  options.test_proposals.pre_nms = config.test_pre_nms;
  options.test_proposals.post_nms = config.test_post_nms;
  options.detections.score_threshold = static_cast<float>(config.score_threshold);
  options.detections.nms_threshold = static_cast<float>(config.nms_threshold);
  options.detections.max_detections = config.max_detections;
  options.detections.soft_nms = parse_soft_nms(config.soft_nms);
  SHRIKE_CHECK(config.soft_nms_sigma > 0, "soft-nms-sigma ", config.soft_nms_sigma, ": expected a positive number");
  options.detections.soft_nms_sigma = config.soft_nms_sigma;
  options.roi.height = config.pooled_size();
  options.roi.width = config.pooled_size();
  options.roi.sampling_ratio = config.sampling_ratio;
  options.roi_align = config.roi == "align";
  set_anchors(config, options);
  set_grid(config, options);
  set_padding(config, options);
  return options;
}

// The rules by which the heads may begin: he: hidden layers by He's variance (He et al., "Delving Deep into Rectifiers", 2015),
// predictors normal(0.01); paper: the same with normal(0.001) for boxes (Fast R-CNN, section 3.1); pytorch: the box head as
// torchvision's, uniform in +-1 / sqrt(inputs), biases too. The RPN begins at normal(0.01) in all of them. Throws Error for a
// name that is none.
inline HeadInit head_init(const std::string& rule) {
  HeadInit init;
  if (rule == "he") return init;
  if (rule == "paper") {
    init.bbox_pred = nn::Init::normal(0.001f);
    return init;
  }
  if (rule == "pytorch") {
    init.hidden = init.cls_score = init.bbox_pred = nn::Init::pytorch();
    return init;
  }
  fail("init '", rule, "': expected he, pytorch or paper");
}

inline ResnetOptions resnet_options(const DetectorConfig& config) {
  ResnetOptions resnet;
  resnet.depth = config.depth();
  resnet.width = config.width;
  resnet.batch_norm = config.batch_norm;
  resnet.frozen_norm = config.frozen_norm();
  resnet.frozen_stages = config.frozen_stages;
  return resnet;
}

// The head that looks at pooled regions. Throws Error naming the setting that does not fit.
inline nn::ModulePtr make_box_head(const DetectorConfig& config, const HeadInit& init) {
  const auto classes = static_cast<std::int64_t>(config.classes.size()) + 1;
  const std::int64_t side = config.pooled_size();
  if (config.head == "fc") {
    const std::int64_t head_width =
        config.head_width > 0 ? config.head_width : std::int64_t{config.width} * (config.is_vgg() ? 64 : 8);
    return std::make_shared<BoxHead>(config.channels() * side * side, head_width, classes, config.dropout, init);
  }
  SHRIKE_CHECK(config.head == "res5", "head '", config.head, "': expected fc or res5");
  SHRIKE_CHECK(!config.is_vgg(), "head res5 is a ResNet's last stage, which the backbone ", config.backbone,
               " has not: expected --head fc");
  SHRIKE_CHECK(config.head_width == 0 && config.dropout == 0, "head res5 has no fc6 and fc7: expected head-width 0 and ",
               "dropout 0, not ", config.head_width, " and ", config.dropout);
  SHRIKE_CHECK(side >= 1 && side <= 32, "roi-size ", side, ": expected 1 to 32 for head res5");
  return std::make_shared<Res5Head>(resnet_options(config), classes, init);
}

// The network of a configuration, its parameters zero: see nn::initialize. Throws Error naming the setting that does not fit.
inline std::shared_ptr<FasterRcnn> make_detector(const DetectorConfig& config, const HeadInit& init = {}) {
  SHRIKE_CHECK(config.width > 0, "width ", config.width, ": expected a positive number");
  const FasterRcnnOptions options = detector_options(config);

  nn::ModulePtr backbone;
  if (config.backbone == "vgg11" || config.backbone == "vgg13" || config.backbone == "vgg16") {
    VggOptions vgg;
    vgg.depth = config.depth();
    vgg.width = config.width;
    vgg.batch_norm = config.batch_norm;
    vgg.frozen_norm = config.frozen_norm();
    vgg.frozen_stages = config.frozen_stages;
    vgg.ceil_mode = config.pool_rounding == "ceil";
    backbone = vgg_features(vgg);
  } else if (config.backbone == "resnet18" || config.backbone == "resnet34" || config.backbone == "resnet50" ||
             config.backbone == "resnet101") {
    backbone = std::make_shared<ResnetC4>(resnet_options(config));
  } else {
    fail("backbone '", config.backbone, "': expected vgg11, vgg13, vgg16, resnet18, resnet34, resnet50 or resnet101");
  }

  const std::int64_t channels = config.channels();
  const auto anchors_per_place = static_cast<std::int64_t>(config.anchor_sizes.size() * config.anchor_ratios.size());
  return std::make_shared<FasterRcnn>(backbone, std::make_shared<RpnHead>(channels, channels, anchors_per_place, init),
                                      make_box_head(config, init), options);
}

// How an image becomes the network's input.
inline Normalization normalization(const DetectorConfig& config) {
  if (config.input == "imagenet") return {};
  if (config.input == "caffe") return Normalization::caffe();
  fail("input '", config.input, "': expected imagenet or caffe");
}

}  // namespace shrike::models
