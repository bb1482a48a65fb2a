// The plans of the CUDA kernels on paper: for each product of VGG16 Faster R-CNN at 600x800, batch 1, 300 regions, the kernel
// that the library chooses on an H100 SXM and the time that its own model predicts (kernels/conv_plan.hpp). Prints JSON lines
// for benchmarks/paper.py; runs nothing on a device.
#include <cstdio>

#include "kernels/conv.hpp"
#include "kernels/conv_plan.hpp"
#include "kernels/int8.hpp"
#include "shrike/core/cuda.hpp"
#include "shrike/io/json.hpp"

using namespace shrike;
using kernels::Conv2dSizes;
using kernels::ConvPass;
using kernels::gemm::TileModel;

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

// Clocks of a turn of 64 bytes along K. Tensor cores: 0.6 of their 4,096 multiply-adds, or shared memory's 128 bytes, whichever
// is longer (kernels/int8_mma.cu). dp4a: 64 lanes of four multiply-adds, at the part of the rate that fp32 products are given.
TileModel int8_model(int tile, bool tensor) {
  const double products = static_cast<double>(tile) * tile * 64;
  if (!tensor) return {tile, tile, 64, products / (256 * (tile == 128 ? 0.85 : 0.6))};
  const int warps = tile == 128 ? 8 : 4, warp_rows = tile == 128 ? 64 : 32, warp_columns = 32;
  const double shared = (warps * (warp_rows + warp_columns) + 2 * tile) * 64 / 128.0;
  return {tile, tile, 64, std::max(products / (0.6 * 4096), shared)};
}

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
    const int tile = kernels::int8::tile_of(product.m, product.n, h100);
    for (const bool tensor : {true, false}) {
      const double seconds = kernels::gemm::predicted_seconds(product, int8_model(tile, tensor), 1, h100);
      row(layer, "forward", tensor ? "int8" : "dp4a", message(tensor ? "mma " : "dp4a ", tile, 'x', tile), seconds);
    }
  }
  return 0;
}

}  // namespace

int main() try { return run(); } catch (const shrike::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
