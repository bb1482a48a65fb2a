// Checkpoints: safetensors files with the model under its names, the optimiser's momentum under "momentum.NAME", and the
// settings and the progress in the metadata. Where weights are averaged (--ema), the model's names hold the averages and
// "raw.NAME" what training goes on from.
#pragma once

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>

#include "apps/settings.hpp"
#include "apps/train_config.hpp"
#include "shrike/io/safetensors.hpp"
#include "shrike/io/weights.hpp"
#include "shrike/nn/ema.hpp"
#include "shrike/nn/optim.hpp"

namespace shrike::apps {

inline constexpr const char* checkpoint_format = "shrike-detector-1";

// How far a run has come.
struct Progress {
  std::int64_t step = 0;  // steps done
  double best_map = -1;   // of the evaluations so far; -1 before the first
  std::int64_t best_step = 0;
  int since_best = 0;           // evaluations after the best one
  bool evaluation_due = false;  // the epoch that ended at `step` is still to be measured

  template <class Visitor> void visit(Visitor& v) {
    v("step", step, "");
    v("best-map", best_map, "");
    v("best-step", best_step, "");
    v("since-best", since_best, "");
    v("evaluation-due", evaluation_due, "");
  }
};

// The settings of a run in a file's metadata.
inline void write_settings(std::map<std::string, std::string>& metadata, TrainConfig config) {
  metadata["train.preset"] = config.preset;
  TextWriter train{metadata, "train."};
  config.visit(train);
  TextWriter settings{metadata, "model."};
  config.model.visit(settings);
}

// One line about a checkpoint from before padding, which keeps to the anchors that it was trained with.
inline void note_old_grid(const TensorFile& file) {
  if (file.metadata.contains("model.grid")) return;
  std::printf("%s: of version 0.1: anchors lie as they did when it was trained (--grid quotient, images not padded)\n",
              file.name.c_str());
}

// The settings in a file's metadata.
inline TrainConfig read_settings(const TensorFile& file) {
  TrainConfig config;
  auto metadata = file.metadata;
  // Checkpoints from before these settings.
  if (metadata.contains("train.seed")) metadata.try_emplace("train.split-seed", metadata.at("train.seed"));
  if (metadata.contains("train.split")) metadata.try_emplace("train.resplit", metadata.at("train.split"));
  metadata.try_emplace("train.ema", "0");
  metadata.try_emplace("model.grid", "quotient");
  std::map<std::string, std::string> now;
  write_settings(now, config);
  for (const char* name :  // that follow no rule but today's default
       {"train.test-years",
        "train.max-steps",
        "train.accumulate",
        "train.train-sizes",
        "train.match-inclusive",
        "train.val-split",
        "train.val-fraction",
        "train.patience",
        "train.anchors",
        "train.init",
        "train.provider",
        "train.tf32",
        "train.cuda-graphs",
        "model.norm",
        "model.head",
        "model.soft-nms",
        "model.soft-nms-sigma",
        "model.pool-rounding",
        "model.size-divisor",
        "model.anchor-rounding",
        "model.anchor-offset",
        "model.anchor-border",
        "model.proposal-min-size",
        "model.rpn-low-quality",
        "model.rpn-low-quality-iou",
        "model.rpn-divisor",
        "model.rpn-beta",
        "model.box-beta"}) {
    metadata.try_emplace(name, now.at(name));
  }
  config.preset = metadata.contains("train.preset") ? metadata.at("train.preset") : "";
  TextReader train{metadata, "train.", file.name};
  config.visit(train);
  TextReader settings{metadata, "model.", file.name};
  config.model.visit(settings);
  return config;
}

// Writes a checkpoint atomically: after any failure the old one is still there. `optimizer` may be null, for weights only, and
// `ema`, where weights are not averaged.
inline void save_checkpoint(const std::string& path, nn::Module& model, const nn::Sgd* optimizer, const nn::Ema* ema,
                            TrainConfig config, Progress progress) {
  config.run.clear();  // a run folder may be moved
  TensorFile file;
  for (const auto& [name, tensor] : nn::named_state(model)) file.tensors[name] = tensor;
  if (ema != nullptr) {
    for (const auto& [name, tensor] : ema->averages()) {
      file.tensors["raw." + name] = file.tensors.at(name);
      file.tensors[name] = tensor;
    }
  }
  if (optimizer != nullptr) {
    for (const auto& [name, tensor] : optimizer->state()) file.tensors["momentum." + name] = tensor;
  }
  file.metadata["format"] = checkpoint_format;
  write_settings(file.metadata, config);
  TextWriter done{file.metadata, "progress."};
  progress.visit(done);
  save_safetensors(path, file);
}

// The settings that a checkpoint was made with. Throws Error when `file` is not one.
inline TrainConfig checkpoint_config(const TensorFile& file) {
  const auto format = file.metadata.find("format");
  SHRIKE_CHECK(format != file.metadata.end(), file.name, ": not a checkpoint of a detector: its metadata has no format");
  SHRIKE_CHECK(format->second == checkpoint_format, file.name, ": a checkpoint of format '", format->second, "': expected '",
               checkpoint_format, "'");
  return read_settings(file);
}

inline Progress checkpoint_progress(const TensorFile& file) {
  Progress progress;
  auto metadata = file.metadata;
  metadata.try_emplace("progress.since-best", "0");  // checkpoints from before it
  TextReader done{metadata, "progress.", file.name};
  progress.visit(done);
  return progress;
}

// Copies a checkpoint's tensors into the model and, unless they are null, the optimiser and the averages. Without an optimiser
// the model takes the averages, and what only training needs is passed over. Throws Error naming the file and tensor when one
// is missing, of another shape, not finite, or too many; nothing is changed then.
inline void load_checkpoint(const TensorFile& file, nn::Module& model, const nn::Sgd* optimizer = nullptr,
                            const nn::Ema* ema = nullptr) {
  NamedTensors targets = nn::named_state(model);
  TensorFile wanted = file;
  if (optimizer != nullptr) {
    for (const auto& [name, tensor] : optimizer->state()) targets.emplace_back("momentum." + name, tensor);
    if (ema != nullptr) {
      for (const auto& [name, tensor] : ema->averages()) {
        const auto raw = std::find_if(targets.begin(), targets.end(), [&](const auto& entry) { return entry.first == name; });
        raw->first = "raw." + name;
        targets.emplace_back(name, tensor);
      }
    }
  } else {
    std::erase_if(wanted.tensors,
                  [](const auto& entry) { return entry.first.starts_with("momentum.") || entry.first.starts_with("raw."); });
  }
  WeightOptions options;
  options.layout = WeightLayout::shrike;
  load_named(wanted, targets, options);
}

}  // namespace shrike::apps
