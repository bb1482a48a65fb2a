// Checkpoints of qat_frcnn's training: everything that goes on from them to the same weights to the bit.
#pragma once

#include <algorithm>
#include <map>
#include <string>

#include "apps/checkpoint.hpp"
#include "models/quantized.hpp"

namespace shrike::apps {

inline constexpr const char* qat_checkpoint_format = "shrike-qat-1";

// What decides how a detector is trained with fake-quantize: a checkpoint of other settings is none to go on from.
inline std::map<std::string, std::string> qat_settings(TrainConfig config, const quant::PrepareOptions& options) {
  std::map<std::string, std::string> settings;
  config.run.clear();  // a run folder may be moved
  config.device = {};
  config.threads = config.workers = config.log_every = config.save_every = 0;
  TextWriter writer{settings, "train."};
  config.visit(writer);
  settings["quantize.keep-float"] = TextWriter::print(options.keep_float);
  settings["quantize.first-float"] = TextWriter::print(options.first_layer_float);
  settings["quantize.observer"] = std::to_string(static_cast<int>(options.observer.choice));
  settings["quantize.percentile"] = TextWriter::print(options.observer.percentile);
  settings["quantize.observer-momentum"] = TextWriter::print(options.observer.momentum);
  settings["quantize.learned"] = options.learned ? "activations and weights" : "false";  // it was "true" of activations alone
  settings["quantize.freeze-after"] = std::to_string(options.freeze_after);
  return settings;
}

// Weights and scales, momentum, and what the observers have seen, by name.
inline NamedTensors qat_state(const models::PreparedDetector& detector, const nn::Sgd& optimizer) {
  NamedTensors state;
  for (std::size_t i = 0; i < 3; ++i) {
    const quant::Prepared& part = *detector.parts[i];
    for (const auto& [value, tensor] : part.constants) {
      state.emplace_back(message(models::part_names[i], '.', part.value_name(value), '@', value), tensor);
    }
    for (const auto& activation : part.activations) {
      const auto [range, counts] = activation.observer.state();
      state.emplace_back("observer." + activation.observer.name() + ".range", range);
      state.emplace_back("observer." + activation.observer.name() + ".counts", counts);
    }
  }
  for (const auto& [name, tensor] : optimizer.state()) state.emplace_back("momentum." + name, tensor);
  return state;
}

inline void save_qat_checkpoint(const std::string& path, const models::PreparedDetector& detector, const nn::Sgd& optimizer,
                                const std::map<std::string, std::string>& settings, Progress progress) {
  TensorFile file;
  file.metadata = settings;
  file.metadata["format"] = qat_checkpoint_format;
  file.metadata["weights"] = detector.weights;
  for (std::size_t i = 0; i < 3; ++i) file.metadata["steps." + std::to_string(i)] = std::to_string(detector.parts[i]->steps());
  TextWriter done{file.metadata, "progress."};
  progress.visit(done);
  for (const auto& [name, tensor] : qat_state(detector, optimizer)) {
    SHRIKE_CHECK(file.tensors.emplace(name, tensor).second, path, ": two tensors are named ", name);
  }
  save_safetensors(path, file);
}

// Puts a detector that was prepared in the same way, its optimiser and its observers where the checkpoint left them. Throws
// Error naming the file and what does not fit: another format, other weights, a setting, a tensor.
inline Progress load_qat_checkpoint(const TensorFile& file, const models::PreparedDetector& detector, const nn::Sgd& optimizer,
                                    const std::map<std::string, std::string>& settings) {
  const auto text = [&](const std::string& key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  SHRIKE_CHECK(text("format") == qat_checkpoint_format, file.name, ": format '", text("format"), "': expected '",
               qat_checkpoint_format, "'");
  SHRIKE_CHECK(text("weights") == detector.weights, file.name, ": a training of other weights: theirs have the hash ",
               text("weights"), ", these ", detector.weights);
  for (const auto& [key, value] : settings) {
    SHRIKE_CHECK(text(key) == value, file.name, ": was trained with ", key, " = '", text(key), "', this is '", value, "'");
  }
  const NamedTensors state = qat_state(detector, optimizer);
  WeightOptions options;
  options.layout = WeightLayout::shrike;
  load_named(file, state, options);
  std::map<std::string, Tensor> by_name(state.begin(), state.end());
  for (const auto& part : detector.parts) {
    for (auto& activation : part->activations) {
      const std::string name = "observer." + activation.observer.name();
      activation.observer.set_state({by_name.at(name + ".range"), by_name.at(name + ".counts")});
    }
  }
  for (std::size_t i = 0; i < 3; ++i) {
    std::int64_t steps = 0;
    SHRIKE_CHECK(TextReader::parse(text("steps." + std::to_string(i)), steps), file.name, ": steps.", i, " is '",
                 text("steps." + std::to_string(i)), "': expected a number");
    detector.parts[i]->set_steps(steps);
  }
  return checkpoint_progress(file);
}

}  // namespace shrike::apps
