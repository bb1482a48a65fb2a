// The training loop: epochs of steps, evaluations, logs; what is trained and how it is saved are its user's.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "apps/checkpoint.hpp"
#include "apps/datasets.hpp"
#include "apps/evaluate.hpp"
#include "apps/progress.hpp"
#include "apps/signals.hpp"
#include "shrike/io/jsonl.hpp"
#include "shrike/io/tensorboard.hpp"

namespace shrike::apps {

// Weights, biases and learned scales, with their shares of the learning rate and of weight decay.
inline std::vector<nn::SgdParameter> sgd_parameters(nn::Module& model, const TrainConfig& config) {
  std::vector<nn::SgdParameter> parameters;
  for (const auto& [name, tensor] : nn::named_parameters(model)) {
    if (!tensor.requires_grad()) continue;
    nn::SgdParameter parameter{name, tensor, 1.0f, static_cast<float>(config.weight_decay), {}};
    if (tensor.rank() == 1) {  // biases, and batch norm's scale and shift
      if (name.ends_with("bias")) parameter.lr_scale = static_cast<float>(config.bias_lr);
      if (!config.bias_decay || name.ends_with("_scale")) parameter.weight_decay = 0;
    }
    parameters.push_back(std::move(parameter));
  }
  return parameters;
}

inline std::int64_t batches_per_epoch(const Dataset& data, const TrainConfig& config) {
  return (static_cast<std::int64_t>(data.samples.size()) + config.batch - 1) / config.batch;
}

// A step is one update of the weights, from --accumulate batches; the last of an epoch may have fewer.
inline std::int64_t steps_per_epoch(const Dataset& data, const TrainConfig& config) {
  return (batches_per_epoch(data, config) + config.accumulate - 1) / config.accumulate;
}

// a + b / n of each loss, without history; b / n where a has none.
inline models::Losses add_share(const models::Losses& a, const models::Losses& b, double n) {
  const NoGrad no_grad;
  models::Losses sum;
  for (const auto part : {&models::Losses::rpn_cls, &models::Losses::rpn_box, &models::Losses::cls, &models::Losses::box,
                          &models::Losses::total}) {
    const Tensor share = n == 1 ? (b.*part).detach() : scale((b.*part).detach(), 1 / n);
    sum.*part = (a.*part).defined() ? add(a.*part, share) : share;
  }
  return sum;
}

// Trains by the settings and writes metrics.jsonl and events for TensorBoard to the run folder, which is there. The model is on
// `device`. Everything that it is given is the caller's and outlives it. Without images to evaluate on nothing is evaluated.
class Trainer {
 public:
  Trainer(const TrainConfig& config, Device device, models::FasterRcnn& model, nn::Sgd& optimizer, const Dataset& train_set,
          const Dataset& eval_set, Progress& progress)
      : config_(config),
        device_(device),
        model_(model),
        optimizer_(optimizer),
        train_set_(train_set),
        eval_set_(eval_set),
        progress_(progress),
        line_(config.log_every) {}

  // Follows the weights, and is what is evaluated; null for none.
  nn::Ema* ema = nullptr;
  // Called every save_every steps and after each epoch and evaluation.
  std::function<void()> save;
  // Called after an evaluation that beat all before, with the model as it was evaluated.
  std::function<void()> save_best;

  // From progress.step to the last step, or until patience ends; `resume` goes on with the logs that are there. False when a
  // signal stopped it. Throws Error naming step and images when a loss or gradient is not finite.
  bool run(bool resume);

  std::int64_t total_steps() const {
    const std::int64_t all = config_.epochs * steps_per_epoch();
    return config_.max_steps > 0 ? std::min<std::int64_t>(config_.max_steps, all) : all;
  }

  nn::Schedule schedule() const;

 private:
  void train_epoch(Loader& loader, std::int64_t epoch, Pace& pace);
  models::Losses add_gradients(Loader& loader, std::int64_t batches, std::string& ids);
  void train_step(Loader& loader, std::int64_t epoch, const Pace& pace);
  void evaluate(std::int64_t epoch);
  void log(const std::string& kind, const std::vector<std::pair<std::string, double>>& values);
  void save_now() {
    if (save) save();
  }
  bool out_of_patience() const { return config_.patience > 0 && progress_.since_best >= config_.patience; }
  long long epochs() const { return (total_steps() + steps_per_epoch() - 1) / steps_per_epoch(); }
  std::int64_t steps_per_epoch() const { return apps::steps_per_epoch(train_set_, config_); }

