// Quantized detectors in files, and detectors of any kind from files.
#pragma once

#include <memory>
#include <string>

#include "apps/checkpoint.hpp"
#include "models/detector.hpp"
#include "models/quantized.hpp"

namespace shrike::apps {

inline constexpr const char* quantized_format = "shrike-quantized-detector-";  // and the version
inline constexpr int quantized_version = 1;

// One file: three graphs with their tensors, the settings as checkpoints have them, what was done ("weight-only", "dynamic",
// "half", "static" or "qat") and the hash of the float weights that it came from. What was weight-only is called dynamic in
// older files; the graphs alone say what is computed.
inline TensorFile quantized_file(const models::Parts<Graph>& parts, TrainConfig config, const std::string& mode,
                                 const std::string& weights) {
  TensorFile file;
  models::write_parts(parts, file);
  file.metadata["format"] = quantized_format + std::to_string(quantized_version);
  file.metadata["mode"] = mode;
  file.metadata["weights"] = weights;
  config.run.clear();
  write_settings(file.metadata, config);
  return file;
}

inline bool is_quantized(const TensorFile& file) {
  const auto format = file.metadata.find("format");
  return format != file.metadata.end() && format->second.starts_with(quantized_format);
}

struct LoadedDetector {
  TrainConfig config;  // that it was trained with
  std::shared_ptr<models::FasterRcnn> model;
};

// The detector in a checkpoint or a quantized file, on the host. Throws Error naming the file and what is wrong with it.
inline LoadedDetector load_detector(const TensorFile& file) {
  LoadedDetector result;
  if (is_quantized(file)) {
    const std::string& format = file.metadata.at("format");
    int version = 0;
    const bool known = TextReader::parse(format.substr(std::string(quantized_format).size()), version) && version >= 1;
    SHRIKE_CHECK(known && version <= quantized_version, file.name, ": format '", format, "': this build reads '",
                 quantized_format, "1' to '", quantized_format, quantized_version, "'");
    result.config = read_settings(file);
    result.model = models::join(models::read_parts(file), models::detector_options(result.config.model));
  } else {
    result.config = checkpoint_config(file);
    result.model = models::make_detector(result.config.model);
    load_checkpoint(file, *result.model);
  }
  nn::train(*result.model, false);
  note_old_grid(file);
  return result;
}

}  // namespace shrike::apps
