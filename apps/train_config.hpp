// What train_frcnn can be told.
#pragma once

#include "apps/device.hpp"
#include "apps/threads.hpp"
#include "models/detector.hpp"

namespace shrike::apps {

struct TrainConfig {
  std::string preset = "shapes";
  std::string run = "";
  std::string data = "";
  std::string years = "";
  std::string test_years = "";
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
  int max_steps = 0;
  int batch = 1;
  int accumulate = 1;
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
  double ema = 0.98;
  double flip = 0.5;
  double jitter = 0;
  std::vector<int> train_sizes;

  bool match_inclusive = true;
  int eval_every = 1;
  int patience = 0;
  int save_every = 500;
  int log_every = 20;

  models::DetectorConfig model;

  template <class Visitor> void visit(Visitor& v) {
    v("run", run, "folder for checkpoints, logs and the resolved configuration; runs/PRESET if empty");
    v("data", data, "VOC-format folder (JPEGImages, Annotations, ImageSets/Main); empty for the built-in shapes");
    v("years", years, "with a VOCdevkit folder: the years to join, as in 2007 or 2007+2012");
    v("test-years", test_years, "the years of the test set, as in --years 2007+2012 --test-years 2007; the same if empty");
    v("train-split", train_split, "image set to train on");
    v("val-split", val_split,
      "image set that chooses the best checkpoint; without it and --val-fraction the test set does, whose figure is then too "
      "good");
    v("val-fraction", val_fraction,
      "... or this part of the training images, 0.1 say, taken out of them with each class in proportion");
    v("test-split", test_split, "image set to test on: once, at the end, where others choose the best checkpoint");
    v("resplit", resplit, "draw a new split of the images of --train-split and --test-split, in this ratio, as in 9:1");
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
    v("max-steps", max_steps, "end after so many steps, within an epoch or not; 0 for whole epochs");
    v("batch", batch, "images whose gradient is computed at a time");
    v("accumulate", accumulate, "batches of a step, which takes the mean of their gradients: 2 in py-faster-rcnn (iter_size)");
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
    v("flip", flip, "probability of a horizontal flip; 0.5 is on average the set doubled by mirrored images (py-faster-rcnn)");
    v("jitter", jitter, "strength of random changes of brightness, contrast, saturation and hue, 0 to 1");
    v("train-sizes", train_sizes,
      "--min-size of training images, one drawn for each: multi-scale training, as in "
      "480,512,544,576,608,640,672,704,736,768,800 "
      "(Detectron2); --min-size alone if empty");
    v("match-inclusive", match_inclusive,
      "an IoU of 0.5 is a match in evaluation, as in VOC's development kit; otherwise only more is (py-faster-rcnn, "
      "Detectron2)");
    v("eval-every", eval_every, "epochs between evaluations; 0 for only at the end");
    v("patience", patience, "end the run after this many evaluations without a better mAP; 0 for never");
    v("save-every", save_every, "steps between checkpoints, besides one at the end of each epoch; 0 for only those");
    v("log-every", log_every, "steps between lines of the log");
  }
};

}  // namespace shrike::apps
