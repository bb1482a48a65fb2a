// detector_bench: the time of one inference or one training step of a whole detector on random input, or the throughput of
// several user threads that share one detector. The last line is JSON.
#include <algorithm>
#include <atomic>
#include <exception>
#include <iostream>
#include <thread>

#include "apps/device.hpp"
#include "apps/settings.hpp"
#include "benchmarks/support/timing.hpp"
#include "models/detector.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/io/json.hpp"
#include "shrike/nn/optim.hpp"

#include <sys/resource.h>

namespace shrike {
namespace {

constexpr int warmup = 2;

struct Arguments {
  std::string mode = "infer";
  int height = 600, width = 800, runs = 5, threads = 0, user_threads = 0;
  apps::DeviceSettings device;
  models::DetectorConfig model;
};

struct Input {
  Tensor image;
  std::vector<ImageSize> sizes;
  std::vector<models::Target> targets;
};

Input random_input(const Arguments& arguments, const Device& device) {
  Random random(1, RandomStream::test);
  const Tensor image({1, arguments.height, arguments.width, 3});
  for (std::int64_t i = 0; i < image.numel(); ++i) image.data<float>()[i] = random.normal();
  std::vector<float> boxes;
  std::vector<std::int32_t> labels;
  for (int i = 0; i < 12; ++i) {
    const float x = random.uniform(0, 0.7f) * static_cast<float>(arguments.width);
    const float y = random.uniform(0, 0.7f) * static_cast<float>(arguments.height);
    boxes.insert(boxes.end(), {x, y, x + 16 + random.uniform(0, 0.25f) * static_cast<float>(arguments.width),
                               y + 16 + random.uniform(0, 0.25f) * static_cast<float>(arguments.height)});
    labels.push_back(1 + static_cast<std::int32_t>(random.below(3)));
  }
  return {image,
          {{arguments.height, arguments.width}},
          {{tensor<float>({12, 4}, boxes, device), tensor<std::int32_t>({12}, labels, device)}}};
}

// Seconds of each run after the first ones.
template <class F> std::vector<double> timed(int runs, const F& run) {
  std::vector<double> seconds;
  for (int i = 0; i < runs + warmup; ++i) {
    const double start = timing::seconds();
    run();
    if (i >= warmup) seconds.push_back(timing::seconds() - start);
  }
  return seconds;
}

std::vector<double> time_steps(models::FasterRcnn& detector, const Input& input, const Device& device, int runs) {
  std::vector<nn::SgdParameter> parameters;
  for (const auto& [name, parameter] : nn::named_parameters(detector)) {
    if (parameter.requires_grad()) parameters.push_back({name, parameter, 1.0f, 0.0f, {}});
  }
  nn::Sgd optimizer(parameters, nn::SgdOptions{});
  nn::train(detector, true);
  std::uint64_t step = 0;
  return timed(runs, [&] {
    const Tensor loss = detector.losses(input.image.to(device), input.sizes, input.targets, 1, step++).total;
    backward(loss);
    optimizer.step(1e-4f);
    static_cast<void>(loss.item());  // as a training loop does; waits for the device
  });
}

// Images per second of so many user threads, which take `runs` images for each of them, one after the other. The first
// exception reaches the caller.
double throughput(models::FasterRcnn& detector, const Input& input, const Device& device, int threads, int runs) {
  std::atomic<int> left = 0;
  std::atomic<bool> failed = false;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      while (left.fetch_sub(1) > 0) detector.detect(input.image.to(device), input.sizes);
    } catch (...) {
      left = 0;
      if (!failed.exchange(true)) error = std::current_exception();
    }
  };
  const auto run = [&](int images) {
    left = images;
    std::vector<std::thread> users;
    for (int i = 0; i < threads; ++i) users.emplace_back(work);
    for (std::thread& user : users) user.join();
    if (failed) std::rethrow_exception(error);
  };
  run(std::max(warmup, threads));
  const double start = timing::seconds();
  run(threads * runs);
  return threads * runs / (timing::seconds() - start);
}

// Box deltas of 0 and scores near each other: the proposals that a network with random weights makes are many, as in a real
// one.
int measure(const Arguments& arguments) {
  set_num_threads(arguments.threads);
  const Device device = apps::use(arguments.device);
  const auto detector = models::make_detector(arguments.model);
  nn::initialize(*detector, 1);
  nn::to(*detector, device);
  nn::train(*detector, false);
  const Input input = random_input(arguments, device);
  JsonWriter json;
  json.begin_object().field("mode", arguments.mode).field("device", name(device)).field("threads", num_threads());
  if (arguments.user_threads > 0) {
    json.field("user_threads", arguments.user_threads)
        .field("images_per_s", throughput(*detector, input, device, arguments.user_threads, arguments.runs));
  } else {
    const std::vector<double> seconds =
        arguments.mode == "step" ? time_steps(*detector, input, device, arguments.runs)
                                 : timed(arguments.runs, [&] { detector->detect(input.image.to(device), input.sizes); });
    const auto [least, greatest] = std::minmax_element(seconds.begin(), seconds.end());
    json.field("median_s", timing::median(seconds)).field("min_s", *least).field("max_s", *greatest);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  json.field("peak_rss_mb", static_cast<double>(usage.ru_maxrss) / 1024).end_object();
  std::cout << json.str() << std::endl;
  return 0;
}

int run(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i <= 20; ++i) arguments.model.classes.push_back("class" + std::to_string(i));
  CLI::App app("Times a whole Faster R-CNN on random input.", "detector_bench");
  app.add_option("mode", arguments.mode, "infer or step")->check(CLI::IsMember({"infer", "step"}))->capture_default_str();
  app.add_option("--height", arguments.height, "height of the image")->capture_default_str();
  app.add_option("--image-width", arguments.width, "width of the image")->capture_default_str();
  app.add_option("--runs", arguments.runs, "timed runs, after two that are not counted; with --user-threads for each of them")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--threads", arguments.threads, "threads; 0 means one per core")->capture_default_str();
  app.add_option("--user-threads", arguments.user_threads, "threads of a user that detect at once with one detector; 0: none")
      ->capture_default_str()
      ->check(CLI::Range(0, 256));
  apps::OptionAdder model{app, "Model"};
  arguments.model.visit(model);
  apps::OptionAdder device_options{app, "Device"};
  arguments.device.visit(device_options);
  if (const int status = apps::parse_command_line(app, argc, argv); status >= 0) return status;
  SHRIKE_CHECK(arguments.user_threads == 0 || arguments.mode == "infer", "--user-threads: expected mode infer");
  return measure(arguments);
}

}  // namespace
}  // namespace shrike

int main(int argc, char** argv) {
  return shrike::apps::guarded_main("detector_bench", [&] { return shrike::run(argc, argv); });
}
