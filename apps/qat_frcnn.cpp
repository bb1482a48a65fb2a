// qat_frcnn: quantizes a trained Faster R-CNN, trains it further if asked to, and measures it beside the float one.
#include <filesystem>
#include <iostream>

#include "apps/quantized.hpp"
#include "apps/trainer.hpp"
#include "shrike/core/parallel.hpp"
#include "shrike/io/file.hpp"

namespace shrike::apps {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string checkpoint, mode = "static", run, output;
  // What the checkpoint's settings are overridden with; empty and negative: they stay.
  std::string data, years, split;
  DeviceSettings device;
  int threads = 0, workers = -1;
  bool drop_bad_boxes = false, evaluate = true;
  // Quantization.
  std::string observer = "moving-average", weights = "s8", calibration, save_calibration;
  double percentile = 0.9999, observer_momentum = 0.01;
  std::vector<std::string> keep_float;
  bool first_float = false;
  int calibration_images = 128;
  // Training.
  int epochs = -1, freeze_after = -1, log_every = -1;
  double lr = -1;
  bool learned = false;
};

int parse(int argc, char** argv, Arguments& a) {
  CLI::App app(
      "Quantizes a trained Faster R-CNN: int8 by calibration (static) or by training on (qat), or the weights alone "
      "(dynamic).",
      "qat_frcnn");
  const auto option = [&](CLI::App& to, const char* group, const char* name, auto& value, const char* help) {
    return to.add_option(name, value, help)->group(group)->capture_default_str();
  };
  app.add_option("--checkpoint", a.checkpoint, "checkpoint of train_frcnn, such as runs/shapes/best.safetensors")->required();
  option(app, "Options", "--mode", a.mode, "dynamic, static or qat")->check(CLI::IsMember({"dynamic", "static", "qat"}));
  option(app, "Options", "-o,--output", a.output, "the quantized file; CHECKPOINT's name with MODE in it by default");
  option(app, "Options", "--data", a.data, "VOC-format folder; by default the one it was trained on");
  option(app, "Options", "--years", a.years, "with a VOCdevkit folder: the years to join, as in 2007+2012");
  option(app, "Options", "--split", a.split, "image set to evaluate on; by default the run's test set");
  app.add_flag("--drop-bad-boxes", a.drop_bad_boxes, "drop and count boxes without area; otherwise they are an error");
  app.add_flag("--evaluate,!--no-evaluate", a.evaluate, "measure the float and the quantized detector")->capture_default_str();
  OptionAdder adder{app, "Device"};
  a.device.visit(adder);
  option(app, "Options", "--threads", a.threads, "threads for computing; 0 means one per core");
  option(app, "Options", "--workers", a.workers, "threads that load images; by default the run's");
  const char* scales = "Quantization";
  option(app, scales, "--observer", a.observer, "how ranges are chosen: minmax, moving-average, percentile, entropy or mse");
  option(app, scales, "--percentile", a.percentile, "observer percentile: the share of absolute values within the range");
  option(app, scales, "--observer-momentum", a.observer_momentum, "observer moving-average: the newest batch's share");
  option(app, scales, "--keep-float", a.keep_float, "layers to keep in float, as globs: roi_heads.box_head.*")
      ->delimiter(',')
      ->expected(1, 1000);
  app.add_flag("--first-float", a.first_float, "keep the first layer in float")->group(scales);
  option(app, scales, "--calibration-images", a.calibration_images, "images of the training set that scales are found with");
  option(app, scales, "--calibration", a.calibration, "take the scales from this file instead");
  option(app, scales, "--save-calibration", a.save_calibration, "write the scales to this file");
  option(app, scales, "--weights", a.weights, "mode dynamic: f16 or s8")->check(CLI::IsMember({"f16", "s8"}));
  const char* training = "Training (mode qat)";
  option(app, training, "--run", a.run, "folder for logs; the output's name without extension by default");
  option(app, training, "--epochs", a.epochs, "passes over the training images; a tenth of the float training's by default");
  option(app, training, "--lr", a.lr, "learning rate; a tenth of the float training's by default");
  app.add_flag("--learned", a.learned, "scales of activations are trained too (LSQ)")->group(training);
  option(app, training, "--freeze-after", a.freeze_after, "steps after which observers stand still; negative: never");
  option(app, training, "--log-every", a.log_every, "steps between lines of the log; by default the run's");
  app.footer("Example: qat_frcnn --checkpoint runs/bccd/best.safetensors --mode static --observer mse");
  return parse_command_line(app, argc, argv);
}

