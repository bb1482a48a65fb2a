// eval_frcnn: measures a trained detector on a data set.
#include <iostream>

#include "apps/datasets.hpp"
#include "apps/evaluate.hpp"
#include "apps/progress.hpp"
#include "apps/quantized.hpp"
#include "apps/signals.hpp"
#include "apps/test_time.hpp"
#include "apps/threads.hpp"
#include "shrike/io/file.hpp"

namespace shrike::apps {
namespace {

int run(int argc, char** argv) {
  std::string checkpoint, data, years, split, json, curves;
  DeviceSettings device_settings;
  TestTime test_time;
  int threads = 0;
  double score_threshold = -1;
  bool drop_bad_boxes = false, match_above = false;
  CLI::App app("Measures a trained detector: VOC07 and area AP at IoU 0.5 for each class, COCO AP.", "eval_frcnn");
  app.add_option("checkpoint", checkpoint,
                 "checkpoint of train_frcnn, such as runs/shapes/best.safetensors, or a file of qat_frcnn")
      ->required();
  app.add_option("--data", data, "VOC-format folder; by default the one it was trained on");
  app.add_option("--years", years, "with a VOCdevkit folder: the years to join, as in 2007+2012");
  app.add_option("--split", split, "image set to measure on; by default the run's test set, or what its --resplit held out");
  OptionAdder adder{app, "Device"};
  device_settings.visit(adder);
  app.add_option("--threads", threads, threads_help)->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_flag("--drop-bad-boxes", drop_bad_boxes, "drop and count boxes without area; otherwise they are an error");
  app.add_option("--score-threshold", score_threshold, "drop detections below this score; by default the run's own threshold")
      ->check(CLI::Range(0.0, 1.0));
  test_time.add_options(app);
  app.add_flag(
      "--no-match-inclusive", match_above,
      "an IoU of 0.5 is no match, only more is, as in py-faster-rcnn and Detectron2; by default as the run's setting says");
  app.add_option("--json", json, "write the figures to this file as JSON");
  app.add_option("--curves", curves, "write precision and recall of each class to this file as CSV");
  if (const int status = parse_command_line(app, argc, argv); status >= 0) return status;

  use_threads(threads);
  const Device device = use(device_settings);
  auto [config, model] = load_detector(load_safetensors(checkpoint));
  const TrainConfig trained = config;
  if (!data.empty()) config.data = data;
  if (!years.empty()) config.years = years, config.test_years.clear();
  config.drop_bad_boxes |= drop_bad_boxes;
  if (match_above) config.match_inclusive = false;
  if (score_threshold >= 0) model->options().detections.score_threshold = static_cast<float>(score_threshold);
  test_time.apply(config.model, model->options());
  nn::to(*model, device);
  const Dataset test = open_test_set(config, trained, split);

  catch_stop_signals();
  ProgressLine line(100);
  const Evaluation result = evaluate_detector(*model, test, config, device, [&](std::int64_t done, std::int64_t all) {
    line.show(message("evaluating image ", done, " of ", all));
  });
  line.clear();
  if (result.stopped) return 128 + stop_signal;
  std::printf("%s", result.table.c_str());
  if (!json.empty()) write_file_atomically(json, result.json + "\n");
  if (!curves.empty()) write_file_atomically(curves, result.curves);
  return 0;
}

}  // namespace
}  // namespace shrike::apps

int main(int argc, char** argv) {
  return shrike::apps::guarded_main("eval_frcnn", [&] { return shrike::apps::run(argc, argv); });
}
