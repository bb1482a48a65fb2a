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

// Layers, noisiest first, and how the mAP changes with each alone in int8; NaN where that was not measured.
struct Ranking {
  Evaluation float_result;
  std::vector<models::LayerSensitivity> layers;
  std::vector<PairedDifference> changes;
};

// "-0.0012 +- 0.0022": a change and its 95 % confidence interval.
inline std::string change_text(const PairedDifference& change) {
  char text[64];
  std::snprintf(text, sizeof text, "%+.4f +- %.4f", change.mean, change.error());
  return text;
}

// Everything that detectors with some layers in float are made of, and the images that they are measured with.
struct LayerSearch {
  const models::FusedDetector& fused;
  const models::PreparedDetector& prepared;  // calibrated
  const quant::PrepareOptions& options;
  const TrainConfig& config;
  Device device;
  const Dataset& images;
  const char* images_are;  // "validation" or "training"
  NewImages correction;    // to correct biases with; empty: they are not

  // Prints the table of all layers, noisiest first; mAP for the first `measured`. Throws Stopped.
  Ranking measure_layers(const models::NextImages& noise_images, int measured) const;
  // The layers to keep in float, so that the mAP of the int8 detector is within `max_drop` of the float one's:
  // quant::choose_float, each set converted and measured. Throws Stopped.
  std::vector<std::string> choose(const Ranking& ranking, double max_drop) const;

 private:
  Evaluation result_of(models::FasterRcnn& model, const std::string& title) const {
    return measure(model, images, config, device, title);
  }
  PairedDifference change(const Evaluation& from, const Evaluation& to) const {
    const int classes = static_cast<int>(images.classes.size()) + 1;
    return voc_difference(objects_of(images), from.found, to.found, classes, voc_options(config));
  }
  Evaluation int8_result(const std::vector<std::string>& kept) const;
};

inline Ranking LayerSearch::measure_layers(const models::NextImages& noise_images, int measured) const {
  Ranking ranking;
  ranking.layers = models::layer_sensitivities(fused, prepared, noise_images);
  ranking.float_result = result_of(*models::join(fused.parts, fused.options), "float");
  std::size_t width = 5;
  for (const auto& layer : ranking.layers) width = std::max(width, layer.layer.name.size());
  std::printf("\nsensitivity: each layer alone in int8; float mAP %.4f on %zu %s images; SQNR of what the detector answers\n",
              ranking.float_result.map, images.samples.size(), images_are);
  std::printf("%-*s  %9s  %12s  %7s  change (95 %%)\n", static_cast<int>(width), "layer", "SQNR (dB)", "MACs/image", "mAP");
  for (const auto& layer : ranking.layers) {
    std::printf("%-*s  %9.2f  %12.4g", static_cast<int>(width), layer.layer.name.c_str(), layer.sqnr, layer.macs);
    ranking.changes.push_back({NAN, NAN});
    if (measured-- > 0) {
      const Evaluation result = result_of(*models::quantize_only(fused, prepared, layer), layer.layer.name);
      ranking.changes.back() = change(ranking.float_result, result);
      std::printf("  %7.4f  %s", result.map, change_text(ranking.changes.back()).c_str());
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  return ranking;
}

inline Evaluation LayerSearch::int8_result(const std::vector<std::string>& kept) const {
  const models::PreparedDetector detector = models::keep_more_float(fused, prepared, options, kept);
  if (correction) models::correct_biases(fused, detector, correction);
  return result_of(*models::join(models::convert_detector(detector).parts, fused.options), "int8");
}

// One line when the wanted drop is less than what the images can tell from none.
inline void note_resolution(const PairedDifference& change, double max_drop, std::size_t images) {
  if (!(max_drop < change.error())) return;
  std::printf("--max-drop %g is less than these %zu images can tell: they know the change by int8 to +-%.4f (95 %%)\n",
              max_drop, images, change.error());
}

inline std::vector<std::string> LayerSearch::choose(const Ranking& ranking, double max_drop) const {
  std::vector<quant::Candidate> candidates;
  double all_macs = 0;
  for (std::size_t i = 0; i < ranking.layers.size(); ++i) {
    const auto& layer = ranking.layers[i];
    const PairedDifference& change = ranking.changes[i];
    candidates.push_back({layer.macs, -change.mean, change.error(), layer.noise_share});
    all_macs += layer.macs;
  }
  const double goal = ranking.float_result.map - max_drop;
  std::printf("\nkeeping layers in float for an mAP of at least %.4f\n", goal);
  const auto names_of = [&](const std::vector<std::size_t>& kept) {
    std::vector<std::string> names;
    for (const std::size_t i : kept) names.push_back(ranking.layers[i].layer.name);
    return names;
  };
  const quant::FloatChoice choice = quant::choose_float(candidates, goal, [&](const std::vector<std::size_t>& kept) {
    const Evaluation result = int8_result(names_of(kept));
    const PairedDifference by = change(ranking.float_result, result);
    double macs = 0;
    std::string list;
    for (const std::size_t i : kept) macs += ranking.layers[i].macs, list += " " + ranking.layers[i].layer.name;
    std::printf("mAP %.4f, %s, %5.1f%% of the MACs in float:%s\n", result.map, change_text(by).c_str(),
                100 * macs / std::max(all_macs, 1.0), list.empty() ? " none" : list.c_str());
    if (kept.empty()) note_resolution(by, max_drop, images.samples.size());
    std::fflush(stdout);
    return result.map;
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
