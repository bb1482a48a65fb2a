// What qat_frcnn can be told.
#pragma once

#include <string>
#include <vector>

#include "apps/device.hpp"
#include "apps/settings.hpp"
#include "apps/threads.hpp"
#include "shrike/quant/observer.hpp"

namespace shrike::apps {

struct QuantizeArguments {
  std::string checkpoint, mode = "static", run, output;
  // What the checkpoint's settings are overridden with; empty and negative: they stay.
  std::string data, years, split;
  DeviceSettings device;
  int threads = 0, workers = -1;
  bool drop_bad_boxes = false, evaluate = true;
  // Quantization.
  std::string observer, weight_observer = "minmax", weights = "s8", calibration, save_calibration;
  double percentile = 0.9999, observer_momentum = 0.01;
  std::vector<std::string> keep_float;
  bool first_float = false, equalize = false, bias_correction = false;
  int calibration_images = 128;
  // The sensitivity of layers.
  bool sensitivity = false;
  double max_drop = -1;
  int sensitivity_images = 500, sensitivity_layers = 8;
  // Training.
  int epochs = -1, freeze_after = -1, log_every = -1;
  double lr = -1;
  bool learned = false, resume = false;
};

inline int parse(int argc, char** argv, QuantizeArguments& a) {
  CLI::App app(
      "Quantizes a trained Faster R-CNN: int8 by calibration (static), by training on (qat), or with ranges that are found "
      "when it runs (dynamic); the weights alone (weight-only); or everything to half floats (half).",
      "qat_frcnn");
  const auto option = [&](CLI::App& to, const char* group, const char* name, auto& value, const char* help) {
    return to.add_option(name, value, help)->group(group)->capture_default_str();
  };
  app.add_option("--checkpoint", a.checkpoint, "checkpoint of train_frcnn, such as runs/shapes/best.safetensors")->required();
  option(app, "Options", "--mode", a.mode, "dynamic, weight-only, half, static or qat")
      ->check(CLI::IsMember({"dynamic", "weight-only", "half", "static", "qat"}));
  option(app, "Options", "-o,--output", a.output, "the quantized file; CHECKPOINT's name with MODE in it by default");
  option(app, "Options", "--data", a.data, "VOC-format folder; by default the one it was trained on");
  option(app, "Options", "--years", a.years, "with a VOCdevkit folder: the years to join, as in 2007+2012");
  option(app, "Options", "--split", a.split,
         "image set to measure on; by default the run's test set, or what its --resplit held out");
  app.add_flag("--drop-bad-boxes", a.drop_bad_boxes, "drop and count boxes without area; otherwise they are an error");
  app.add_flag("--evaluate,!--no-evaluate", a.evaluate, "measure the float and the quantized detector")->capture_default_str();
  OptionAdder adder{app, "Device"};
  a.device.visit(adder);
  option(app, "Options", "--threads", a.threads, threads_help)->check(CLI::NonNegativeNumber);
  option(app, "Options", "--workers", a.workers, "threads that load images; by default the run's");
  const char* scales = "Quantization";
  option(app, scales, "--observer", a.observer,
         "how ranges of activations are chosen: minmax, moving-average, percentile, entropy or mse; by default mse for static, "
         "moving-average for qat");
  option(
      app, scales, "--weight-observer", a.weight_observer,
      "modes static and dynamic: how the range of each output channel's weights is chosen: minmax, percentile, entropy or mse");
  option(app, scales, "--percentile", a.percentile, "observer percentile: the share of absolute values within the range");
  option(app, scales, "--observer-momentum", a.observer_momentum, "observer moving-average: the newest batch's share");
  option(app, scales, "--keep-float", a.keep_float, "layers to keep in float, as globs: roi_heads.box_head.*")
      ->delimiter(',')
      ->expected(1, 1000);
  app.add_flag("--first-float", a.first_float, "keep the first layer in float")->group(scales);
  option(app, scales, "--calibration-images", a.calibration_images, "images of the training set that scales are found with");
  option(app, scales, "--calibration", a.calibration, "take the scales from this file instead");
  option(app, scales, "--save-calibration", a.save_calibration, "write the scales to this file");
  app.add_flag(
         "--equalize", a.equalize,
         "modes static and qat: give the channels between two layers like ranges in both. Scales of weights are by channel "
         "already, so that it helps these little; what gains is the one scale of an activation's channels")
      ->group(scales);
  app.add_flag(
         "--bias-correction", a.bias_correction,
         "modes static and qat: add to each layer's bias what rounding changes its output by on average over the calibration "
         "images; takes one more run over them for each layer")
      ->group(scales);
  option(app, scales, "--weights", a.weights, "mode weight-only: f16 or s8")->check(CLI::IsMember({"f16", "s8"}));
  const char* layers = "Sensitivity of layers (modes static and qat)";
  app.add_flag("--sensitivity", a.sensitivity,
               "rank the layers by what int8 costs each alone: the noise in what the detector answers, and for the worst mAP")
      ->group(layers);
  option(app, layers, "--max-drop", a.max_drop,
         "keep layers in float until the static int8 detector's mAP is within this of the float one's: those first that lose "
         "more than chance explains, then those with most noise, for the fewest multiply-adds left in float, measured at each "
         "step; negative: do not");
  option(app, layers, "--sensitivity-images", a.sensitivity_images,
         "at most so many images that mAP is measured with for this: the run's validation images, or without any those of the "
         "training set that calibration did not see; never the test set's");
  option(app, layers, "--sensitivity-layers", a.sensitivity_layers, "how many of the noisiest layers mAP is measured for");
  const char* training = "Training (mode qat)";
  option(app, training, "--run", a.run, "folder for logs; the output's name without extension by default");
  app.add_flag("--resume", a.resume, "go on with the training in the run folder that was stopped; the other options as before")
      ->group(training);
  option(app, training, "--epochs", a.epochs, "passes over the training images; a tenth of the float training's by default");
  option(app, training, "--lr", a.lr, "learning rate; a tenth of the float training's by default");
  app.add_flag("--learned", a.learned, "scales of activations and weights are trained too (LSQ)")->group(training);
  option(app, training, "--freeze-after", a.freeze_after,
         "steps after which observers stand still; negative: half of the training's");
  option(app, training, "--log-every", a.log_every, "steps between lines of the log; by default the run's");
  app.footer("Example: qat_frcnn --checkpoint runs/bccd/best.safetensors --mode static --bias-correction");
  const int status = parse_command_line(app, argc, argv);
  if (a.observer.empty()) a.observer = a.mode == "static" ? "mse" : "moving-average";
  return status;
}

inline quant::RangeChoice range_choice(const std::string& text) {
  SHRIKE_CHECK(text.find('_') == std::string::npos, "observer '", text,
               "': expected minmax, moving-average, percentile, entropy or mse");
  if (text == "minmax") return quant::RangeChoice::min_max;
  if (text == "moving-average") return quant::RangeChoice::moving_average;
  return quant::parse_range_choice(text);
}

}  // namespace shrike::apps
