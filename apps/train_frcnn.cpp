// train_frcnn: trains a Faster R-CNN, evaluates it after each epoch, and can be stopped and resumed at any moment.
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <iostream>

#include "apps/checkpoint.hpp"
#include "apps/datasets.hpp"
#include "apps/evaluate.hpp"
#include "apps/progress.hpp"
#include "apps/signals.hpp"
#include "apps/weights.hpp"
#include "shrike/core/parallel.hpp"
#include "shrike/io/file.hpp"
#include "shrike/io/jsonl.hpp"
#include "shrike/io/tensorboard.hpp"

namespace shrike::apps {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  TrainConfig config;
  bool resume = false;
};

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--preset", arguments.config.preset,
                 "shapes, bccd, bccd_resnet18 or voc07_vgg16: where all other settings start from")
      ->capture_default_str();
  app.add_flag("--resume", arguments.resume, "go on with the run in the --run folder, with its settings")->configurable(false);
  app.set_config("--config", "", "read settings from this TOML file; the command line wins");
  OptionAdder train{app, "Training"};
  arguments.config.visit(train);
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
      arguments.config = checkpoint_config(load_safetensors(last_checkpoint(first.config.run)));
    }
  }
  CLI::App app("Trains a Faster R-CNN. Without options: a small one on the built-in shapes, in some minutes on a CPU.",
               "train_frcnn");
  add_options(app, arguments);
  app.footer("Example: train_frcnn --preset voc07_vgg16 --data VOCdevkit --weights vgg16.safetensors --run runs/voc07");
  const int status = parse_command_line(app, argc, argv);
  if (arguments.config.run.empty()) arguments.config.run = "runs/" + arguments.config.preset;
  return status;
}

class Trainer {
 public:
  explicit Trainer(Arguments arguments) : config_(std::move(arguments.config)), resume_(arguments.resume) {
    set_num_threads(config_.threads);
    device_ = use(config_.device);
    SHRIKE_CHECK(config_.epochs > 0 && config_.batch > 0, "epochs ", config_.epochs, " and batch ", config_.batch,
                 ": expected positive numbers");
    open_run();
    std::tie(train_set_, test_set_) = open_data(config_);
    write_config();
    model_ = models::make_detector(config_.model);
    nn::initialize(*model_, config_.seed);
    if (!config_.weights.empty() && !resume_) load_weights(config_.weights, config_.model, *model_);
    nn::to(*model_, device_);
    optimizer_ = std::make_unique<nn::Sgd>(
        sgd_parameters(), nn::SgdOptions{static_cast<float>(config_.momentum), static_cast<float>(config_.clip_norm)});
    if (resume_) {
      const TensorFile file = load_safetensors(last_checkpoint(config_.run));
      load_checkpoint(file, *model_, optimizer_.get());
      progress_ = checkpoint_progress(file);
    }
  }

  int run();

 private:
  void open_run();
  void write_config();
  std::vector<nn::SgdParameter> sgd_parameters();
  nn::Schedule schedule() const;
  void train_epoch(Loader& loader, std::int64_t epoch, Pace& pace);
  void train_step(const Batch& batch, std::int64_t epoch, const Pace& pace);
  void evaluate(std::int64_t epoch);
  void log(const std::string& kind, const std::vector<std::pair<std::string, double>>& values);
  void save() { save_checkpoint(last_checkpoint(config_.run), *model_, optimizer_.get(), config_, progress_); }
  std::int64_t steps_per_epoch() const {
    return (static_cast<std::int64_t>(train_set_.samples.size()) + config_.batch - 1) / config_.batch;
  }

  TrainConfig config_;
  bool resume_;
  Device device_ = Device::cpu;
  Dataset train_set_;
  Dataset test_set_;
  std::shared_ptr<models::FasterRcnn> model_;
  std::unique_ptr<nn::Sgd> optimizer_;
  Progress progress_;
  std::unique_ptr<JsonLines> log_;
  std::unique_ptr<EventWriter> events_;
  ProgressLine line_{1};
};

// Never overwrites a run that is there.
void Trainer::open_run() {
  const bool there = fs::exists(last_checkpoint(config_.run));
  SHRIKE_CHECK(resume_ || !there, config_.run,
               ": holds a run already: --resume goes on with it, another --run leaves it alone");
  SHRIKE_CHECK(!resume_ || there, config_.run, ": holds no run to resume: last.safetensors is missing");
  std::error_code error;
  fs::create_directories(config_.run, error);
  SHRIKE_CHECK(!error, config_.run, ": cannot make this folder: ", error.message());
}

