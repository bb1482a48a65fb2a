// VGG16's layers in float and in int8, one after the other, everything included; medians. The instruction set of int8 is the
// best there is, or what SHRIKE_CPU_ISA asks for.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>

#include "benchmarks/support/timing.hpp"
#include "shrike/core/random.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/io/file.hpp"
#include "shrike/ops/quantized_conv.hpp"
#include "shrike/ops/quantized_linear.hpp"
#include "src/cpu/int8_kernels.hpp"

using namespace shrike;
using timing::median;
using timing::seconds;

namespace {

struct Layer {
  const char* name;
  std::int64_t c, k, scale;  // the image's size is divided by scale; 0: a linear layer of 300 rows
  bool features;
};

constexpr Layer layers[] = {{"conv1_1", 3, 64, 1, true},     {"conv1_2", 64, 64, 1, true},    {"conv2_1", 64, 128, 2, true},
                            {"conv2_2", 128, 128, 2, true},  {"conv3_1", 128, 256, 4, true},  {"conv3_2", 256, 256, 4, true},
                            {"conv3_3", 256, 256, 4, true},  {"conv4_1", 256, 512, 8, true},  {"conv4_2", 512, 512, 8, true},
                            {"conv4_3", 512, 512, 8, true},  {"conv5_1", 512, 512, 16, true}, {"conv5_2", 512, 512, 16, true},
                            {"conv5_3", 512, 512, 16, true}, {"rpn", 512, 512, 16, false},    {"fc6", 25088, 4096, 0, false},
                            {"fc7", 4096, 4096, 0, false}};

Tensor random_floats(const Shape& shape, float low) {
  Random random(1, RandomStream::test);
  const Tensor result(shape);
  for (std::int64_t i = 0; i < result.numel(); ++i) result.data<float>()[i] = random.uniform(low, 1.0f);
  return result;
}

Tensor random_activations(const Shape& shape, Dtype dtype) {
  Random random(2, RandomStream::test);
  const Tensor result(shape, dtype);
  auto* to = static_cast<std::uint8_t*>(result.raw());
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    to[i] = static_cast<std::uint8_t>(dtype == Dtype::u8 ? random.below(256) : random.below(255) - 127);
  }
  return result;
}

// Normal with the greatest of a channel at about 127, as trained weights are.
Tensor random_weights(const Shape& shape) {
  Random random(3, RandomStream::test);
  const Tensor result(shape, Dtype::s8);
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    result.data<std::int8_t>()[i] = static_cast<std::int8_t>(std::clamp(32.0f * random.normal(), -127.0f, 127.0f));
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("VGG16's layers in float and in int8");
  std::int64_t height = 600, width = 800;
  int runs = 7, threads = 0;
  bool cpu_time = false;
  std::string json_file, only;
  app.add_option("--height", height, "of the image")->capture_default_str()->check(CLI::Range(16, 10000));
  app.add_option("--width", width, "of the image")->capture_default_str()->check(CLI::Range(16, 10000));
  app.add_option("--runs", runs, "of each; the median counts")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--threads", threads, "0: one per core")->capture_default_str()->check(CLI::Range(0, 1024));
  app.add_flag("--cpu-time", cpu_time, "measure processor time instead of the clock: for one thread on a busy machine");
  app.add_option("--layer", only, "only layers whose names begin like this");
  app.add_option("--json", json_file, "write the results there");
  CLI11_PARSE(app, argc, argv);
  set_num_threads(threads);
  const NoGrad no_grad;

  std::printf("int8 by %s, %d threads, %ldx%ld, median of %d runs, milliseconds; GOP/s of the plain algorithm\n",
              int8::kernels().name, num_threads(), static_cast<long>(height), static_cast<long>(width), runs);
  std::printf("| layer | in | out | map | float | int8 | float / int8 | int8 GOP/s |\n|---|---|---|---|---|---|---|---|\n");
  nlohmann::json results = nlohmann::json::array();
  double sums[2][2] = {};  // [features, all][float, int8]
  for (const Layer& layer : layers) {
    if (!std::string_view(layer.name).starts_with(only)) continue;
    const bool linear = layer.scale == 0;
    const std::int64_t h = linear ? 1 : height / layer.scale, w = linear ? 300 : width / layer.scale;
    const Shape shape = linear ? Shape{w, layer.c} : Shape{1, h, w, layer.c};
    const Shape weights = linear ? Shape{layer.k, layer.c} : Shape{layer.k, 3, 3, layer.c};
    std::function<void()> candidates[2];
    Conv2d conv;
    conv.padding = 1;
    conv.relu = true;
    QuantizedConv2d quantized_conv;
    quantized_conv.padding = 1;
    quantized_conv.relu = true;
    Linear fully;
    fully.relu = true;
    QuantizedLinear quantized_fully;
    quantized_fully.relu = true;
    const Tensors floats{random_floats(shape, 0.0f), random_floats(weights, -1.0f), random_floats({layer.k}, -1.0f)};
    const bool first = layer.c == 3;
    const Tensors codes{random_activations(shape, first ? Dtype::s8 : Dtype::u8), random_weights(weights),
                        zeros({layer.k}, Dtype::s32), full({layer.k}, 1e-4f)};
    candidates[0] = [&] { linear ? fully.forward(floats) : conv.forward(floats); };
    candidates[1] = [&] { linear ? quantized_fully.forward(codes) : quantized_conv.forward(codes); };
    std::vector<double> times[2];
    for (int run = -1; run < runs; ++run) {
      for (int i = 0; i < 2; ++i) {
        const double start = seconds(cpu_time);
        candidates[i]();
        if (run >= 0) times[i].push_back(1e3 * (seconds(cpu_time) - start));
      }
    }
    const double f = median(times[0]), q = median(times[1]);
    for (int i = 0; i < 2; ++i) {
      if (i == 1 || layer.features) {
        sums[i][0] += f;
        sums[i][1] += q;
      }
    }
    const double operations = 2.0 * static_cast<double>(h * w * layer.c * layer.k * (linear ? 1 : 9));
    std::printf("| %s | %ld | %ld | %ldx%ld | %.2f | %.2f | %.2f | %.0f |\n", layer.name, static_cast<long>(layer.c),
                static_cast<long>(layer.k), static_cast<long>(h), static_cast<long>(w), f, q, f / q, 1e-6 * operations / q);
    std::fflush(stdout);
    results.push_back({{"layer", layer.name}, {"float_ms", f}, {"int8_ms", q}});
  }
  std::printf("| features | | | | %.1f | %.1f | %.2f | |\n", sums[0][0], sums[0][1], sums[0][0] / sums[0][1]);
  std::printf("| all of these | | | | %.1f | %.1f | %.2f | |\n", sums[1][0], sums[1][1], sums[1][0] / sums[1][1]);
  if (!json_file.empty()) write_file_atomically(json_file, results.dump(1));
  return 0;
} catch (const shrike::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
