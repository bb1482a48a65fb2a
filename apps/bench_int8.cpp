// bench_int8: the time of a detector in float and in int8, side by side: whole, its parts, and each layer.
#include <algorithm>
#include <chrono>
#include <functional>
#include <iostream>

#include "apps/quantized.hpp"
#include "shrike/core/parallel.hpp"
#include "shrike/io/file.hpp"
#include "shrike/io/json.hpp"

namespace shrike::apps {
namespace {

struct Arguments {
  std::string checkpoint, quantized, size = "600x800", json;
  DeviceSettings device;
  int runs = 10, threads = 0;
  models::DetectorConfig model;
};

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Times of one thing, in ms.
struct Times {
  std::vector<double> ms;

  // The least value that at least this share of the times does not exceed.
  double quantile(double share) const {
    if (ms.empty()) return 0;
    std::vector<double> sorted = ms;
    std::sort(sorted.begin(), sorted.end());
    const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size())));
    return sorted[std::clamp<std::size_t>(rank, 1, sorted.size()) - 1];
  }
  double median() const { return quantile(0.5); }
};

// A part that tells what its forward took. On a device the result's first element is waited for.
class Timed : public nn::Module {
 public:
  explicit Timed(std::shared_ptr<Graph> part) : graph(std::move(part)) {}
  Tensors forward(const Tensors& in) override {
    const double start = now_ms();
    Tensors out = graph->forward(in);
    wait(out);
    spent += now_ms() - start;
    return out;
  }
  static void wait(const Tensors& out) {
    if (!out.empty() && out[0].device() != Device::cpu) out[0].to(Device::cpu);
  }

  std::shared_ptr<Graph> graph;
  double spent = 0;
};

// One of the two detectors.
struct Subject {
  std::string name;
  models::Parts<Timed> parts;
  std::shared_ptr<models::FasterRcnn> model;
  Times whole;
  std::array<Times, 3> part_times;
  Times rest;  // proposals, pooling, decoding

  Subject(std::string title, const models::Parts<Graph>& graphs, const models::FasterRcnnOptions& options)
      : name(std::move(title)) {
    for (std::size_t i = 0; i < 3; ++i) parts[i] = std::make_shared<Timed>(graphs[i]);
    model = models::join(parts, options);
    nn::train(*model, false);
  }

  void run(const Tensor& image, const ImageSize& size, bool count) {
    for (const auto& part : parts) part->spent = 0;
    const double start = now_ms();
    model->detect(image, {size});
    const double spent = now_ms() - start;
    if (!count) return;
    whole.ms.push_back(spent);
    double inside = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      part_times[i].ms.push_back(parts[i]->spent);
      inside += parts[i]->spent;
    }
    rest.ms.push_back(spent - inside);
  }
};

struct LayerTime {
  std::string name, op;
  Times times;
};

// The time of each node of a graph, run one by one; `out` becomes the graph's outputs.
std::vector<LayerTime> time_layers(const Graph& graph, const std::string& part, const Tensors& in, int runs, Tensors& out) {
  const NoGrad no_grad;
  std::vector<LayerTime> layers;
  for (const Graph::Node& node : graph.nodes) layers.push_back({part + "." + graph.node_name(node), node.op->name(), {}});
  for (int run = 0; run <= runs; ++run) {  // the first is not counted
    std::map<Graph::Value, Tensor> values;
    std::map<Graph::Value, int> left = graph.uses();
    for (std::size_t i = 0; i < in.size(); ++i) values[graph.inputs[i]] = in[i];
    const auto take = [&](Graph::Value value) {
      if (value == Graph::none) return Tensor();
      const auto constant = graph.constants.find(value);
      if (constant != graph.constants.end()) return constant->second;
      Tensor tensor = values.at(value);
      if (--left[value] == 0) values.erase(value);
      return tensor;
    };
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
      Tensors operands;
      for (const Graph::Value value : graph.nodes[i].inputs) operands.push_back(take(value));
      const double start = now_ms();
      const Tensors results = call(graph.nodes[i].op, operands);
      Timed::wait(results);
      if (run > 0) layers[i].times.ms.push_back(now_ms() - start);
      for (std::size_t k = 0; k < results.size() && k < graph.nodes[i].outputs.size(); ++k) {
        values[graph.nodes[i].outputs[k]] = results[k];
      }
    }
    out.clear();
    for (const Graph::Value value : graph.outputs) out.push_back(take(value));
  }
  return layers;
}

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
Tensor head_input(const Tensor& map, const models::FasterRcnnOptions& options, const ImageSize& size) {
  Random random(2, RandomStream::test);
  const std::int64_t count = options.test_proposals.post_nms;
  std::vector<float> rois;
  for (std::int64_t i = 0; i < count; ++i) {
    const float x = random.uniform(0, 0.7f) * static_cast<float>(size.width);
    const float y = random.uniform(0, 0.7f) * static_cast<float>(size.height);
    rois.insert(rois.end(), {0, x, y, x + 16 + random.uniform(0, 0.25f) * static_cast<float>(size.width),
                             y + 16 + random.uniform(0, 0.25f) * static_cast<float>(size.height)});
  }
  RoiOptions roi = options.roi;
  roi.spatial_scale = static_cast<double>(map.size(1)) / size.height;
  const Tensor regions = tensor<float>({count, 5}, rois, map.device());
  return options.roi_align ? roi_align(map, regions, roi) : roi_pool(map, regions, roi);
}

// A thing that only one of them has gets dashes for the other.
void print_row(const std::string& name, const Times& a, const Times& b) {
  std::printf("%-36s", name.c_str());
  for (const Times* times : {&a, &b}) {
    if (times->ms.empty()) {
      std::printf(" %9s %9s", "-", "-");
    } else {
      std::printf(" %9.2f %9.2f", times->median(), times->quantile(0.99));
    }
  }
  if (a.median() > 0 && b.median() > 0) std::printf("  %6.2fx", a.median() / b.median());
  std::printf("\n");
}

