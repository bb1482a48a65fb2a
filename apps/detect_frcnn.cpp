// detect_frcnn: finds objects in image files, draws them and lists them as JSON.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <new>

#include "apps/progress.hpp"
#include "apps/quantized.hpp"
#include "apps/signals.hpp"
#include "apps/test_time.hpp"
#include "apps/threads.hpp"
#include "shrike/core/staging.hpp"
#include "shrike/data/draw.hpp"
#include "shrike/io/file.hpp"
#include "shrike/io/json.hpp"

namespace shrike::apps {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string checkpoint;
  std::vector<std::string> inputs;
  std::string output = "detections";
  double score = 0.5;
  bool draw = true;
  DeviceSettings device;
  TestTime test_time;
  int threads = 0;
};

// The files among the inputs, and those with an image's extension in folders, in order of name.
std::vector<fs::path> image_files(const std::vector<std::string>& inputs) {
  std::vector<fs::path> files;
  for (const std::string& input : inputs) {
    SHRIKE_CHECK(fs::exists(input), input, ": no such file or folder");
    if (!fs::is_directory(input)) {
      files.emplace_back(input);
      continue;
    }
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(input)) {
      std::string extension = entry.path().extension().string();
      std::transform(extension.begin(), extension.end(), extension.begin(), [](unsigned char c) { return std::tolower(c); });
      if (extension == ".jpg" || extension == ".jpeg" || extension == ".png" || extension == ".bmp")
        found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    SHRIKE_CHECK(!found.empty(), input, ": no .jpg, .jpeg, .png or .bmp file in this folder");
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

// The objects in one image, in its own pixels, best first.
std::vector<Detection> detect(models::FasterRcnn& model, const models::DetectorConfig& config, const Image& image,
                              Device device) {
  ImageSize size = target_size(image.height, image.width, config.min_size, config.max_size);
  size.scale = static_cast<float>(size.width) / static_cast<float>(image.width);
  const Tensor input = staging_tensor({1, size.height, size.width, 3}, Dtype::f32, device);
  resize_normalize(image, size.height, size.width, models::normalization(config), false, input.data<float>(),
                   3 * std::int64_t{size.width});
  auto found = model.detect(input.to(device), {size})[0];
  for (Detection& detection : found) {
    const float x = static_cast<float>(image.width) / static_cast<float>(size.width);
    const float y = static_cast<float>(image.height) / static_cast<float>(size.height);
    detection.box = {detection.box.x1 * x, detection.box.y1 * y, detection.box.x2 * x, detection.box.y2 * y};
  }
  return found;
}

void write_json(JsonWriter& json, const fs::path& file, const Image& image, const std::vector<Detection>& found,
                const std::vector<std::string>& classes) {
  json.begin_object().field("image", file.string()).field("height", image.height).field("width", image.width);
  json.key("detections").begin_array();
  for (const Detection& detection : found) {
    json.begin_object()
        .field("class", classes.at(static_cast<std::size_t>(detection.label - 1)))
        .field("score", detection.score);
    json.key("box")
        .begin_array()
        .value(detection.box.x1)
        .value(detection.box.y1)
        .value(detection.box.x2)
        .value(detection.box.y2)
        .end_array();
    json.end_object();
  }
  json.end_array().end_object();
}

// Two inputs of one name in different folders get different outputs.
fs::path output_file(const std::string& folder, const fs::path& file, std::vector<fs::path>& taken) {
  fs::path result = fs::path(folder) / (file.stem().string() + ".png");
  for (int i = 2; std::find(taken.begin(), taken.end(), result) != taken.end(); ++i) {
    result = fs::path(folder) / (file.stem().string() + "-" + std::to_string(i) + ".png");
  }
  taken.push_back(result);
  return result;
}

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Finds objects in images: annotated pictures and detections.json in the output folder.", "detect_frcnn");
  app.add_option("checkpoint", arguments.checkpoint,
                 "checkpoint of train_frcnn, such as runs/shapes/best.safetensors, or a file of qat_frcnn")
      ->required();
  app.add_option("inputs", arguments.inputs, "image files, and folders of them")->required();
  app.add_option("-o,--output", arguments.output, "folder for the results")->capture_default_str();
  app.add_option("--score", arguments.score, "least score of a detection")->capture_default_str();
  app.add_flag("--draw,!--no-draw", arguments.draw, "write annotated pictures")->capture_default_str();
  arguments.test_time.add_options(app);
  OptionAdder adder{app, "Device"};
  arguments.device.visit(adder);
  app.add_option("--threads", arguments.threads, threads_help)->capture_default_str()->check(CLI::NonNegativeNumber);
  if (const int status = parse_command_line(app, argc, argv); status >= 0) return status;

  use_threads(arguments.threads);
  const Device device = use(arguments.device);
  const std::vector<fs::path> files = image_files(arguments.inputs);
  LoadedDetector loaded = load_detector(load_safetensors(arguments.checkpoint));
  models::DetectorConfig& config = loaded.config.model;
  const auto& model = loaded.model;
  model->options().detections.score_threshold = static_cast<float>(arguments.score);
  arguments.test_time.apply(config, model->options());
  nn::to(*model, device);
  std::error_code error;
  fs::create_directories(arguments.output, error);
  SHRIKE_CHECK(!error, arguments.output, ": cannot make this folder: ", error.message());

  catch_stop_signals();
  ProgressLine line(100);
  JsonWriter json;
  json.begin_array();
  std::vector<fs::path> taken;
  std::int64_t objects = 0, done = 0, failed = 0;
  const Pace pace(static_cast<long long>(files.size()));
  for (const fs::path& path : files) {
    if (stop_signal != 0) break;
    const auto report = [&](const std::string& problem) {  // one bad file does not keep the others from being looked at
      line.clear();
      std::cerr << "detect_frcnn: " << problem << std::endl;
      ++failed;
    };
    try {
      Image image = read_image(path.string());
      const auto found = detect(*model, config, image, device);
      write_json(json, path, image, found, config.classes);
      if (arguments.draw) {
        draw_detections(image, found, config.classes);
        write_image(output_file(arguments.output, path, taken).string(), image);
      }
      objects += static_cast<std::int64_t>(found.size());
    } catch (const Error& problem) {
      report(problem.what());
    } catch (const std::bad_alloc&) {
      report(path.string() + ": not enough memory to look at this image; --max-size makes it smaller");
    }
    line.show(++done, message("image ", done, " of ", files.size()));
  }
  line.clear();
  json.end_array();
  write_file_atomically(arguments.output + "/detections.json", json.str() + "\n");
  std::printf("%lld objects in %lld images, %.1f images/s; results in %s\n", static_cast<long long>(objects),
              static_cast<long long>(done - failed), static_cast<double>(done) / pace.seconds(), arguments.output.c_str());
  if (stop_signal != 0) return 128 + stop_signal;
  return failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace shrike::apps

int main(int argc, char** argv) {
  return shrike::apps::guarded_main("detect_frcnn", [&] { return shrike::apps::run(argc, argv); });
}
