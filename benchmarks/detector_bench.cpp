// detector_bench: the time of one inference or one training step of a whole detector on random input. The last line is JSON.
#include <algorithm>
#include <chrono>
#include <iostream>

#include "apps/device.hpp"
#include "apps/settings.hpp"
#include "models/detector.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/io/json.hpp"
#include "shrike/nn/optim.hpp"

#include <sys/resource.h>

namespace shrike {
namespace {

struct Arguments {
  std::string mode = "infer";
  int height = 600, width = 800, runs = 5, threads = 0;
  apps::DeviceSettings device;
  models::DetectorConfig model;
};

// Box deltas of 0 and scores near each other: the proposals that a network with random weights makes are many, as in a real
// one.
int run(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i <= 20; ++i) arguments.model.classes.push_back("class" + std::to_string(i));
  CLI::App app("Times a whole Faster R-CNN on random input.", "detector_bench");
  app.add_option("mode", arguments.mode, "infer or step")->check(CLI::IsMember({"infer", "step"}))->capture_default_str();
  app.add_option("--height", arguments.height, "height of the image")->capture_default_str();
  app.add_option("--image-width", arguments.width, "width of the image")->capture_default_str();
  app.add_option("--runs", arguments.runs, "timed runs, after two that are not counted")->capture_default_str();
  app.add_option("--threads", arguments.threads, "threads; 0 means one per core")->capture_default_str();
  apps::OptionAdder model{app, "Model"};
  arguments.model.visit(model);
  apps::OptionAdder device_options{app, "Device"};
  arguments.device.visit(device_options);
  if (const int status = apps::parse_command_line(app, argc, argv); status >= 0) return status;

  set_num_threads(arguments.threads);
  const Device device = apps::use(arguments.device);
  const auto detector = models::make_detector(arguments.model);
  nn::initialize(*detector, 1);
  nn::to(*detector, device);
  Random random(1, RandomStream::test);
  const Tensor image({1, arguments.height, arguments.width, 3});
  for (std::int64_t i = 0; i < image.numel(); ++i) image.data<float>()[i] = random.normal();
  const std::vector<ImageSize> sizes = {{arguments.height, arguments.width}};
  std::vector<float> boxes;
  std::vector<std::int32_t> labels;
  for (int i = 0; i < 12; ++i) {
    const float x = random.uniform(0, 0.7f) * static_cast<float>(arguments.width);
    const float y = random.uniform(0, 0.7f) * static_cast<float>(arguments.height);
    boxes.insert(boxes.end(), {x, y, x + 16 + random.uniform(0, 0.25f) * static_cast<float>(arguments.width),
                               y + 16 + random.uniform(0, 0.25f) * static_cast<float>(arguments.height)});
    labels.push_back(1 + static_cast<std::int32_t>(random.below(3)));
  }
  const std::vector<models::Target> targets = {
      {tensor<float>({12, 4}, boxes, device), tensor<std::int32_t>({12}, labels, device)}};
  std::vector<nn::SgdParameter> parameters;
  for (const auto& [name, parameter] : nn::named_parameters(*detector)) {
    if (parameter.requires_grad()) parameters.push_back({name, parameter, 1.0f, 0.0f, {}});
  }
  std::unique_ptr<nn::Sgd> optimizer;
  if (arguments.mode == "step") optimizer = std::make_unique<nn::Sgd>(parameters, nn::SgdOptions{});
  nn::train(*detector, arguments.mode == "step");

  std::vector<double> seconds;
  std::uint64_t step = 0;
  for (int i = 0; i < arguments.runs + 2; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (optimizer) {
      const Tensor loss = detector->losses(image.to(device), sizes, targets, 1, step++).total;
      backward(loss);
      optimizer->step(1e-4f);
      static_cast<void>(loss.item());  // as a training loop does; waits for the device
    } else {
      detector->detect(image.to(device), sizes);
    }
    if (i >= 2) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  JsonWriter json;
  json.begin_object()
      .field("mode", arguments.mode)
      .field("device", name(device))
      .field("threads", num_threads())
      .field("median_s", seconds[seconds.size() / 2]);
  json.field("min_s", seconds.front()).field("max_s", seconds.back());
  json.field("peak_rss_mb", static_cast<double>(usage.ru_maxrss) / 1024).end_object();
  std::cout << json.str() << std::endl;
  return 0;
}

}  // namespace
}  // namespace shrike

int main(int argc, char** argv) {
  return shrike::apps::guarded_main("detector_bench", [&] { return shrike::run(argc, argv); });
}
