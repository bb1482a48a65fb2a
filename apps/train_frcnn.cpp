// train_frcnn: trains a Faster R-CNN, evaluates it after each epoch, and can be stopped and resumed at any moment.
#include <filesystem>
#include <iostream>
#include <optional>

#include "apps/anchor_fit.hpp"
#include "apps/moved.hpp"
#include "apps/presets.hpp"
#include "apps/quantized.hpp"
#include "apps/trainer.hpp"
#include "shrike/io/file.hpp"

namespace shrike::apps {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  TrainConfig config;
  bool resume = false;
  std::string split;  // the ratio's name up to version 0.1
};

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--preset", arguments.config.preset,
                 "where all other settings start from: shapes; resnet18, resnet34, resnet50, resnet101 or vgg16, for your own "
                 "images and weights of "
                 "ImageNet; bccd, bccd_resnet18, voc07_vgg16 or voc07_vgg16_best, for these data sets")
      ->capture_default_str();
  app.add_flag("--resume", arguments.resume, "go on with the run in the --run folder, with its settings")->configurable(false);
  app.add_option("--split", arguments.split)->group("");
  app.set_config("--config", "", "read settings from this TOML file; the command line wins");
  OptionAdder train{app, "Training"};
  arguments.config.visit(train);
  app.get_option("--threads")->check(CLI::NonNegativeNumber);
  OptionAdder model{app, "Model"};
  arguments.config.model.visit(model);
}

std::string last_checkpoint(const std::string& run) { return run + "/last.safetensors"; }

// The command line is read twice: first for what the settings start from, then for the settings.
int parse(int argc, char** argv, Arguments& arguments) {
  {
    Arguments first;
    CLI::App app("", "train_frcnn");
    add_options(app, first);
    app.allow_extras();
    app.set_help_flag();
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError&) {
      // The second reading reports it.
    }
    arguments.config = preset(first.config.preset);
    if (first.resume) {
      SHRIKE_CHECK(!first.config.run.empty(), "--resume needs --run FOLDER");
      const TensorFile file = load_safetensors(last_checkpoint(first.config.run));
      note_old_grid(file);
      arguments.config = checkpoint_config(file);
    }
  }
  CLI::App app("Trains a Faster R-CNN. Without options: a small one on the built-in shapes, in some minutes on a CPU.",
               "train_frcnn");
  add_options(app, arguments);
  app.footer("Example: train_frcnn --preset voc07_vgg16_best --data VOCdevkit --weights vgg16.safetensors --run runs/voc07");
  const int status = parse_command_line(app, argc, argv);
  SHRIKE_CHECK(status >= 0 || arguments.split.empty(), "--split ", arguments.split,
               ": a ratio is given by --resplit now, as in --resplit 9:1, and image sets by --train-split, --val-split and "
               "--test-split");
  if (arguments.config.run.empty()) arguments.config.run = "runs/" + arguments.config.preset;
  return status;
}

// Never overwrites a run that is there.
void open_run(const std::string& run, bool resume) {
  const bool there = fs::exists(last_checkpoint(run));
  SHRIKE_CHECK(resume || !there, run, ": holds a run already: --resume goes on with it, another --run leaves it alone");
  SHRIKE_CHECK(!resume || there, run, ": holds no run to resume: last.safetensors is missing");
  std::error_code error;
  fs::create_directories(run, error);
  SHRIKE_CHECK(!error, run, ": cannot make this folder: ", error.message());
}

// The settings as they turned out, for reading and for --config.
void write_config(TrainConfig config) {
  std::string text = "preset = " + TomlWriter::print(config.preset) + "\n\n";
  TomlWriter writer{text};
  config.visit(writer);
  text += "\n";
  config.model.visit(writer);
  write_file_atomically(config.run + "/config.toml", text);
}

// Stages that are not trained must come from somewhere.
void check_frozen(const TrainConfig& config) {
  SHRIKE_CHECK(config.model.frozen_stages == 0 || !config.weights.empty(), "--frozen-stages ", config.model.frozen_stages,
               " without --weights: stages that are not trained would stay at random values; give --weights FILE, or "
               "--frozen-stages 0 to train all");
}

std::optional<TensorFile> read_weights(const TrainConfig& config) {
  return config.weights.empty() ? std::nullopt : std::optional(load_safetensors(config.weights));
}

// How far each part has come, in one line.
void print_distances(const TrainConfig& config, models::FasterRcnn& model) {
  try {
    std::string text, loaded;
    const auto weights = read_weights(config);
    const auto start = start_of(config, weights ? &*weights : nullptr, loaded);
    for (const auto& [part, distance] : distances(*start, model)) {
      char value[32];
      std::snprintf(value, sizeof value, "%.2g", distance);
      text += (text.empty() ? "" : ", ") + part + " " + value;
    }
    std::printf("moved from the start, |w - w0| / |w0|: %s\n", text.c_str());
  } catch (const Error& error) {  // the run is done; the file of weights may be gone
    std::printf("how far the weights moved is not known: %s\n", error.what());
  }
}