// The settings as they turned out, for reading and for --config.
void Trainer::write_config() {
  std::string text = "preset = " + TomlWriter::print(config_.preset) + "\n\n";
  TomlWriter writer{text};
  config_.visit(writer);
  text += "\n";
  config_.model.visit(writer);
  write_file_atomically(config_.run + "/config.toml", text);
}

std::vector<nn::SgdParameter> Trainer::sgd_parameters() {
  std::vector<nn::SgdParameter> parameters;
  for (const auto& [name, tensor] : nn::named_parameters(*model_)) {
    if (!tensor.requires_grad()) continue;
    nn::SgdParameter parameter{name, tensor, 1.0f, static_cast<float>(config_.weight_decay), {}};
    if (tensor.rank() == 1) {  // biases, and batch norm's scale and shift
      if (name.ends_with("bias")) parameter.lr_scale = static_cast<float>(config_.bias_lr);
      if (!config_.bias_decay) parameter.weight_decay = 0;
    }
    parameters.push_back(std::move(parameter));
  }
  return parameters;
}

nn::Schedule Trainer::schedule() const {
  nn::Schedule schedule;
  if (config_.schedule == "step") {
    schedule.kind = nn::Schedule::Kind::step;
  } else if (config_.schedule == "cosine") {
    schedule.kind = nn::Schedule::Kind::cosine;
  } else if (config_.schedule == "constant") {
    schedule.kind = nn::Schedule::Kind::constant;
  } else {
    fail("schedule '", config_.schedule, "': expected step, cosine or constant");
  }
  schedule.lr = static_cast<float>(config_.lr);
  schedule.gamma = static_cast<float>(config_.lr_gamma);
  schedule.warmup_steps = config_.warmup;
  schedule.total_steps = config_.epochs * steps_per_epoch();
  for (const float part : config_.lr_steps) {
    schedule.milestones.push_back(std::llround(static_cast<double>(part) * static_cast<double>(schedule.total_steps)));
  }
  return schedule;
}

int Trainer::run() {
  const std::int64_t total = config_.epochs * steps_per_epoch();
  if (resume_) {
    log_ = std::make_unique<JsonLines>(config_.run + "/metrics.jsonl", progress_.step);
    events_ = std::make_unique<EventWriter>(config_.run, progress_.step + 1);
  } else {
    log_ = std::make_unique<JsonLines>(config_.run + "/metrics.jsonl");
    events_ = std::make_unique<EventWriter>(config_.run);
  }
  std::int64_t parameters = 0;
  for (const auto& [name, tensor] : nn::named_parameters(*model_)) parameters += tensor.numel();
  std::printf("%s, %.1f million parameters, %d thread(s); run folder %s\n", config_.model.backbone.c_str(),
              static_cast<double>(parameters) * 1e-6, num_threads(), config_.run.c_str());
  std::fflush(stdout);
  if (progress_.step > 0)
    std::printf("resuming after step %lld of %lld\n", static_cast<long long>(progress_.step), static_cast<long long>(total));

  line_ = ProgressLine(config_.log_every);
  catch_stop_signals();
  Loader loader(train_set_, loader_options(config_, true));
  Pace pace(total - progress_.step);
  // A run that is stopped during an evaluation does it again when it is resumed.
  while (stop_signal == 0 && (progress_.evaluation_due || progress_.step < total)) {
    const std::int64_t epoch = progress_.step / steps_per_epoch();
    if (progress_.evaluation_due) {
      evaluate(epoch - 1);
    } else {
      train_epoch(loader, epoch, pace);
    }
    save();
  }
  line_.clear();
  if (stop_signal == 0) return 0;
  std::fprintf(stderr, "stopped after step %lld; train_frcnn --resume --run %s goes on\n",
               static_cast<long long>(progress_.step), config_.run.c_str());
  return 128 + stop_signal;
}

void Trainer::train_epoch(Loader& loader, std::int64_t epoch, Pace& pace) {
  nn::train(*model_, true);
  loader.start(epoch, progress_.step % steps_per_epoch());
  while (const auto batch = loader.next()) {
    train_step(*batch, epoch, pace);
    pace.tick();
    if (stop_signal != 0) return;
    const bool epoch_done = progress_.step % steps_per_epoch() == 0;
    if (!epoch_done && config_.save_every > 0 && progress_.step % config_.save_every == 0) save();
  }
  line_.clear();
}

// A step's scalars in one copy from the device: total, rpn_cls, rpn_box, cls, box and the gradients' norm.
std::array<double, 6> read_scalars(const models::Losses& losses, const Tensor& norm) {
  const NoGrad no_grad;
  Tensors parts;
  for (const Tensor& part : {losses.total, losses.rpn_cls, losses.rpn_box, losses.cls, losses.box, norm}) {
    parts.push_back(reshape(part.detach(), {1}));
  }
  const auto values = concat(parts, 0).to_vector<float>();
  std::array<double, 6> result{};
  std::copy(values.begin(), values.end(), result.begin());
  return result;
}

