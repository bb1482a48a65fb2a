// bench_int8: the time of a detector in float and in int8, side by side: whole, its parts, and each layer.
#include <functional>
#include <iostream>

#include <filesystem>
#include "apps/bench_ceiling.hpp"
#include "apps/bench_summary.hpp"
#include "apps/bench_table.hpp"
#include "apps/datasets.hpp"
#include "apps/progress.hpp"
#include "apps/quantized.hpp"
#include "apps/threads.hpp"
#include "shrike/io/file.hpp"

namespace shrike::apps {
namespace {

struct Arguments {
  std::string checkpoint, quantized, size = "600x800", json;
  DeviceSettings device;
  int runs = 10, threads = 0;
  bool cpu_time = false, evaluate = false, dynamic = false;
  models::DetectorConfig model;
};

// A part that tells what its forward took, in ms.
class Timed : public nn::Module {
 public:
  Timed(std::shared_ptr<Graph> part, bool cpu_time) : graph(std::move(part)), cpu_time_(cpu_time) {}
  Tensors forward(const Tensors& in) override {
    const double start = timing::seconds(cpu_time_);
    Tensors out = graph->forward(in);
    wait(out);
    spent += 1e3 * (timing::seconds(cpu_time_) - start);
    return out;
  }
  bool replayable() const override { return false; }

  std::shared_ptr<Graph> graph;
  double spent = 0;

 private:
  bool cpu_time_;
};

// One of the detectors that take turns.
struct Subject {
  bool tf32, cpu_time;
  models::Parts<Timed> parts;
  std::shared_ptr<models::FasterRcnn> model, undisturbed;  // of the timed parts, and of the parts as they are
  Column column;
  Tensor regions;  // the head's input, layer by layer

  Subject(const std::string& name, bool rounds, const models::Parts<Graph>& graphs, const models::FasterRcnnOptions& options,
          bool processor_time)
      : tf32(rounds), cpu_time(processor_time) {
    column.name = name;
    column.rows.push_back({"detector", {}});
    for (std::size_t i = 0; i < 3; ++i) {
      parts[i] = std::make_shared<Timed>(graphs[i], cpu_time);
      column.rows.push_back({std::string("  ") + models::part_names[i], {}});
    }
    column.rows.push_back({"  proposals, pooling, decoding", {}});
    model = models::join(parts, options);
    undisturbed = models::join(graphs, options);
    nn::train(*model, false);
    nn::train(*undisturbed, false);
  }

