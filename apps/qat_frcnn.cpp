// qat_frcnn: quantizes a trained Faster R-CNN, trains it further if asked to, and measures it beside the float one.
#include <filesystem>
#include <iostream>

#include "apps/qat_checkpoint.hpp"
#include "apps/quantize_arguments.hpp"
#include "apps/quantize_images.hpp"
#include "apps/quantized.hpp"
#include "apps/sensitivity.hpp"
#include "apps/trainer.hpp"
#include "models/bias_correction.hpp"
#include "shrike/io/file.hpp"

namespace shrike::apps {
namespace {

namespace fs = std::filesystem;

// The settings of the further training: the checkpoint's, gentler.
TrainConfig settings(const TrainConfig& trained, const QuantizeArguments& a) {
  TrainConfig config = trained;
  if (!a.data.empty()) config.data = a.data;
  if (!a.years.empty()) config.years = a.years, config.test_years.clear();
  config.drop_bad_boxes |= a.drop_bad_boxes;
  config.device = a.device;
  config.threads = a.threads;
  if (a.workers >= 0) config.workers = a.workers;
  if (a.log_every > 0) config.log_every = a.log_every;
  config.epochs = a.epochs >= 0 ? a.epochs : std::max(1, (trained.epochs + 5) / 10);
  config.lr = a.lr >= 0 ? a.lr : trained.lr / 10;
  config.warmup = trained.warmup / 10;
  config.max_steps = 0;
  config.eval_every = 0;
  config.ema = 0;  // scales that are learned or follow ranges belong to the weights of their step
  return config;
}

// Throws Stopped.
Evaluation evaluate(models::FasterRcnn& model, const Dataset& data, const TrainConfig& config, Device device,
                    const char* title) {
  const Evaluation result = measure(model, data, config, device, title);
  std::printf("\n%s\n%s", title, result.table.c_str());
  std::fflush(stdout);
  return result;
}

// Bytes of each part, before and after.
void print_sizes(const std::array<std::size_t, 3>& before, const models::Parts<Graph>& parts, const std::string& path) {
  std::printf("\n%-12s %14s %14s %7s\n", "part", "float bytes", "bytes", "ratio");
  std::size_t all_before = 0, all_after = 0;
  const auto row = [](const char* name, std::size_t a, std::size_t b) {
    std::printf("%-12s %14zu %14zu %7.3f\n", name, a, b, static_cast<double>(b) / static_cast<double>(a));
  };
  for (std::size_t i = 0; i < 3; ++i) {
    const std::size_t after = nn::bytes_of(*parts[i]);
    row(models::part_names[i], before[i], after);
    all_before += before[i];
    all_after += after;
  }
  row("all", all_before, all_after);
  std::printf("%-12s %14s %14zu\n", "file", "", static_cast<std::size_t>(fs::file_size(path)));
}

// Calibrates from images or a file. Throws Stopped.
void find_scales(const models::PreparedDetector& prepared, const Dataset& data, const TrainConfig& config, Device device,
                 const QuantizeArguments& a) {
  if (!a.calibration.empty()) {
    models::take_calibration(load_safetensors(a.calibration), prepared);
    std::printf("\nscales from %s\n", a.calibration.c_str());
  } else {
    const auto constant = models::calibrate(prepared, images_of(data, config, device));
    std::printf("\ncalibrated with %zu images, observer %s\n", data.samples.size(), a.observer.c_str());
    for (const std::string& name : constant) std::printf("warning: %s was constant during calibration\n", name.c_str());
  }
  std::fflush(stdout);
  if (!a.save_calibration.empty()) save_safetensors(a.save_calibration, models::calibration_file(prepared));
}

std::string training_checkpoint(const TrainConfig& config) { return config.run + "/last.safetensors"; }

// Trains with fake-quantize, from the beginning or from where it was stopped. Throws Stopped.
void train_on(const models::PreparedDetector& prepared, const quant::PrepareOptions& options, const Dataset& data,
              const TrainConfig& config, Device device, bool resume) {
  nn::Sgd optimizer(sgd_parameters(*prepared.model, config),
                    nn::SgdOptions{static_cast<float>(config.momentum), static_cast<float>(config.clip_norm)});
  const auto chosen = qat_settings(config, options);
  const std::string path = training_checkpoint(config);
  Progress progress;
  if (resume) progress = load_qat_checkpoint(load_safetensors(path), prepared, optimizer, chosen);
  std::printf("\ntraining %d epoch(s) at learning rate %g%s; run folder %s\n", config.epochs, config.lr,
              resume ? (", from step " + std::to_string(progress.step)).c_str() : "", config.run.c_str());
  const std::string scales = options.learned
                                 ? "scales of activations and weights are learned"
                                 : message("ranges of activations stand still from batch ", options.freeze_after, " on");
  std::printf("batch norm is folded into the convolutions%s; %s\n", config.model.dropout > 0 ? " and dropout left out" : "",
              scales.c_str());
  std::fflush(stdout);
  const Dataset no_tests;
  Trainer trainer(config, device, *prepared.model, optimizer, data, no_tests, progress);
  trainer.save = [&] { save_qat_checkpoint(path, prepared, optimizer, chosen, progress); };
  if (trainer.run(resume)) return;
  std::fprintf(stderr, "stopped after step %lld of %lld; the same command with --resume goes on\n",
               static_cast<long long>(progress.step), static_cast<long long>(trainer.total_steps()));
  throw Stopped();
}

// The run folder, with or without a training that was stopped, as asked for.
void open_run(const TrainConfig& config, bool resume) {
  const bool there = fs::exists(training_checkpoint(config));
  SHRIKE_CHECK(resume || !there, config.run,
               ": holds a training that was stopped: --resume goes on with it, another --run leaves it alone");
  SHRIKE_CHECK(!resume || there, config.run, ": holds no training to resume: last.safetensors is missing");
  std::error_code error;
  fs::create_directories(config.run, error);
  SHRIKE_CHECK(!error, config.run, ": cannot make this folder: ", error.message());
}

// To be looked at layer by layer.
bool by_layer(const QuantizeArguments& a) { return a.sensitivity || a.max_drop >= 0; }

// Prepared, with scales, corrected biases and the layers in float that the arguments ask for; these are added to `options`.
// Throws Stopped.
models::PreparedDetector calibrated(const models::FusedDetector& fused, quant::PrepareOptions& options, const DataSets& sets,
                                    const TrainConfig& config, Device device, const QuantizeArguments& a) {
  models::PreparedDetector prepared = models::prepare_detector(fused, options);
  const Dataset some = some_images(sets.train, config, 0, a.calibration_images);
  find_scales(prepared, some, config, device, a);
  const auto images = [&] { return images_of(some, config, device); };
  if (by_layer(a)) {
    const bool has_val = !sets.val.samples.empty();
    const Dataset others = has_val ? some_images(sets.val, config, 0, a.sensitivity_images)
                                   : some_images(sets.train, config, a.calibration_images, a.sensitivity_images);
    SHRIKE_CHECK(!others.samples.empty(), "no images to measure the sensitivity of layers with: ", sets.train.samples.size(),
                 " in the training set, of which --calibration-images ", a.calibration_images, " are for calibration, ",
                 sets.val.samples.size(), " to validate with, and --sensitivity-images ", a.sensitivity_images);
    if (!has_val) {
      std::printf(
          "\nthe run had no validation images (--val-split, --val-fraction): layers are chosen on training images that "
          "calibration did not see, which the detector knows\n");
    }
    const LayerSearch search{fused,
                             prepared,
                             options,
                             config,
                             device,
                             others,
                             has_val ? "validation" : "training",
                             a.bias_correction ? images : NewImages()};
    const Ranking ranking =
        search.measure_layers(images_of(some_images(some, config, 0, sqnr_images), config, device), a.sensitivity_layers);
    if (a.max_drop >= 0) {
      const auto kept = search.choose(ranking, a.max_drop);
      prepared = models::keep_more_float(fused, prepared, options, kept);
      options.keep_float.insert(options.keep_float.end(), kept.begin(), kept.end());
    }
  }
  if (a.bias_correction) {
    const auto report = models::correct_biases(fused, prepared, images);
    std::printf("\nbias correction\n%s", report.to_string().c_str());
    std::fflush(stdout);
  }
  return prepared;
}

// Prepared as the training in the run folder was, whose checkpoint has all the rest.
models::PreparedDetector resumed(const models::FusedDetector& fused, quant::PrepareOptions& options, const TrainConfig& config,
                                 const QuantizeArguments& a) {
  const TensorFile file = load_safetensors(training_checkpoint(config));
  const auto kept = file.metadata.find("quantize.keep-float");
  if (a.max_drop >= 0 && kept != file.metadata.end()) TextReader::parse(kept->second, options.keep_float);
  return models::prepare_detector(fused, options);
}

int quantize(const QuantizeArguments& a) {
  use_threads(a.threads);
  const Device device = use(a.device);
  catch_stop_signals();
  const TensorFile file = load_safetensors(a.checkpoint);
  SHRIKE_CHECK(!is_quantized(file), a.checkpoint, ": is quantized already: expected a checkpoint of train_frcnn");
  const LoadedDetector loaded = load_detector(file);
  TrainConfig config = settings(loaded.config, a);
  const std::string output =
      !a.output.empty() ? a.output : fs::path(a.checkpoint).replace_extension(a.mode + ".safetensors").string();
  config.run = !a.run.empty() ? a.run : fs::path(output).replace_extension("").string();
  SHRIKE_CHECK(
      a.mode == "static" || a.mode == "qat" || !(a.equalize || a.bias_correction || a.sensitivity || a.max_drop >= 0), "mode ",
      a.mode,
      " finds no scales from images: --equalize, --bias-correction, --sensitivity and --max-drop are for static and qat");
  quant::PrepareOptions options;
  options.keep_float = a.keep_float;
  options.first_layer_float = a.first_float;
  options.observer.choice = range_choice(a.observer);
  options.observer.percentile = a.percentile;
  options.observer.momentum = a.observer_momentum;
  options.weights.choice = range_choice(a.weight_observer);
  options.weights.percentile = a.percentile;
  SHRIKE_CHECK(a.mode == "static" || a.mode == "dynamic" || a.weight_observer == "minmax", "--weight-observer ",
               a.weight_observer, " is for --mode static and dynamic");
  SHRIKE_CHECK(a.mode == "weight-only" || a.weights == "s8", "--weights ", a.weights, " is for --mode weight-only");
  options.learned = a.learned && a.mode == "qat";
  options.freeze_after = a.freeze_after;
  options.input_reach = models::normalization(config.model).reach();
  nn::to(*loaded.model, device);

  const bool trains = a.mode == "qat" && config.epochs > 0;
  SHRIKE_CHECK(trains || !a.resume, "--resume goes on with a training: expected --mode qat and epochs");
  if (trains) open_run(config, a.resume);
  const bool needs_images =
      a.mode == "qat" || (a.mode == "static" && (a.calibration.empty() || a.bias_correction || by_layer(a)));
  DataSets sets;
  if (needs_images || a.evaluate) sets = open_data(config, a.split);
  if (trains && a.freeze_after < 0) options.freeze_after = config.epochs * batches_per_epoch(sets.train, config) / 2;
  Evaluation before;
  if (a.evaluate) before = evaluate(*loaded.model, sets.test, config, device, "float");

  models::FusedDetector fused = models::fuse_detector(*loaded.model);
  std::array<std::size_t, 3> float_bytes{};
  for (std::size_t i = 0; i < 3; ++i) {
    float_bytes[i] = nn::bytes_of(*fused.parts[i]);
    std::printf("\nfusion of %s\n%s", models::part_names[i], fused.reports[i].to_string().c_str());
  }
  models::ConvertedDetector converted;
  if (a.mode == "dynamic") {
    converted = models::dynamic_detector(fused, {"", a.keep_float, a.first_float, true, false, options.weights});
  } else if (a.mode == "weight-only") {
    converted =
        models::quantize_weights(fused, a.weights == "f16" ? quant::WeightType::f16 : quant::WeightType::s8, a.keep_float);
  } else if (a.mode == "half") {
    converted = models::half_detector(fused, a.keep_float);
  } else {
    if (a.equalize) {
      const auto report = models::equalize_detector(fused);
      std::printf("\nequalisation, %d sweep(s)\n%s", report.sweeps, report.to_string().c_str());
    }
    const models::PreparedDetector prepared =
        a.resume ? resumed(fused, options, config, a) : calibrated(fused, options, sets, config, device, a);
    if (trains) train_on(prepared, options, sets.train, config, device, a.resume);
    converted = models::convert_detector(prepared);
  }
  std::printf("\nlayers\n%s", converted.report.to_string().c_str());
  const TensorFile result = quantized_file(converted.parts, loaded.config, a.mode, fused.weights);
  save_safetensors(output, result);
  if (trains) fs::remove(training_checkpoint(config));  // its end is in the output
  print_sizes(float_bytes, converted.parts, output);
  std::printf("%s written\n", output.c_str());
  std::fflush(stdout);

  if (a.evaluate) {
    const LoadedDetector quantized = load_detector(load_safetensors(output));
    nn::to(*quantized.model, device);
    const Evaluation after = evaluate(*quantized.model, sets.test, config, device, a.mode.c_str());
    std::printf("\nmAP (VOC07) %.4f in float, %.4f %s: %+.4f\n", before.map, after.map, a.mode.c_str(), after.map - before.map);
  }
  return 0;
}

}  // namespace
}  // namespace shrike::apps

int main(int argc, char** argv) {
  using namespace shrike::apps;
  return guarded_main("qat_frcnn", [&] {
    QuantizeArguments arguments;
    if (const int status = parse(argc, argv, arguments); status >= 0) return status;
    try {
      return quantize(arguments);
    } catch (const Stopped&) {
      std::fprintf(stderr, "stopped\n");
      return 128 + stop_signal;
    }
  });
}
