// VGG16's convolutions beside bare oneDNN: ours from and to NHWC, everything included; oneDNN's in whatever layout it likes
// best, nothing included but the primitive. The two take turns; medians.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "benchmarks/timing.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/core/random.hpp"
#include "shrike/io/file.hpp"
#include "shrike/ops/conv.hpp"
#include "src/cpu/onednn.hpp"

using namespace shrike;
using timing::median;
using timing::seconds;

namespace {

struct Layer {
  const char* name;
  std::int64_t c, k, scale;  // channels of the full-width network; the image's size is divided by scale
};

constexpr Layer layers[] = {{"conv1_1", 3, 64, 1},     {"conv1_2", 64, 64, 1},    {"conv2_1", 64, 128, 2},
                            {"conv2_2", 128, 128, 2},  {"conv3_1", 128, 256, 4},  {"conv3_2", 256, 256, 4},
                            {"conv3_3", 256, 256, 4},  {"conv4_1", 256, 512, 8},  {"conv4_2", 512, 512, 8},
                            {"conv4_3", 512, 512, 8},  {"conv5_1", 512, 512, 16}, {"conv5_2", 512, 512, 16},
                            {"conv5_3", 512, 512, 16}, {"rpn", 512, 512, 16}};
constexpr const char* passes[] = {"forward", "data", "weight"};

Tensor random_tensor(const Shape& shape) {
  Random random(1, RandomStream::test);
  const Tensor result(shape);
  for (std::int64_t i = 0; i < result.numel(); ++i) result.data<float>()[i] = random.uniform(-1.0f, 1.0f);
  return result;
}

// A bare primitive on memory of its own, in its own layouts.
std::function<void()> bare(const kernels::Conv2dSizes& z, onednn::Pass pass, bool winograd) {
  constexpr auto any = onednn::Layout::any;
  const bool biased = pass != onednn::Pass::backward_data;
  const onednn::Convolution key{z.n,       z.h,        z.w,      z.c,  z.k,    z.r,   z.s, z.p, z.q, z.stride,
                                z.padding, z.dilation, z.groups, pass, biased, false, any, any, any, winograd};
  const auto primitive = onednn::primitive(key);
  const auto memory = [](const dnnl::memory::desc& desc) {
    return random_tensor({static_cast<std::int64_t>(desc.get_size() / sizeof(float))});
  };
  const Tensor x = memory(primitive->x), weight = memory(primitive->weight), y = memory(primitive->y),
               bias = random_tensor({z.k});
  return [=] { onednn::execute(key, *primitive, x.data<float>(), weight.data<float>(), bias.data<float>(), y.data<float>()); };
}

std::function<void()> ours(const kernels::Conv2dSizes& z, onednn::Pass pass) {
  const Tensor x = random_tensor({z.n, z.h, z.w, z.c}), weight = random_tensor({z.k, z.r, z.s, z.c}),
               bias = random_tensor({z.k});
  const Tensor y = random_tensor({z.n, z.p, z.q, z.k});
  if (pass == onednn::Pass::forward) {
    return [=] {
      kernels::conv2d_forward(Cpu{}, z, x.data<float>(), weight.data<float>(), bias.data<float>(), nullptr, y.data<float>());
    };
  }
  const bool data = pass == onednn::Pass::backward_data;
  return [=] {
    kernels::conv2d_backward(Cpu{}, z, x.data<float>(), weight.data<float>(), nullptr, y.data<float>(),
                             data ? x.data<float>() : nullptr, data ? nullptr : weight.data<float>(),
                             data ? nullptr : bias.data<float>());
  };
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("VGG16's convolutions beside bare oneDNN");
  std::int64_t height = 600, width = 800, channels = 64;
  int runs = 9, threads = 0;
  bool cpu_time = false;
  std::string json_file;
  app.add_option("--height", height, "of the image")->capture_default_str();
  app.add_option("--width", width, "of the image")->capture_default_str();
  app.add_option("--channels", channels, "of the first stage; 64 is VGG16")->capture_default_str()->check(CLI::Range(4, 512));
  app.add_option("--runs", runs, "of each; the median counts")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--threads", threads, "0: one per core")->capture_default_str()->check(CLI::Range(0, 1024));
  app.add_flag("--cpu-time", cpu_time, "measure processor time instead of the clock: for one thread on a busy machine");
  app.add_option("--json", json_file, "write the results there");
  CLI11_PARSE(app, argc, argv);
  set_num_threads(threads);

  std::printf("oneDNN %s, %d threads, %ldx%ld, %ld channels, median of %d runs, milliseconds\n", onednn::version().c_str(),
              num_threads(), static_cast<long>(height), static_cast<long>(width), static_cast<long>(channels), runs);
  std::printf("| layer | c | k | map | pass | ours | oneDNN direct | oneDNN Winograd | ours / direct | ours / best |\n");
  std::printf("|---|---|---|---|---|---|---|---|---|---|\n");
  nlohmann::json results = nlohmann::json::array();
  double worst = 0;
  for (const Layer& layer : layers) {
    const std::int64_t c = layer.c == 3 ? 3 : layer.c * channels / 64, k = layer.k * channels / 64;
    const std::int64_t h = height / layer.scale, w = width / layer.scale;
    for (int number = 0; number < 3; ++number) {
      const auto pass = static_cast<onednn::Pass>(number);
      const kernels::Conv2dSizes z{1, h, w, c, k, 3, 3, h, w, 1, 1, 1, 1, false};
      std::vector<std::function<void()>> candidates{ours(z, pass), bare(z, pass, false)};
      try {
        candidates.push_back(bare(z, pass, true));
      } catch (const Error&) {  // not on this machine
      }
      std::vector<std::vector<double>> times(candidates.size());
      for (int run = -1; run < runs; ++run) {
        for (std::size_t i = 0; i < candidates.size(); ++i) {
          const double start = seconds(cpu_time);
          candidates[i]();
          if (run >= 0) times[i].push_back(1e3 * (seconds(cpu_time) - start));
        }
      }
      const double mine = median(times[0]), direct = median(times[1]);
      const double winograd = times.size() > 2 ? median(times[2]) : 0;
      const double best = winograd > 0 ? std::min(direct, winograd) : direct;
      worst = std::max(worst, mine / direct);
      std::printf("| %s | %ld | %ld | %ldx%ld | %s | %.2f | %.2f | ", layer.name, static_cast<long>(c), static_cast<long>(k),
                  static_cast<long>(h), static_cast<long>(w), passes[number], mine, direct);
      if (winograd > 0) {
        std::printf("%.2f", winograd);
      } else {
        std::printf("none");
      }
      std::printf(" | %.2f | %.2f |\n", mine / direct, mine / best);
      std::fflush(stdout);
      results.push_back({{"layer", layer.name},
                         {"c", c},
                         {"k", k},
                         {"height", h},
                         {"width", w},
                         {"pass", passes[number]},
                         {"ours_ms", mine},
                         {"direct_ms", direct},
                         {"winograd_ms", winograd > 0 ? nlohmann::json(winograd) : nlohmann::json()}});
    }
  }
  std::printf("greatest ours / direct: %.2f\n", worst);
  if (!json_file.empty()) write_file_atomically(json_file, results.dump(1));
  return 0;
} catch (const shrike::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
