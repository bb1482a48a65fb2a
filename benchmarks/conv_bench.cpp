// The convolutions of VGG16, ResNet-18 and ResNet-50 beside bare oneDNN: ours from and to NHWC, everything included; oneDNN's
// in whatever layout it likes best, nothing included but the primitive. They take turns; medians.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "benchmarks/support/networks.hpp"
#include "benchmarks/support/onednn.hpp"
#include "benchmarks/support/random.hpp"
#include "benchmarks/support/turns.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/io/file.hpp"

using namespace shrike;
using bench::ConvLayer;
using bench::Network;
using bench::random_tensor;
using bench::onednn::Pass;

namespace {

constexpr const char* pass_names[] = {"forward", "data", "weight"};

struct Arguments {
  std::string network = "all", layer, pass, json;
  std::int64_t height = 600, width = 800, batch = 1, channels = 64;
  int runs = 9, threads = 0;
  bool cpu_time = false;
};

// The one place where our kernels are called.
std::function<void()> ours(const kernels::Conv2dSizes& z, Pass pass) {
  const Tensor x = random_tensor({z.n, z.h, z.w, z.c}), weight = random_tensor({z.k, z.r, z.s, z.c}),
               bias = random_tensor({z.k}), y = random_tensor({z.n, z.p, z.q, z.k});
  return [=] {
    float *dx = nullptr, *dweight = nullptr, *dbias = nullptr;
    switch (pass) {
      case Pass::forward:
        // As in inference: the weights are packed at the first call, which is not counted.
        kernels::conv2d_forward(Cpu{}, z, x.data<const float>(), weight.data<const float>(), bias.data<const float>(), nullptr,
                                &weight.companion(), y.data<float>());
        return;
      case Pass::data: dx = x.data<float>(); break;
      case Pass::weight:
        dweight = weight.data<float>();
        dbias = bias.data<float>();
        break;
    }
    kernels::conv2d_backward(Cpu{}, z, x.data<float>(), weight.data<float>(), nullptr, y.data<float>(), dx, dweight, dbias);
  };
}

// Milliseconds of one pass of a layer; 0 for Winograd where oneDNN has none.
struct Row {
  double ours = 0, direct = 0, winograd = 0;

  double best() const { return winograd > 0 ? std::min(direct, winograd) : direct; }
};

Row measure(const Arguments& arguments, const kernels::Conv2dSizes& z, Pass pass) {
  std::vector<std::function<void()>> candidates{ours(z, pass), bench::onednn::convolution(z, pass, false)};
  try {
    candidates.push_back(bench::onednn::convolution(z, pass, true));
  } catch (const Error&) {  // not for this shape, or not on this machine
  }
  const std::vector<double> ms = timing::medians_in_turn(candidates, arguments.runs, arguments.cpu_time);
  return {ms[0], ms[1], ms.size() > 2 ? ms[2] : 0};
}

void print(const ConvLayer& layer, const kernels::Conv2dSizes& z, Pass pass, const Row& row) {
  std::printf("| %s | %ld | %ld | %ldx%ld | %ldx%ld/%ld | %s | %.2f | %.2f | ", layer.name, static_cast<long>(z.c),
              static_cast<long>(z.k), static_cast<long>(z.h), static_cast<long>(z.w), static_cast<long>(z.r),
              static_cast<long>(z.s), static_cast<long>(z.stride), pass_names[static_cast<int>(pass)], row.ours, row.direct);
  if (row.winograd > 0) {
    std::printf("%.2f", row.winograd);
  } else {
    std::printf("none");
  }
  std::printf(" | %.2f | %.2f |\n", row.ours / row.direct, row.ours / row.best());
  std::fflush(stdout);
}

nlohmann::json as_json(const Network& network, const ConvLayer& layer, const kernels::Conv2dSizes& z, Pass pass,
                       const Row& row) {
  return {{"network", network.name},
          {"layer", layer.name},
          {"batch", z.n},
          {"c", z.c},
          {"k", z.k},
          {"height", z.h},
          {"width", z.w},
          {"kernel", z.r},
          {"stride", z.stride},
          {"pass", pass_names[static_cast<int>(pass)]},
          {"ours_ms", row.ours},
          {"direct_ms", row.direct},
          {"winograd_ms", row.winograd > 0 ? nlohmann::json(row.winograd) : nlohmann::json()}};
}

// How many rows are slower than the better of oneDNN's algorithms, and by how much.
struct Summary {
  int rows = 0, slower = 0;
  double greatest = 0;
  std::string where;