void Trainer::train_step(const Batch& batch, std::int64_t epoch, const Pace& pace) {
  const auto step = static_cast<std::uint64_t>(progress_.step);
  nn::set_step(*model_, config_.seed, step);
  std::vector<ImageSize> sizes;
  std::vector<models::Target> targets;
  std::string ids;
  for (const auto& item : batch.items) {
    sizes.push_back({item.height, item.width});
    targets.push_back({item.boxes.to(device_), item.labels.to(device_)});
    ids += (ids.empty() ? "" : ", ") + item.id;
  }
  const models::Losses losses = model_->losses(batch.images.to(device_), sizes, targets, config_.seed, step);
  backward(losses.total);
  const float lr = schedule().at(progress_.step);
  const Tensor norm_on_device = optimizer_->update(lr, losses.total);
  // The step's only wait for the device. An update that is not finite was not made.
  const auto [total, rpn_cls, rpn_box, cls, box, norm] = read_scalars(losses, norm_on_device);
  SHRIKE_CHECK(std::isfinite(total), "step ", progress_.step + 1, ": the loss is ", total, " (objectness ", rpn_cls,
               ", proposals ", rpn_box, ", classes ", cls, ", boxes ", box, ") on the image(s) ", ids, "; ",
               last_checkpoint(config_.run), " holds the last good step that was saved");
  try {
    nn::Sgd::check_norm(norm);
  } catch (const Error& error) {
    fail("step ", progress_.step + 1, ": ", error.what(), " on the image(s) ", ids);
  }
  ++progress_.step;
  const bool epoch_done = progress_.step % steps_per_epoch() == 0;
  const bool wanted = epoch + 1 == config_.epochs || (config_.eval_every > 0 && (epoch + 1) % config_.eval_every == 0);
  progress_.evaluation_due = epoch_done && wanted;

  const std::vector<std::pair<std::string, double>> values = {
      {"loss", total}, {"loss_rpn_cls", rpn_cls}, {"loss_rpn_box", rpn_box}, {"loss_cls", cls}, {"loss_box", box},
      {"lr", lr},      {"grad_norm", norm}};
  if (progress_.step % std::max(config_.log_every, 1) == 0) {
    log("train", values);
  }
  char text[256];
  std::snprintf(text, sizeof text,
                "epoch %lld/%d  step %lld  loss %.3f (rpn %.3f + %.3f, head %.3f + %.3f)  lr %.2g  %.2f it/s  ETA %s",
                static_cast<long long>(epoch + 1), config_.epochs, static_cast<long long>(progress_.step), total,
                values[1].second, values[2].second, values[3].second, values[4].second, static_cast<double>(lr),
                pace.per_second(), clock_text(pace.seconds_left()).c_str());
  line_.show(progress_.step, text);
}

// One line of metrics.jsonl, and as many scalars for TensorBoard.
void Trainer::log(const std::string& kind, const std::vector<std::pair<std::string, double>>& values) {
  JsonWriter json;
  json.begin_object().field("iteration", progress_.step).field("kind", kind);
  for (const auto& [name, value] : values) {
    json.field(name, value);
    events_->scalar(kind + "/" + name, static_cast<float>(value), progress_.step);
  }
  json.end_object();
  log_->write(json);
}

void Trainer::evaluate(std::int64_t epoch) {
  const Evaluation result = evaluate_detector(
      *model_, test_set_, loader_options(config_, false), device_,
      [&](std::int64_t done, std::int64_t all) { line_.show(message("evaluating image ", done, " of ", all)); });
  line_.clear();
  if (result.stopped) return;
  progress_.evaluation_due = false;
  std::printf("\nepoch %lld of %d\n%s", static_cast<long long>(epoch + 1), config_.epochs, result.table.c_str());
  std::fflush(stdout);
  log("eval", result.values);
  if (result.map > progress_.best_map) {
    progress_.best_map = result.map;
    progress_.best_step = progress_.step;
    save_checkpoint(config_.run + "/best.safetensors", *model_, nullptr, config_, progress_);
  }
}

}  // namespace
}  // namespace shrike::apps

int main(int argc, char** argv) {
  using namespace shrike::apps;
  return guarded_main("train_frcnn", [&] {
    Arguments arguments;
    if (const int status = parse(argc, argv, arguments); status >= 0) return status;
    return Trainer(std::move(arguments)).run();
  });
}