  const TrainConfig& config_;
  Device device_;
  models::FasterRcnn& model_;
  nn::Sgd& optimizer_;
  const Dataset& train_set_;
  const Dataset& eval_set_;
  Progress& progress_;
  std::array<double, 5> mean_losses_{};  // of the last steps, some 50: total, rpn_cls, rpn_box, cls, box
  double mean_weight_ = 0;
  std::vector<double> maps_;  // of the evaluations
  std::unique_ptr<JsonLines> log_;
  std::unique_ptr<EventWriter> events_;
  ProgressLine line_;
};

inline nn::Schedule Trainer::schedule() const {
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
  schedule.total_steps = total_steps();
  for (const float part : config_.lr_steps) {
    schedule.milestones.push_back(std::llround(static_cast<double>(part) * static_cast<double>(schedule.total_steps)));
  }
  return schedule;
}

inline bool Trainer::run(bool resume) {
  if (resume) {
    log_ = std::make_unique<JsonLines>(config_.run + "/metrics.jsonl", progress_.step);
    events_ = std::make_unique<EventWriter>(config_.run, progress_.step + 1);
  } else {
    log_ = std::make_unique<JsonLines>(config_.run + "/metrics.jsonl");
    events_ = std::make_unique<EventWriter>(config_.run);
  }
  catch_stop_signals();
  LoaderOptions options = loader_options(config_, true);
  options.device = device_;
  Loader loader(train_set_, options);
  Pace pace(total_steps() - progress_.step);
  // A run that is stopped during an evaluation does it again when it is resumed.
  while (stop_signal == 0 && (progress_.evaluation_due || (progress_.step < total_steps() && !out_of_patience()))) {
    if (progress_.evaluation_due) {
      evaluate((progress_.step - 1) / steps_per_epoch());
    } else {
      train_epoch(loader, progress_.step / steps_per_epoch(), pace);
    }
    save_now();
  }
  line_.clear();
  if (stop_signal == 0 && out_of_patience() && progress_.step < total_steps()) {
    std::printf("no better mAP than %.4f, of step %lld, in %d evaluations: ended after epoch %lld of %d (--patience %d)\n",
                progress_.best_map, static_cast<long long>(progress_.best_step), progress_.since_best,
                static_cast<long long>(progress_.step / steps_per_epoch()), config_.epochs, config_.patience);
  }
  const std::size_t n = maps_.size();
  if (stop_signal == 0 && n >= 2 && maps_[n - 1] >= progress_.best_map && maps_[n - 1] > maps_[n - 2] + 0.01) {
    std::printf("the last evaluation was the best, %.3f above the one before: a run of more --epochs may find more\n",
                maps_[n - 1] - maps_[n - 2]);
  }
  return stop_signal == 0;
}

inline void Trainer::train_epoch(Loader& loader, std::int64_t epoch, Pace& pace) {
  nn::train(model_, true);
  loader.start(epoch, progress_.step % steps_per_epoch() * config_.accumulate);
  for (bool epoch_done = false; !epoch_done;) {
    train_step(loader, epoch, pace);
    pace.tick();
    if (stop_signal != 0) return;
    epoch_done = progress_.step % steps_per_epoch() == 0 || progress_.step == total_steps();
    if (!epoch_done && config_.save_every > 0 && progress_.step % config_.save_every == 0) save_now();
  }
  line_.clear();
}

// A step's scalars in one copy from the device: total, rpn_cls, rpn_box, cls, box and the gradients' norm.
inline std::array<double, 6> read_scalars(const models::Losses& losses, const Tensor& norm) {
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

// Adds the mean of the next batches' gradients to the parameters', and returns their mean losses. Random numbers depend on the
// number of the batch: resumed equals uninterrupted, and with batch 1 the samples are those of one batch of as many images.
inline models::Losses Trainer::add_gradients(Loader& loader, std::int64_t batches, std::string& ids) {
  models::Losses mean;
  for (std::int64_t i = 0; i < batches; ++i) {
    const auto batch = loader.next();
    SHRIKE_CHECK(batch, "step ", progress_.step + 1, ": the epoch has no more images");
    const auto number = static_cast<std::uint64_t>(progress_.step * config_.accumulate + i);
    nn::set_step(model_, config_.seed, number);
    std::vector<ImageSize> sizes;
    std::vector<models::Target> targets;
    for (const auto& item : batch->items) {
      sizes.push_back({item.height, item.width, item.scale_x});
      targets.push_back({item.boxes, item.labels});
      ids += (ids.empty() ? "" : ", ") + item.id;
    }
    const models::Losses losses = model_.losses(batch->images, sizes, targets, config_.seed, number);
    backward(batches == 1 ? losses.total : scale(losses.total, 1.0 / static_cast<double>(batches)));
    mean = add_share(mean, losses, static_cast<double>(batches));
  }
  return mean;
}

inline void Trainer::train_step(Loader& loader, std::int64_t epoch, const Pace& pace) {
  const std::int64_t first = progress_.step % steps_per_epoch() * config_.accumulate;
  std::string ids;
  const models::Losses losses =
      add_gradients(loader, std::min<std::int64_t>(config_.accumulate, loader.batches() - first), ids);
  const float lr = schedule().at(progress_.step);
  const Tensor norm_on_device = optimizer_.update(lr, losses.total);
  // The step's only wait for the device. An update that is not finite was not made.
  const auto [total, rpn_cls, rpn_box, cls, box, norm] = read_scalars(losses, norm_on_device);
  SHRIKE_CHECK(std::isfinite(total), "step ", progress_.step + 1, ": the loss is ", total, " (objectness ", rpn_cls,
               ", proposals ", rpn_box, ", classes ", cls, ", boxes ", box, ") on the image(s) ", ids,
               save ? "; " + config_.run + " holds the last good step that was saved" : std::string());
  try {
    nn::Sgd::check_norm(norm);
  } catch (const Error& error) {
    fail("step ", progress_.step + 1, ": ", error.what(), " on the image(s) ", ids);
  }
  ++progress_.step;
  if (ema != nullptr) ema->update(progress_.step);
  const bool done = progress_.step == total_steps();
  const bool epoch_done = done || progress_.step % steps_per_epoch() == 0;
  const bool wanted = done || (config_.eval_every > 0 && (epoch + 1) % config_.eval_every == 0);
  progress_.evaluation_due = epoch_done && wanted && !eval_set_.samples.empty();

  const std::vector<std::pair<std::string, double>> values = {
      {"loss", total}, {"loss_rpn_cls", rpn_cls}, {"loss_rpn_box", rpn_box}, {"loss_cls", cls}, {"loss_box", box},
      {"lr", lr},      {"grad_norm", norm}};
  if (progress_.step % std::max(config_.log_every, 1) == 0) {
    log("train", values);
  }
  constexpr double keep = 0.98;
  for (std::size_t i = 0; i < mean_losses_.size(); ++i) {
    mean_losses_[i] = keep * mean_losses_[i] + (1 - keep) * values[i].second;
  }
  mean_weight_ = keep * mean_weight_ + 1 - keep;
  const auto mean = [&](std::size_t i) { return mean_losses_[i] / mean_weight_; };
  char text[256];
  std::snprintf(text, sizeof text,
                "epoch %lld/%lld  step %lld  mean loss %.3f (rpn %.3f + %.3f, head %.3f + %.3f)  lr %.2g  %.2f it/s  ETA %s",
                static_cast<long long>(epoch + 1), epochs(), static_cast<long long>(progress_.step), mean(0), mean(1), mean(2),
                mean(3), mean(4), static_cast<double>(lr), pace.per_second(), clock_text(pace.seconds_left()).c_str());
  line_.show(progress_.step, text);
}

// One line of metrics.jsonl, and as many scalars for TensorBoard.
inline void Trainer::log(const std::string& kind, const std::vector<std::pair<std::string, double>>& values) {
  JsonWriter json;
  json.begin_object().field("iteration", progress_.step).field("kind", kind);
  for (const auto& [name, value] : values) {
    json.field(name, value);
    events_->scalar(kind + "/" + name, static_cast<float>(value), progress_.step);
  }
  json.end_object();
  log_->write(json);
}

inline void Trainer::evaluate(std::int64_t epoch) {
  const nn::Averaged averaged(ema);
  const Evaluation result = evaluate_detector(model_, eval_set_, config_, device_, [&](std::int64_t done, std::int64_t all) {
    line_.show(message("evaluating image ", done, " of ", all));
  });
  line_.clear();
  if (result.stopped) return;
  progress_.evaluation_due = false;
  std::printf("\nepoch %lld of %lld\n%s", static_cast<long long>(epoch + 1), epochs(), result.table.c_str());
  std::fflush(stdout);
  log("eval", result.values);
  maps_.push_back(result.map);
  ++progress_.since_best;
  if (result.map > progress_.best_map) {
    progress_.since_best = 0;
    progress_.best_map = result.map;
    progress_.best_step = progress_.step;
    if (save_best) save_best();
  }
}

}  // namespace shrike::apps