quant::RangeChoice range_choice(const std::string& text) {
  SHRIKE_CHECK(text.find('_') == std::string::npos, "observer '", text,
               "': expected minmax, moving-average, percentile, entropy or mse");
  if (text == "minmax") return quant::RangeChoice::min_max;
  if (text == "moving-average") return quant::RangeChoice::moving_average;
  return quant::parse_range_choice(text);
}

// The settings of the further training: the checkpoint's, gentler.
TrainConfig settings(const TrainConfig& trained, const Arguments& a) {
  TrainConfig config = trained;
  if (!a.data.empty()) config.data = a.data;
  if (!a.years.empty()) config.years = a.years;
  if (!a.split.empty()) config.test_split = a.split, config.split.clear();
  config.drop_bad_boxes |= a.drop_bad_boxes;
  config.device = a.device;
  config.threads = a.threads;
  if (a.workers >= 0) config.workers = a.workers;
  if (a.log_every > 0) config.log_every = a.log_every;
  config.epochs = a.epochs >= 0 ? a.epochs : std::max(1, (trained.epochs + 5) / 10);
  config.lr = a.lr >= 0 ? a.lr : trained.lr / 10;
  config.warmup = trained.warmup / 10;
  config.eval_every = 0;
  return config;
}

// The first `count` images of the training set in an order of its own, through the pipeline of inference.
models::NextImages calibration_images(const Dataset& data, const TrainConfig& config, Device device, int count) {
  Dataset some = data;
  Random random(config.seed, RandomStream::shuffle, ~std::uint64_t{0});
  random.shuffle(some.samples);
  some.samples.resize(std::min(some.samples.size(), static_cast<std::size_t>(std::max(count, 0))));
  if (some.samples.empty()) return [] { return std::nullopt; };
  const auto loader = std::make_shared<Loader>(some, loader_options(config, false));
  loader->start(0, 0);
  return [loader, device]() -> std::optional<std::pair<Tensor, std::vector<ImageSize>>> {
    const auto batch = loader->next();
    if (!batch) return std::nullopt;
    std::vector<ImageSize> sizes;
    for (const auto& item : batch->items) sizes.push_back({item.height, item.width});
    return std::pair{batch->images.to(device), sizes};
  };
}

Evaluation evaluate(models::FasterRcnn& model, const Dataset& data, const TrainConfig& config, Device device,
                    const char* title) {
  ProgressLine line(100);
  Evaluation result =
      evaluate_detector(model, data, loader_options(config, false), device,
                        [&](std::int64_t done, std::int64_t all) { line.show(message(title, ": image ", done, " of ", all)); });
  line.clear();
  if (!result.stopped) std::printf("\n%s\n%s", title, result.table.c_str());
  std::fflush(stdout);
  return result;
}

std::size_t bytes_of(nn::Module& module) {
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : nn::named_state(module)) bytes += tensor.bytes();
  return bytes;
}

// Bytes of each part, before and after.
void print_sizes(const std::array<std::size_t, 3>& before, const models::Parts<Graph>& parts, const std::string& path) {
  std::printf("\n%-12s %14s %14s %7s\n", "part", "float bytes", "bytes", "ratio");
  std::size_t all_before = 0, all_after = 0;
  const auto row = [](const char* name, std::size_t a, std::size_t b) {
    std::printf("%-12s %14zu %14zu %7.3f\n", name, a, b, static_cast<double>(b) / static_cast<double>(a));
  };
  for (std::size_t i = 0; i < 3; ++i) {
    const std::size_t after = bytes_of(*parts[i]);
    row(models::part_names[i], before[i], after);
    all_before += before[i];
    all_after += after;
  }
  row("all", all_before, all_after);
  std::printf("%-12s %14s %14zu\n", "file", "", static_cast<std::size_t>(fs::file_size(path)));
}

// Calibrates from images or a file; false when a signal stopped it.
bool find_scales(const models::PreparedDetector& prepared, const Dataset& data, const TrainConfig& config, Device device,
                 const Arguments& a) {
  if (!a.calibration.empty()) {
    models::take_calibration(load_safetensors(a.calibration), prepared);
    std::printf("\nscales from %s\n", a.calibration.c_str());
  } else {
    const auto constant = models::calibrate(prepared, calibration_images(data, config, device, a.calibration_images));
    if (stop_signal != 0) return false;
    std::printf("\ncalibrated with %zu images, observer %s\n",
                std::min(data.samples.size(), static_cast<std::size_t>(a.calibration_images)), a.observer.c_str());
    for (const std::string& name : constant) std::printf("warning: %s was constant during calibration\n", name.c_str());
  }
  std::fflush(stdout);
  if (!a.save_calibration.empty()) save_safetensors(a.save_calibration, models::calibration_file(prepared));
  return true;
}