void print_chosen_on_test() {
  std::printf(
      "the best checkpoint is chosen on the test set, so that its figure there is optimistic: --val-fraction 0.1 or "
      "--val-split NAME choose it on other images\n");
}

// Measures best.safetensors and last.safetensors on the test images, once they are all there will be: the tables, and test.json
// in the run folder. False when a signal stopped it.
bool test(const TrainConfig& config, const Dataset& images, Device device) {
  JsonWriter json;
  json.begin_object();
  for (const char* name : {"best", "last"}) {
    const std::string path = config.run + "/" + name + ".safetensors";
    if (!fs::exists(path)) continue;  // nothing was evaluated
    const TensorFile file = load_safetensors(path);
    const LoadedDetector detector = load_detector(file);
    nn::to(*detector.model, device);
    ProgressLine line(100);
    const Evaluation result =
        evaluate_detector(*detector.model, images, config, device, [&](std::int64_t done, std::int64_t all) {
          line.show(message("testing ", name, ".safetensors: image ", done, " of ", all));
        });
    line.clear();
    if (result.stopped) return false;
    const std::int64_t step = checkpoint_progress(file).step;
    std::printf("\ntest set, %s.safetensors (step %lld)\n%s", name, static_cast<long long>(step), result.table.c_str());
    std::fflush(stdout);
    json.key(name).begin_object().field("step", step);
    for (const auto& [key, value] : result.values) json.field(key, value);
    json.end_object();
  }
  write_file_atomically(config.run + "/test.json", json.end_object().str() + "\n");
  return true;
}

int train(Arguments arguments) {
  TrainConfig& config = arguments.config;
  const bool resume = arguments.resume;
  use_threads(config.threads);
  const Device device = use(config.device);
  SHRIKE_CHECK(config.epochs > 0 && config.batch > 0 && config.accumulate > 0, "epochs ", config.epochs, ", batch ",
               config.batch, " and accumulate ", config.accumulate, ": expected positive numbers");
  SHRIKE_CHECK(config.max_steps >= 0, "max-steps ", config.max_steps, ": expected 0 or more");
  open_run(config.run, resume);
  check_frozen(config);
  auto weights = resume ? std::nullopt : read_weights(config);
  if (weights) follow_weights(*weights, config.model);
  if (!resume) settle_norm(weights.has_value(), config.model);
  const DataSets sets = open_data(config);
  const bool has_val = !sets.val.samples.empty();
  if (!has_val && config.eval_every > 0) print_chosen_on_test();
  if (!resume) fit_anchors(sets.train, config);
  write_config(config);
  std::string loaded;
  const auto model = resume ? models::make_detector(config.model) : start_of(config, weights ? &*weights : nullptr, loaded);
  weights.reset();
  if (!loaded.empty()) std::printf("%s\n", loaded.c_str());
  if (!loaded.empty() && config.model.input == "caffe") {
    std::printf("--input caffe: images are BGR, 0 to 255 minus the mean; torchvision's weights want --input imagenet\n");
  }
  nn::to(*model, device);
  nn::Sgd optimizer(sgd_parameters(*model, config),
                    nn::SgdOptions{static_cast<float>(config.momentum), static_cast<float>(config.clip_norm)});
  std::optional<nn::Ema> ema;
  if (config.ema != 0) ema.emplace(*model, config.ema);
  nn::Ema* const average = ema ? &*ema : nullptr;
  Progress progress;
  if (resume) {
    const TensorFile file = load_safetensors(last_checkpoint(config.run));
    load_checkpoint(file, *model, &optimizer, average);
    progress = checkpoint_progress(file);
  }
  std::int64_t parameters = 0;
  for (const auto& [name, tensor] : nn::named_parameters(*model)) parameters += tensor.numel();
  std::printf("%s, %.1f million parameters, %d thread(s); run folder %s\n", config.model.backbone.c_str(),
              static_cast<double>(parameters) * 1e-6, num_threads(), config.run.c_str());

  Trainer trainer(config, device, *model, optimizer, sets.train, has_val ? sets.val : sets.test, progress);
  trainer.ema = average;
  trainer.save = [&] { save_checkpoint(last_checkpoint(config.run), *model, &optimizer, average, config, progress); };
  trainer.save_best = [&] { save_checkpoint(config.run + "/best.safetensors", *model, nullptr, nullptr, config, progress); };
  if (progress.step > 0) {
    std::printf("resuming after step %lld of %lld\n", static_cast<long long>(progress.step),
                static_cast<long long>(trainer.total_steps()));
  }
  std::fflush(stdout);
  bool done = trainer.run(resume);
  if (done) {
    print_distances(config, *model);
    if (has_val) done = test(config, sets.test, device);
  }
  if (done) return 0;
  std::fprintf(stderr, "stopped after step %lld; train_frcnn --resume --run %s goes on\n",
               static_cast<long long>(progress.step), config.run.c_str());
  return 128 + stop_signal;
}

}  // namespace
}  // namespace shrike::apps

int main(int argc, char** argv) {
  using namespace shrike::apps;
  return guarded_main("train_frcnn", [&] {
    Arguments arguments;
    if (const int status = parse(argc, argv, arguments); status >= 0) return status;
    return train(std::move(arguments));
  });
}
