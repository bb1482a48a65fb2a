// The plans of the CUDA kernels on paper: for each product of VGG16 Faster R-CNN at 600x800, batch 1, 300 regions, the kernel
// that the library chooses on an H100 SXM and the time that its own model predicts (kernels/conv_plan.hpp). Prints JSON lines
// for benchmarks/paper.py; runs nothing on a device.
#include <cstdio>

#include "kernels/conv.hpp"
#include "kernels/conv_plan.hpp"
#include "kernels/half.hpp"
#include "kernels/int8.hpp"
#include "shrike/core/cuda.hpp"
#include "shrike/io/json.hpp"

using namespace shrike;
using kernels::Conv2dSizes;
using kernels::ConvPass;

namespace {

struct Layer {
  const char* name;
  int count;
  Conv2dSizes sizes;
};

Layer conv(const char* name, int count, std::int64_t h, std::int64_t w, std::int64_t c, std::int64_t k, std::int64_t r) {
  return {name, count, {1, h, w, c, k, r, r, h, w, 1, r / 2, 1, 1, false}};
}

Layer linear(const char* name, std::int64_t in, std::int64_t out) { return {name, 1, kernels::as_conv({300, in, out, false})}; }

const Layer layers[] = {conv("conv1_1", 1, 600, 800, 3, 64, 3),
                        conv("conv1_2", 1, 600, 800, 64, 64, 3),
                        conv("conv2_1", 1, 300, 400, 64, 128, 3),
                        conv("conv2_2", 1, 300, 400, 128, 128, 3),
                        conv("conv3_1", 1, 150, 200, 128, 256, 3),
                        conv("conv3_2, 3_3", 2, 150, 200, 256, 256, 3),
                        conv("conv4_1", 1, 75, 100, 256, 512, 3),
                        conv("conv4_2, 4_3", 2, 75, 100, 512, 512, 3),
                        conv("conv5_1 to 5_3", 3, 37, 50, 512, 512, 3),
                        conv("rpn 3x3", 1, 37, 50, 512, 512, 3),
                        conv("rpn 1x1 (45)", 1, 37, 50, 512, 45, 1),
                        linear("fc6", 25088, 4096),
                        linear("fc7", 4096, 4096),
                        linear("fc scores and boxes", 4096, 105)};

void row(const Layer& layer, const char* pass, const char* arithmetic, const std::string& kernel, double seconds) {
  const Conv2dSizes& z = layer.sizes;
  JsonWriter json;
  json.begin_object().field("layer", layer.name).field("count", layer.count).field("pass", pass);
  json.field("arithmetic", arithmetic).field("operations", 2 * z.n * z.p * z.q * z.k * z.r * z.s * z.c);
  json.field("input", z.n * z.h * z.w * z.c).field("weight", z.k * z.r * z.s * z.c).field("output", z.n * z.p * z.q * z.k);
  json.field("kernel", kernel).field("seconds", seconds).end_object();
  std::printf("%s\n", json.str().c_str());
}

int run() {
  const cuda::Properties h100{"H100 SXM", 90, 132, 227 * 1024};
  for (const Layer& layer : layers) {
    for (const auto& [pass, name] : {std::pair(ConvPass::fprop, "forward"), std::pair(ConvPass::dgrad, "gradient of data"),
                                     std::pair(ConvPass::wgrad, "gradient of weights")}) {
      if (pass == ConvPass::dgrad && layer.sizes.c == 3) continue;  // nobody wants the gradient of the image
      for (const bool tf32 : {false, true}) {
        cuda_settings().tf32 = tf32;
        const auto& best = kernels::predicted_conv(pass, layer.sizes, h100);
        row(layer, name, tf32 ? "TF32" : "fp32", best.name, best.predict(layer.sizes, h100));
      }
    }
    const Conv2dSizes& z = layer.sizes;
    const kernels::gemm::Product product{z.n * z.p * z.q, z.k, z.r * z.s * z.c};
    const auto plan_row = [&](const char* arithmetic, const char* kernel, const auto& plan) {
      const std::string split = plan.splits > 1 ? message(" split ", plan.splits) : "";
      row(layer, "forward", arithmetic, message(kernel, ' ', plan.tile, 'x', plan.tile, split), plan.seconds);
    };
    plan_row("fp16", "mma", kernels::half::plan_of(product, h100));
    using kernels::int8::Path;
    for (const Path path : {Path::tensor32, Path::dp4a}) {
      const bool tensor = path == Path::tensor32;
      plan_row(tensor ? "int8" : "dp4a", tensor ? "mma" : "dp4a", kernels::int8::plan_of(path, product, h100));
    }
  }
  return 0;
}

}  // namespace

int main() try { return run(); } catch (const shrike::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