  void run(const Tensor& image, const ImageSize& size, bool count) {
    cuda_settings().tf32 = tf32;
    const auto timed = [&](models::FasterRcnn& detector) {
      const double start = timing::seconds(cpu_time);
      detector.detect(image, {size});
      return 1e3 * (timing::seconds(cpu_time) - start);
    };
    for (const auto& part : parts) part->spent = 0;
    double rest = timed(*model), whole = rest;
    if (image.device() != Device::cpu) {
      // Timed parts wait for the device, and cannot be replayed. The second run of all records a graph, and is not counted.
      if (!count) timed(*undisturbed);
      whole = timed(*undisturbed);
    }
    if (!count) return;
    column.rows[0].second.ms.push_back(whole);
    for (std::size_t i = 0; i < 3; ++i) {
      column.rows[i + 1].second.ms.push_back(parts[i]->spent);
      rest -= parts[i]->spent;
    }
    column.rows[4].second.ms.push_back(rest);
  }
};

Tensor random_image(const ImageSize& size) {
  Random random(1, RandomStream::test);
  const Tensor image({1, size.height, size.width, 3});
  for (std::int64_t i = 0; i < image.numel(); ++i) image.data<float>()[i] = random.normal();
  return image;
}

ImageSize parse_size(const std::string& text) {
  ImageSize size{0, 0};
  char cross = 0, more = 0;
  const int read = std::sscanf(text.c_str(), "%d%c%d%c", &size.height, &cross, &size.width, &more);
  SHRIKE_CHECK(read == 3 && cross == 'x' && size.height >= 32 && size.width >= 32 && size.height <= 8192 && size.width <= 8192,
               "size '", text, "': expected HEIGHTxWIDTH, as in 600x800, 32 to 8192 each");
  return size;
}

// Regions spread over the image, as many as the detector looks at: the head's work does not depend on where they are.
Tensor head_input(models::FasterRcnn& detector, const Tensor& map, const ImageSize& size) {
  Random random(2, RandomStream::test);
  const std::int64_t count = detector.options().test_proposals.post_nms;
  std::vector<float> rois;
  for (std::int64_t i = 0; i < count; ++i) {
    const float x = random.uniform(0, 0.7f) * static_cast<float>(size.width);
    const float y = random.uniform(0, 0.7f) * static_cast<float>(size.height);
    rois.insert(rois.end(), {0, x, y, x + 16 + random.uniform(0, 0.25f) * static_cast<float>(size.width),
                             y + 16 + random.uniform(0, 0.25f) * static_cast<float>(size.height)});
  }
  return detector.pool({map}, size.height, tensor<float>({count, 5}, rois, map.device()));
}

// Every layer of a detector once.
void run_all_layers(Subject& subject, std::array<std::vector<LayerTime>, 3>& layers, const Tensor& image, const ImageSize& size,
                    bool count) {
  cuda_settings().tf32 = subject.tf32;
  const auto run = [&](std::size_t part, const Tensor& in) {
    return run_layers(*subject.parts[part]->graph, models::part_names[part], {in}, count, subject.cpu_time, layers[part]);
  };
  const Tensors maps = run(0, subject.undisturbed->padded(image));
  run(1, maps[0]);
  if (!subject.regions.defined()) subject.regions = head_input(*subject.undisturbed, maps[0], size);
  run(2, subject.regions);
}

int parse(int argc, char** argv, Arguments& a) {
  a.model.min_size = 600;
  a.model.roi = "pool";
  for (int i = 1; i <= 20; ++i) a.model.classes.push_back("class" + std::to_string(i));
  CLI::App app(
      "Times a detector in float (on a device in fp32, TF32 and fp16) and in int8, in turn: whole, its parts, each layer with "
      "its kernel, its rate and how near that is to what the machine can do. Without files: VGG16 of full width with random "
      "weights.",
      "bench_int8");
  app.add_option("--checkpoint", a.checkpoint, "the float detector: a checkpoint of train_frcnn");
  app.add_option("--quantized", a.quantized, "the int8 detector: a file of qat_frcnn; else the float one, calibrated here");
  app.add_flag("--dynamic", a.dynamic, "without --quantized: nothing is calibrated, ranges are found as the detector runs");
  app.add_option("--size", a.size, "the image: HEIGHTxWIDTH")->capture_default_str();
  app.add_option("--runs", a.runs, "timed runs of each, after one that is not counted")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--threads", a.threads, threads_help)->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_flag("--cpu-time", a.cpu_time, "measure processor time instead of the clock: for one thread on a busy machine");
  app.add_flag("--evaluate", a.evaluate, "also measure what both find in the run's test set; needs both files");
  OptionAdder adder{app, "Device"};
  a.device.visit(adder);
  app.add_option("--json", a.json, "write the times to this file as JSON");
  OptionAdder model{app, "Model, without a checkpoint"};
  a.model.visit(model);
  return parse_command_line(app, argc, argv);
}

Summary summarize(Subject& subject, const Dataset& test, const TrainConfig& config, Device device) {
  cuda_settings().tf32 = subject.tf32;
  Summary result;
  result.name = subject.column.name;
  result.ms = subject.column.rows[0].second.median();
  ProgressLine line(100);
  result.evaluation = evaluate_detector(*subject.model, test, config, device, [&](std::int64_t done, std::int64_t all) {
    line.show(done, message(result.name, ": image ", done, " of ", all));
  });
  return result;
}

int bench(Arguments a) {
  use_threads(a.threads);
  const Device device = use(a.device);
  const ImageSize size = parse_size(a.size);
  SHRIKE_CHECK(a.quantized.empty() || !a.checkpoint.empty(), "--quantized needs --checkpoint: the float detector beside it");
  SHRIKE_CHECK(!a.evaluate || !a.quantized.empty(), "--evaluate needs --checkpoint and --quantized");
  TrainConfig trained;
  std::shared_ptr<models::FasterRcnn> detector;
  if (a.checkpoint.empty()) {
    detector = models::make_detector(a.model);
    nn::initialize(*detector, 1);
  } else {
    const TensorFile file = load_safetensors(a.checkpoint);
    SHRIKE_CHECK(!is_quantized(file), a.checkpoint, ": is quantized: expected a checkpoint of train_frcnn");
    LoadedDetector loaded = load_detector(file);
    trained = loaded.config;
    a.model = trained.model;
    detector = loaded.model;
  }
  nn::to(*detector, device);
  const Tensor image = random_image(size).to(device);
  const models::FusedDetector fused = models::fuse_detector(*detector);
  models::Parts<Graph> int8;
  SHRIKE_CHECK(!a.dynamic || a.quantized.empty(),
               "--dynamic is for a detector that is quantized here: expected no --quantized");
  if (a.dynamic) {
    int8 = models::dynamic_detector(fused).parts;
  } else if (a.quantized.empty()) {
    const models::PreparedDetector prepared = models::prepare_detector(fused, {});
    bool done = false;
    models::calibrate(prepared, [&]() -> std::optional<std::pair<Tensor, std::vector<ImageSize>>> {
      if (std::exchange(done, true)) return std::nullopt;
      return std::pair{image, std::vector<ImageSize>{size}};
    });
    int8 = models::convert_detector(prepared).parts;
  } else {
    const TensorFile file = load_safetensors(a.quantized);
    SHRIKE_CHECK(is_quantized(file), a.quantized, ": not a file of qat_frcnn");
    const auto mode = file.metadata.find("mode");
    SHRIKE_CHECK(mode == file.metadata.end() || (mode->second != "half" && mode->second != "weight-only"), a.quantized,
                 ": is of mode ", mode->second, ": expected an int8 detector");
    int8 = models::read_parts(file);
    for (const auto& part : int8) nn::to(*part, device);
  }

  const bool cpu = device == Device::cpu;
  std::vector<Subject> subjects;
  const auto add = [&](const char* name, bool tf32, const models::Parts<Graph>& parts) {
    subjects.emplace_back(name, tf32, parts, fused.options, a.cpu_time);
  };
  if (cpu) {
    add("float", false, fused.parts);
  } else {
    add("fp32", false, fused.parts);
    if (a.device.tf32) add("tf32", true, fused.parts);
    add("fp16", a.device.tf32, models::half_detector(fused).parts);
  }
  add("int8", a.device.tf32, int8);
  for (int run = 0; run <= a.runs; ++run) {
    for (Subject& subject : subjects) subject.run(image, size, run > 0);
  }
  std::vector<std::array<std::vector<LayerTime>, 3>> layers(subjects.size());
  for (int run = 0; run <= a.runs; ++run) {
    for (std::size_t i = 0; i < subjects.size(); ++i) {
      run_all_layers(subjects[i], layers[i], image, size, run > 0);
    }
  }
  std::vector<Summary> summaries;
  if (a.evaluate) {
    catch_stop_signals();
    const Dataset test = open_test_set(trained, trained);
    for (Subject* subject : {&subjects.front(), &subjects.back()}) {
      summaries.push_back(summarize(*subject, test, trained, device));
      if (summaries.back().evaluation.stopped) return 128 + stop_signal;
    }
    for (const auto& part : fused.parts) summaries[0].bytes += nn::bytes_of(*part);
    summaries[1].bytes = std::filesystem::file_size(a.quantized);
  }
  std::vector<Column> columns;
  const Ceilings most = measure_ceilings(device);
  for (Subject& subject : subjects) {
    Column& column = subject.column;
    for (const auto& part : layers[columns.size()]) column.layers.insert(column.layers.end(), part.begin(), part.end());
    column.float_ceiling = subject.tf32 ? most.tf32 : most.fp32;
    column.ceiling = column.name == "int8" ? most.int8 : column.name == "fp16" ? most.fp16 : column.float_ceiling;
    columns.push_back(std::move(column));
  }

  std::printf("%s, width %d, %dx%d, %d thread(s), int8 by %s, %d runs%s\n\n", a.model.backbone.c_str(), a.model.width,
              size.height, size.width, num_threads(), cpu ? int8::kernels().name : "cuda", a.runs,
              a.cpu_time ? ", processor time" : "");
  print_tables(columns);
  if (a.evaluate) print_summary(summaries[0], summaries[1]);
  if (!a.json.empty()) {
    JsonWriter json;
    json.begin_object().field("backbone", a.model.backbone).field("width", a.model.width).field("height", size.height);
    json.field("image_width", size.width).field("threads", num_threads()).field("runs", a.runs);
    json.field("device", a.device.device).field("cpu_time", a.cpu_time);
    for (const Column& column : columns) write_column(json, column);
    if (a.evaluate) {
      json.key("summary").begin_object();
      for (const Summary& summary : summaries) write_summary(json, summary);
      json.end_object();
    }
    write_file_atomically(a.json, json.end_object().str() + "\n");
  }
  return 0;
}

}  // namespace
}  // namespace shrike::apps

int main(int argc, char** argv) {
  using namespace shrike::apps;
  return guarded_main("bench_int8", [&] {
    Arguments arguments;
    if (const int status = parse(argc, argv, arguments); status >= 0) return status;
    return bench(std::move(arguments));
  });
}
