// What train_frcnn can be told, and its presets.
#pragma once

#include "apps/device.hpp"
#include "apps/threads.hpp"
#include "models/detector.hpp"
#include "shrike/data/voc.hpp"

namespace shrike::apps {

struct TrainConfig {
  std::string preset = "shapes";
  std::string run = "";
  std::string data = "";
  std::string years = "";
  std::string train_split = "trainval";
  std::string val_split = "";
  double val_fraction = 0;
  std::string test_split = "test";
  std::string resplit = "";
  std::uint64_t split_seed = 1;
  bool drop_bad_boxes = false;
  std::string weights = "";
  std::string init = "he";
  std::string anchors = "given";
  DeviceSettings device;
  int threads = 0;
  int workers = 2;
  std::uint64_t seed = 1;

  int epochs = 8;
  int batch = 1;
  double lr = 0.005;
  std::string schedule = "step";
  std::vector<float> lr_steps = {0.75f};
  double lr_gamma = 0.1;
  int warmup = 200;
  double momentum = 0.9;
  double weight_decay = 5e-4;
  double bias_lr = 1;
  bool bias_decay = true;
  double clip_norm = 10;
  double ema = 0;
  double flip = 0.5;
  double jitter = 0;

  int eval_every = 1;
  int patience = 0;
  int save_every = 500;
  int log_every = 20;

  models::DetectorConfig model;

  template <class Visitor> void visit(Visitor& v) {
    v("run", run, "folder for checkpoints, logs and the resolved configuration; runs/PRESET if empty");
    v("data", data, "VOC-format folder (JPEGImages, Annotations, ImageSets/Main); empty for the built-in shapes");
    v("years", years, "with a VOCdevkit folder: the years to join, as in 2007 or 2007+2012");
    v("train-split", train_split, "image set to train on");
    v("val-split", val_split,
      "image set that chooses the best checkpoint; without it and --val-fraction the test set does, whose figure is then too "
      "good");
    v("val-fraction", val_fraction,
      "... or this part of the training images, 0.1 say, taken out of them with each class in proportion");
    v("test-split", test_split, "image set to test on: once, at the end, where others choose the best checkpoint");
    v("resplit", resplit, "divide the images of --train-split and --test-split anew in this ratio, as in 9:1");
    v("split-seed", split_seed, "which of the possible divisions --resplit and --val-fraction take; --seed does not change it");
    v("drop-bad-boxes", drop_bad_boxes, "drop and count boxes without area; otherwise they are an error");
    v("weights", weights, "safetensors file to start from: torchvision's names and layout, or a checkpoint of ours");
    v("init", init, "how the heads begin, but for what --weights has: he, pytorch (torchvision's rule) or paper");
    v("anchors", anchors, "given: as --anchor-sizes says; auto: as many sizes, those that fit the training boxes best");
    device.visit(v);
    v("threads", threads, threads_help);
    v("workers", workers, "threads that load images, ahead of the computing and at a lower priority");
    v("seed", seed, "every random number of the run follows from it");
    v("epochs", epochs, "passes over the training images");
    v("batch", batch, "images per step");
    v("lr", lr, "learning rate");
    v("schedule", schedule, "step, cosine or constant");
    v("lr-steps", lr_steps, "schedule step: parts of the run after which the rate falls");
    v("lr-gamma", lr_gamma, "... and by which factor");
    v("warmup", warmup, "steps over which the rate rises to its value");
    v("momentum", momentum, "SGD's momentum");
    v("weight-decay", weight_decay, "L2 penalty");
    v("bias-lr", bias_lr, "learning rate of biases, times the others'");
    v("bias-decay", bias_decay, "weight decay for biases and batch norm too");
    v("clip-norm", clip_norm, "longest gradient of a step; 0 for no limit");
    v("ema", ema,
      "decay of a moving average of the weights over steps, which is what is evaluated and kept as the detector; 0 for none");
    v("flip", flip, "probability of a horizontal flip");
    v("jitter", jitter, "strength of random changes of brightness, contrast, saturation and hue, 0 to 1");
    v("eval-every", eval_every, "epochs between evaluations; 0 for only at the end");
    v("patience", patience, "end the run after this many evaluations without a better mAP; 0 for never");
    v("save-every", save_every, "steps between checkpoints, besides one at the end of each epoch; 0 for only those");
    v("log-every", log_every, "steps between lines of the log");
  }
};

// The defaults of a preset. Throws Error for a name that is none.
inline TrainConfig preset(const std::string& name) {
  TrainConfig config;
  config.preset = name;
  if (name == "shapes") {
    config.epochs = 14;
    config.eval_every = 2;
    config.lr = 0.02;
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
    config.years = "2007";
    config.epochs = 15;
    config.lr = 0.001;
    config.lr_steps = {0.67f};
    config.bias_lr = 2;
    config.init = "paper";
    config.bias_decay = false;
    config.model.frozen_stages = 2;
    config.model.dropout = 0.5;
    config.model.roi = "pool";
    config.model.train_pre_nms = 12000;
    config.model.train_post_nms = 2000;
    config.model.classes = voc_classes();
  } else {
    fail("preset '", name,
         "': expected shapes, resnet18, resnet34, resnet50, resnet101, vgg16, bccd, bccd_resnet18 or voc07_vgg16");
  }
  return config;
}

}  // namespace shrike::apps