void json_times(JsonWriter& json, const char* key, const Times& times) {
  json.key(key).begin_object().field("median_ms", times.median()).field("p99_ms", times.quantile(0.99)).end_object();
}

int parse(int argc, char** argv, Arguments& a) {
  a.model.min_size = 600;
  a.model.roi = "pool";
  for (int i = 1; i <= 20; ++i) a.model.classes.push_back("class" + std::to_string(i));
  CLI::App app(
      "Times a detector in float and in int8, alternating: whole, its parts, each layer. Without files: VGG16 of full "
      "width with random weights.",
      "bench_int8");
  app.add_option("--checkpoint", a.checkpoint, "the float detector: a checkpoint of train_frcnn");
  app.add_option("--quantized", a.quantized, "the int8 detector: a file of qat_frcnn; else the float one, calibrated here");
  app.add_option("--size", a.size, "the image: HEIGHTxWIDTH")->capture_default_str();
  app.add_option("--runs", a.runs, "timed runs of each, after one that is not counted")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--threads", a.threads, "threads for computing; 0 means one per core")->capture_default_str();
  OptionAdder adder{app, "Device"};
  a.device.visit(adder);
  app.add_option("--json", a.json, "write the times to this file as JSON");
  OptionAdder model{app, "Model, without a checkpoint"};
  a.model.visit(model);
  return parse_command_line(app, argc, argv);
}

int bench(Arguments a) {
  set_num_threads(a.threads);
  const Device device = use(a.device);
  const ImageSize size = parse_size(a.size);
  SHRIKE_CHECK(a.quantized.empty() || !a.checkpoint.empty(), "--quantized needs --checkpoint: the float detector beside it");
  std::shared_ptr<models::FasterRcnn> detector;
  if (a.checkpoint.empty()) {
    detector = models::make_detector(a.model);
    nn::initialize(*detector, 1);
  } else {
    const TensorFile file = load_safetensors(a.checkpoint);
    SHRIKE_CHECK(!is_quantized(file), a.checkpoint, ": is quantized: expected a checkpoint of train_frcnn");
    LoadedDetector loaded = load_detector(file);
    a.model = loaded.config.model;
    detector = loaded.model;
  }
  nn::to(*detector, device);
  const Tensor image = random_image(size).to(device);
  const models::FusedDetector fused = models::fuse_detector(*detector);
  models::Parts<Graph> int8;
  if (a.quantized.empty()) {
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
    int8 = models::read_parts(file);
    for (const auto& part : int8) nn::to(*part, device);
  }

  Subject subjects[] = {{"float", fused.parts, fused.options}, {"int8", int8, fused.options}};
  for (int run = 0; run <= a.runs; ++run) {
    for (Subject& subject : subjects) subject.run(image, size, run > 0);
  }
  // Layers: both graphs in turn, part by part. Names differ where codes are made or unmade.
  std::vector<LayerTime> layers[2];
  for (std::size_t s = 0; s < 2; ++s) {
    Tensors maps, ignored;
    const auto add = [&](std::size_t part, const Tensor& in, Tensors& out) {
      const auto times = time_layers(*subjects[s].parts[part]->graph, models::part_names[part], {in}, a.runs, out);
      layers[s].insert(layers[s].end(), times.begin(), times.end());
    };
    add(0, image, maps);
    add(1, maps[0], ignored);
    add(2, head_input(maps[0], fused.options, size), ignored);
  }

  std::printf("%s, width %d, %dx%d, %d thread(s), %d runs; ms\n\n", a.model.backbone.c_str(), a.model.width, size.height,
              size.width, num_threads(), a.runs);
  std::printf("%-36s %9s %9s %9s %9s\n", "", "float", "p99", "int8", "p99");
  const auto& [f, q] = subjects;
  print_row("detector", f.whole, q.whole);
  for (std::size_t i = 0; i < 3; ++i) print_row(std::string("  ") + models::part_names[i], f.part_times[i], q.part_times[i]);
  print_row("  proposals, pooling, decoding", f.rest, q.rest);
  std::printf("\n");
  const auto twin = [&](const std::vector<LayerTime>& among, const LayerTime& of) {
    return std::find_if(among.begin(), among.end(), [&](const LayerTime& l) { return l.name == of.name; });
  };
  for (const LayerTime& layer : layers[0]) {
    const auto other = twin(layers[1], layer);
    print_row(layer.name, layer.times, other == layers[1].end() ? Times{} : other->times);
  }
  for (const LayerTime& layer : layers[1]) {
    if (twin(layers[0], layer) == layers[0].end()) print_row(layer.name, {}, layer.times);
  }

  if (!a.json.empty()) {
    JsonWriter json;
    json.begin_object().field("backbone", a.model.backbone).field("width", a.model.width).field("height", size.height);
    json.field("image_width", size.width)
        .field("threads", num_threads())
        .field("runs", a.runs)
        .field("device", a.device.device);
    for (std::size_t s = 0; s < 2; ++s) {
      json.key(subjects[s].name).begin_object();
      json_times(json, "detector", subjects[s].whole);
      for (std::size_t i = 0; i < 3; ++i) json_times(json, models::part_names[i], subjects[s].part_times[i]);
      json_times(json, "rest", subjects[s].rest);
      json.key("layers").begin_array();
      for (const LayerTime& layer : layers[s]) {
        json.begin_object().field("name", layer.name).field("op", layer.op);
        json.field("median_ms", layer.times.median()).field("p99_ms", layer.times.quantile(0.99)).end_object();
      }
      json.end_array().end_object();
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