  void add(const std::string& name, double ratio) {
    ++rows;
    if (ratio > 1) ++slower;
    if (ratio > greatest) {
      greatest = ratio;
      where = name;
    }
  }
  void print(const std::string& name) const {
    if (rows == 0) return;
    std::printf("%s: %d rows, ours slower than the best of oneDNN in %d (%.0f %%), largest ratio %.2f (%s)\n", name.c_str(),
                rows, slower, 100.0 * slower / rows, greatest, where.c_str());
  }
};

// Prints the rows of a network, and adds them to both summaries.
void run_network(const Arguments& arguments, const Network& network, Summary& all, nlohmann::json& results,
                 std::vector<std::pair<std::string, Summary>>& summaries) {
  std::printf("\n%s\n\n", network.name.c_str());
  std::printf(
      "| layer | c | k | map | kernel | pass | ours | oneDNN direct | oneDNN Winograd | ours / direct | ours / best |\n");
  std::printf("|---|---|---|---|---|---|---|---|---|---|---|\n");
  Summary summary;
  for (const ConvLayer& layer : network.layers) {
    if (!std::string_view(layer.name).starts_with(arguments.layer)) continue;
    const kernels::Conv2dSizes z = network.sizes(layer, arguments.batch, arguments.height, arguments.width, arguments.channels);
    for (const Pass pass : {Pass::forward, Pass::data, Pass::weight}) {
      const std::string name = pass_names[static_cast<int>(pass)];
      if (!name.starts_with(arguments.pass)) continue;
      if (pass == Pass::data && z.c == 3) continue;  // nobody needs the image's gradient
      const Row row = measure(arguments, z, pass);
      print(layer, z, pass, row);
      const std::string at = std::string(layer.name) + " " + name;
      summary.add(at, row.ours / row.best());
      all.add(network.name + " " + at, row.ours / row.best());
      results.push_back(as_json(network, layer, z, pass, row));
    }
  }
  summaries.emplace_back(network.name, summary);
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("The convolutions of VGG16, ResNet-18 and ResNet-50 beside bare oneDNN");
  Arguments a;
  app.add_option("--network", a.network, "vgg16, resnet18, resnet50 or all")
      ->capture_default_str()
      ->check(CLI::IsMember({"vgg16", "resnet18", "resnet50", "all"}));
  app.add_option("--height", a.height, "of the image")->capture_default_str()->check(CLI::Range(32, 10000));
  app.add_option("--width", a.width, "of the image")->capture_default_str()->check(CLI::Range(32, 10000));
  app.add_option("--batch", a.batch, "images")->capture_default_str()->check(CLI::Range(1, 1024));
  app.add_option("--channels", a.channels, "of the first stage; 64 is published")
      ->capture_default_str()
      ->check(CLI::Range(4, 512));
  app.add_option("--layer", a.layer, "only layers whose names begin like this");
  app.add_option("--pass", a.pass, "only this pass: forward, data or weight")
      ->check(CLI::IsMember({"forward", "data", "weight"}));
  app.add_option("--runs", a.runs, "of each; the median counts")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--threads", a.threads, "0: one per core")->capture_default_str()->check(CLI::Range(0, 1024));
  app.add_flag("--cpu-time", a.cpu_time, "measure processor time instead of the clock: for one thread on a busy machine");
  app.add_option("--json", a.json, "write the results there");
  CLI11_PARSE(app, argc, argv);
  set_num_threads(a.threads);
  bench::onednn::set_threads(num_threads());

  std::printf("oneDNN %s, %d threads, %ldx%ld, batch %ld, %ld channels, median of %d runs, milliseconds\n",
              bench::onednn::version().c_str(), num_threads(), static_cast<long>(a.height), static_cast<long>(a.width),
              static_cast<long>(a.batch), static_cast<long>(a.channels), a.runs);
  nlohmann::json results = nlohmann::json::array();
  std::vector<std::pair<std::string, Summary>> summaries;
  Summary all;
  for (const Network& network : bench::networks()) {
    if (a.network == "all" || a.network == network.name) run_network(a, network, all, results, summaries);
  }
  std::printf("\n");
  for (const auto& [name, summary] : summaries) summary.print(name);
  if (summaries.size() > 1) all.print("all");
  if (all.rows == 0) std::printf("no layer has a name that begins with '%s'\n", a.layer.c_str());
  if (!a.json.empty()) write_file_atomically(a.json, results.dump(1));
  return 0;
} catch (const shrike::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
