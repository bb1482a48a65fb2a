// Where the settings of train_frcnn start from; docs/recipes.md has what is known of each.
#pragma once

#include <string>

#include "apps/train_config.hpp"
#include "shrike/data/voc.hpp"

namespace shrike::apps {

// py-faster-rcnn's end-to-end training of VGG16 on VOC 2007 (rbgirshick/py-faster-rcnn@781a917: lib/fast_rcnn/config.py,
// experiments/cfgs/faster_rcnn_end2end.yml, models/pascal_voc/VGG16/faster_rcnn_end2end/), from Caffe's VGG16.
inline TrainConfig voc07_vgg16() {
  TrainConfig config;
  config.preset = "voc07_vgg16";
  config.years = "2007";
  config.epochs = 28;  // 70,000 steps end in the last of them
  config.max_steps = 70000;
  config.accumulate = 2;  // iter_size
  config.lr = 0.001;
  config.lr_steps = {5.0f / 7};  // 50,000
  config.warmup = 0;
  config.bias_lr = 2;
  config.clip_norm = 0;
  config.ema = 0;
  config.init = "paper";
  config.eval_every = 0;
  config.match_inclusive = false;
  config.model.frozen_stages = 2;
  config.model.dropout = 0.5;
  config.model.pool_rounding = "ceil";
  config.model.size_divisor = 1;
  config.model.roi = "pool";
  config.model.anchor_rounding = "base";
  config.model.anchor_offset = 8;
  config.model.anchor_border = "drop";
  config.model.input = "caffe";
  config.model.train_pre_nms = 12000;
  config.model.train_post_nms = 2000;
  config.model.proposal_min_size = 16;
  config.model.box_beta = 1;
  config.model.classes = voc_classes();
  return config;
}

// The same data and number of images, with what others gained at little cost since, from torchvision's VGG16: RoIAlign (He et
// al., "Mask R-CNN", 2017), small anchors and images of several sizes (Detectron2), a warm-up and a bound on gradients.
inline TrainConfig voc07_vgg16_best() {
  TrainConfig config = voc07_vgg16();
  config.preset = "voc07_vgg16_best";
  config.warmup = 500;
  config.clip_norm = 10;
  config.train_sizes = {480, 540, 600, 660, 720};
  config.match_inclusive = true;
  config.model.roi = "align";
  config.model.anchor_sizes = {32, 64, 128, 256, 512};
  config.model.anchor_rounding = "corners";
  config.model.anchor_border = "keep";
  config.model.proposal_min_size = 1e-3;
  config.model.input = "imagenet";
  return config;
}

// The defaults of a preset. Throws Error for a name that is none.
inline TrainConfig preset(const std::string& name) {
  TrainConfig config;
  config.preset = name;
  if (name == "shapes") {
    config.epochs = 14;
    config.eval_every = 2;
    config.lr = 0.02;
    config.ema = 0;  // its rate falls to 0 over 7,000 steps: no gain at the end
    config.schedule = "cosine";
    config.weight_decay = 1e-4;
    config.model.backbone = "vgg11";
    config.model.width = 16;
    config.model.batch_norm = true;
    config.model.head_width = 256;
    config.model.min_size = 192;
    config.model.max_size = 320;
    config.model.anchor_sizes = {24, 48, 96};
    config.model.rpn_positive_iou = 0.5;
    config.model.train_pre_nms = 1000;
    config.model.train_post_nms = 300;
    config.model.test_pre_nms = 1000;
    config.model.test_post_nms = 100;
    config.model.score_threshold = 0.01;
  } else if (name == "bccd") {
    config.drop_bad_boxes = true;
    config.model.width = 16;
    config.model.batch_norm = true;
    config.lr = 0.015;
    config.schedule = "cosine";
    config.model.min_size = 300;
    config.model.anchor_sizes = {24, 48, 96, 192};  // platelets are 25 pixels wide at this size
    config.model.rpn_positive_iou = 0.5;            // few anchors fit small boxes better
    config.model.roi_batch = 256;
    config.model.classes = {"RBC", "WBC", "Platelets"};
  } else if (name == "bccd_resnet18") {
    config.drop_bad_boxes = true;
    config.epochs = 6;
    config.model.backbone = "resnet18";
    config.model.frozen_stages = 2;
    config.model.min_size = 480;
    config.model.anchor_sizes = {32, 64, 128, 256};
    config.model.classes = {"RBC", "WBC", "Platelets"};
  } else if (name == "resnet18" || name == "resnet34" || name == "resnet50" ||
             name == "resnet101") {  // any data, from weights of ImageNet
    config.epochs = 12;
    config.model.backbone = name;
    config.model.batch_norm = true;
    config.model.frozen_stages = 2;
    config.model.min_size = 480;
    config.model.anchor_sizes = {32, 64, 128, 256, 512};
  } else if (name == "vgg16") {  // the same
    config.epochs = 12;
    config.lr = 0.001;
    config.init = "paper";
    config.model.frozen_stages = 2;
    config.model.dropout = 0.5;
    config.model.anchor_sizes = {32, 64, 128, 256, 512};
  } else if (name == "voc07_vgg16") {
    return voc07_vgg16();
  } else if (name == "voc07_vgg16_best") {
    return voc07_vgg16_best();
  } else {
    fail("preset '", name,
         "': expected shapes, resnet18, resnet34, resnet50, resnet101, vgg16, bccd, bccd_resnet18, voc07_vgg16 or "
         "voc07_vgg16_best");
  }
  return config;
}

}  // namespace shrike::apps
