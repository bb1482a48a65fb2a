// Ranks the layers of a detector by what int8 costs each, and chooses those to keep in float.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "apps/quantize_images.hpp"
#include "models/bias_correction.hpp"
#include "models/sensitivity.hpp"

namespace shrike::apps {

inline constexpr int sqnr_images = 32;  // at most, of those for calibration

using NewImages = std::function<models::NextImages()>;

// Layers, noisiest first, and what the detector loses in mAP with each alone in int8; NaN where that was not measured.
struct Ranking {
  double float_map = 0;
  std::vector<models::LayerSensitivity> layers;
  std::vector<double> losses;
};

// Everything that detectors with some layers in float are made of, and the images that they are measured with.
struct LayerSearch {
  const models::FusedDetector& fused;
  const models::PreparedDetector& prepared;  // calibrated
  const quant::PrepareOptions& options;
  const TrainConfig& config;
  Device device;
  const Dataset& images;
  NewImages correction;  // to correct biases with; empty: they are not

  // Prints the table of all layers, noisiest first; mAP for the first `measured`. Throws Stopped.
  Ranking measure_layers(const models::NextImages& noise_images, int measured) const;
  // The layers to keep in float, so that the mAP of the int8 detector is within `max_drop` of the float one's:
  // quant::choose_float, each set converted and measured. Throws Stopped.
  std::vector<std::string> choose(const Ranking& ranking, double max_drop) const;

 private:
  double map_of(models::FasterRcnn& model, const std::string& title) const {
    return measure(model, images, config, device, title).map;
  }
  double int8_map(const std::vector<std::string>& kept) const;
};

inline Ranking LayerSearch::measure_layers(const models::NextImages& noise_images, int measured) const {
  Ranking ranking;
  ranking.layers = models::layer_sensitivities(fused, prepared, noise_images);
  ranking.float_map = map_of(*models::join(fused.parts, fused.options), "float");
  std::size_t width = 5;
  for (const auto& layer : ranking.layers) width = std::max(width, layer.layer.name.size());
  std::printf("\nsensitivity: each layer alone in int8; float mAP %.4f on %zu training images\n", ranking.float_map,
              images.samples.size());
  std::printf("%-*s  %9s  %12s  %7s  %8s\n", static_cast<int>(width), "layer", "SQNR (dB)", "MACs/image", "mAP", "change");
  for (const auto& layer : ranking.layers) {
    std::printf("%-*s  %9.2f  %12.4g", static_cast<int>(width), layer.layer.name.c_str(), layer.sqnr, layer.macs);
    ranking.losses.push_back(NAN);
    if (measured-- > 0) {
      const double map = map_of(*models::quantize_only(fused, prepared, layer), layer.layer.name);
      ranking.losses.back() = ranking.float_map - map;
      std::printf("  %7.4f  %+8.4f", map, map - ranking.float_map);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  return ranking;
}

inline double LayerSearch::int8_map(const std::vector<std::string>& kept) const {
  const models::PreparedDetector detector = models::keep_more_float(fused, prepared, options, kept);
  if (correction) models::correct_biases(fused, detector, correction);
  return map_of(*models::join(models::convert_detector(detector).parts, fused.options), "int8");
}

inline std::vector<std::string> LayerSearch::choose(const Ranking& ranking, double max_drop) const {
  std::vector<quant::Candidate> candidates;
  double all_macs = 0;
  for (std::size_t i = 0; i < ranking.layers.size(); ++i) {
    const auto& layer = ranking.layers[i];
    candidates.push_back({layer.macs, ranking.losses[i], layer.noise_share});
    all_macs += layer.macs;
  }
  const double goal = ranking.float_map - max_drop;
  std::printf("\nkeeping layers in float for an mAP of at least %.4f\n", goal);
  const auto names_of = [&](const std::vector<std::size_t>& kept) {
    std::vector<std::string> names;
    for (const std::size_t i : kept) names.push_back(ranking.layers[i].layer.name);
    return names;
  };
  const quant::FloatChoice choice = quant::choose_float(candidates, goal, [&](const std::vector<std::size_t>& kept) {
    const double map = int8_map(names_of(kept));
    double macs = 0;
    std::string list;
    for (const std::size_t i : kept) macs += ranking.layers[i].macs, list += " " + ranking.layers[i].layer.name;
    std::printf("mAP %.4f, %5.1f%% of the MACs in float:%s\n", map, 100 * macs / std::max(all_macs, 1.0),
                list.empty() ? " none" : list.c_str());
    std::fflush(stdout);
    return map;
  });
  const std::vector<std::string> names = names_of(choice.kept);
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "; --keep-float " : ",") + name;
  std::printf("%s with %zu layer(s) in float: mAP %.4f, wanted %.4f%s\n", choice.met ? "met" : "not met; the best is",
              names.size(), choice.score, goal, list.c_str());
  std::fflush(stdout);
  return names;
}

}  // namespace shrike::apps