// Trains with fake-quantize; false when a signal stopped it.
bool train_on(const models::PreparedDetector& prepared, const Dataset& data, const TrainConfig& config, Device device) {
  std::error_code error;
  fs::create_directories(config.run, error);
  SHRIKE_CHECK(!error, config.run, ": cannot make this folder: ", error.message());
  nn::Sgd optimizer(sgd_parameters(*prepared.model, config),
                    nn::SgdOptions{static_cast<float>(config.momentum), static_cast<float>(config.clip_norm)});
  std::printf("\ntraining %d epoch(s) at learning rate %g; run folder %s\n", config.epochs, config.lr, config.run.c_str());
  std::fflush(stdout);
  Progress progress;
  const Dataset no_tests;
  return Trainer(config, device, *prepared.model, optimizer, data, no_tests, progress).run(false);
}

int quantize(const Arguments& a) {
  set_num_threads(a.threads);
  const Device device = use(a.device);
  catch_stop_signals();
  const TensorFile file = load_safetensors(a.checkpoint);
  SHRIKE_CHECK(!is_quantized(file), a.checkpoint, ": is quantized already: expected a checkpoint of train_frcnn");
  const LoadedDetector loaded = load_detector(file);
  TrainConfig config = settings(loaded.config, a);
  const std::string output =
      !a.output.empty() ? a.output : fs::path(a.checkpoint).replace_extension(a.mode + ".safetensors").string();
  config.run = !a.run.empty() ? a.run : fs::path(output).replace_extension("").string();
  quant::PrepareOptions options;
  options.keep_float = a.keep_float;
  options.first_layer_float = a.first_float;
  options.observer.choice = range_choice(a.observer);
  options.observer.percentile = a.percentile;
  options.observer.momentum = a.observer_momentum;
  options.learned = a.learned && a.mode == "qat";
  options.freeze_after = a.freeze_after;
  nn::to(*loaded.model, device);

  const bool needs_images = a.mode == "qat" || (a.mode == "static" && a.calibration.empty());
  Dataset train_set, test_set;
  if (needs_images || a.evaluate) std::tie(train_set, test_set) = open_data(config);
  Evaluation before;
  if (a.evaluate) {
    before = evaluate(*loaded.model, test_set, config, device, "float");
    if (before.stopped) return 128 + stop_signal;
  }

  const models::FusedDetector fused = models::fuse_detector(*loaded.model);
  std::array<std::size_t, 3> float_bytes{};
  for (std::size_t i = 0; i < 3; ++i) {
    float_bytes[i] = bytes_of(*fused.parts[i]);
    std::printf("\nfusion of %s\n%s", models::part_names[i], fused.reports[i].to_string().c_str());
  }
  models::ConvertedDetector converted;
  if (a.mode == "dynamic") {
    converted =
        models::quantize_weights(fused, a.weights == "f16" ? quant::WeightType::f16 : quant::WeightType::s8, a.keep_float);
  } else {
    const models::PreparedDetector prepared = models::prepare_detector(fused, options);
    if (!find_scales(prepared, train_set, config, device, a)) return 128 + stop_signal;
    if (a.mode == "qat" && config.epochs > 0 && !train_on(prepared, train_set, config, device)) {
      std::fprintf(stderr, "stopped: nothing was written\n");
      return 128 + stop_signal;
    }
    converted = models::convert_detector(prepared);
  }
  std::printf("\nlayers\n%s", converted.report.to_string().c_str());
  const TensorFile result = quantized_file(converted.parts, loaded.config, a.mode, fused.weights);
  save_safetensors(output, result);
  print_sizes(float_bytes, converted.parts, output);
  std::printf("%s written\n", output.c_str());
  std::fflush(stdout);

  if (a.evaluate) {
    const LoadedDetector quantized = load_detector(load_safetensors(output));
    nn::to(*quantized.model, device);
    const Evaluation after = evaluate(*quantized.model, test_set, config, device, a.mode.c_str());
    if (after.stopped) return 128 + stop_signal;
    std::printf("\nmAP (VOC07) %.4f in float, %.4f %s: %+.4f\n", before.map, after.map, a.mode.c_str(), after.map - before.map);
  }
  return 0;
}

}  // namespace
}  // namespace shrike::apps

int main(int argc, char** argv) {
  using namespace shrike::apps;
  return guarded_main("qat_frcnn", [&] {
    Arguments arguments;
    if (const int status = parse(argc, argv, arguments); status >= 0) return status;
    return quantize(arguments);
  });
}
