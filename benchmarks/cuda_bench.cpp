// The CUDA kernels at the sizes of VGG16 Faster R-CNN: convolutions and matrix products, float and int8, ours beside cuDNN and
// cuBLAS, RoIAlign and non-maximum suppression. Prints Markdown, with the share of the H100's floors (67 TFLOP/s in fp32, 494
// in TF32, 3.35 TB/s). With --only CASE, one case, and JSON of its median. In a HOST build the times say nothing, and it shows
// that all of it runs.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>

#include "kernels/ceiling.hpp"
#include "kernels/conv.hpp"
#include "kernels/int8.hpp"
#include "shrike/core/cuda.hpp"
#include "shrike/core/last_kernel.hpp"
#include "shrike/core/random.hpp"
#include "shrike/io/json.hpp"
#include "shrike/ops/nms.hpp"
#include "shrike/ops/quantized_conv.hpp"
#include "shrike/ops/quantized_linear.hpp"
#include "shrike/ops/roi.hpp"
#include "src/cuda/providers.hpp"

using namespace shrike;
using kernels::Conv2dSizes;
using kernels::ConvPass;

namespace {

constexpr double fp32_peak = 67e12, tf32_peak = 494e12, bandwidth = 3.35e12;  // of an H100 SXM, dense

struct Options {
  std::int64_t height = 600, width = 800, channels = 64, regions = 300;
  int runs = 20;
  std::string only, device = "cuda";
};

Tensor random_tensor(const Shape& shape) {
  Random random(1, RandomStream::test);
  const Tensor result(shape);
  for (std::int64_t i = 0; i < result.numel(); ++i) result.data<float>()[i] = random.uniform(-1.0f, 1.0f);
  return result.to(Device::cuda);
}

// The median of `runs` calls, each waited for, after two that are not counted. Short ones are repeated within a run, so that
// the wait does not count.
double median_seconds(int runs, const std::function<void()>& f) {
  const auto time = [&](int repeats) {
    cuda::synchronize();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) f();
    cuda::synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / repeats;
  };
  f();
  const int repeats = static_cast<int>(std::clamp(1e-3 / std::max(time(1), 1e-9), 1.0, 100.0));
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) seconds.push_back(time(repeats));
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

const char* word(ConvPass pass) { return pass == ConvPass::fprop ? "fprop" : pass == ConvPass::dgrad ? "dgrad" : "wgrad"; }

// One pass in one arithmetic: ours of the least predicted time, and the first of the vendor's.
void product_row(const Options& options, const std::string& layer, const Conv2dSizes& z, ConvPass pass, bool tf32) {
  cuda_settings().tf32 = tf32;
  const Tensor x = random_tensor({z.n, z.h, z.w, z.c}), weight = random_tensor({z.k, z.r, z.s, z.c});
  const Tensor y = random_tensor({z.n, z.p, z.q, z.k}), bias = random_tensor({z.k});
  kernels::ConvPointers at;
  at.x = x.data<float>();
  at.weight = weight.data<float>();
  at.dy = y.data<float>();
  at.out = pass == ConvPass::fprop ? y.data<float>() : pass == ConvPass::dgrad ? x.data<float>() : weight.data<float>();
  if (pass == ConvPass::fprop) at.bias = bias.data<float>();
  const auto time = [&](CudaSettings::Provider provider) {
    cuda_settings().provider = provider;
    return median_seconds(options.runs, [&] { kernels::run_conv(pass, z, at); });
  };
  const double ours = time(CudaSettings::Provider::native);
  const double operations = 2.0 * static_cast<double>(z.n * z.p * z.q * z.k) * static_cast<double>(z.r * z.s * z.c);
  const double moved = static_cast<double>(x.bytes() + weight.bytes() + y.bytes());
  const double floor = std::max(operations / (tf32 ? tf32_peak : fp32_peak), moved / bandwidth);
  std::printf("| %s | %s | %s | %s | %.4f | %.2f | %.0f | %.2f |", layer.c_str(), word(pass), tf32 ? "TF32" : "fp32",
              kernels::predicted_conv(pass, z).name, 1e3 * ours, operations / ours * 1e-12, moved / ours * 1e-9, floor / ours);
  if (SHRIKE_CUDA_HOST) {
    std::printf(" none | |\n");
  } else {
    const double theirs = time(CudaSettings::Provider::vendor);
    std::printf(" %.4f | %.2f |\n", 1e3 * theirs, theirs / ours);
  }
  std::fflush(stdout);
}

void products(const Options& options) {
  struct Layer {
    const char* name;
    std::int64_t c, k, scale;  // channels of the full-width network; the image's size is divided by scale
  };
  constexpr Layer layers[] = {{"conv1_1", 3, 64, 1},    {"conv1_2", 64, 64, 1},   {"conv2_1", 64, 128, 2},
                              {"conv2_2", 128, 128, 2}, {"conv3_1", 128, 256, 4}, {"conv3_2", 256, 256, 4},
                              {"conv4_1", 256, 512, 8}, {"conv4_2", 512, 512, 8}, {"conv5_1", 512, 512, 16}};
  std::printf(
      "| layer | pass | arithmetic | ours | ms | TFLOP/s | GB/s | of the H100's floor | vendor ms | vendor's time / ours "
      "|\n");
  std::printf("|---|---|---|---|---|---|---|---|---|---|\n");
  for (const bool tf32 : {false, true}) {
    for (const Layer& layer : layers) {
      const std::int64_t c = layer.c == 3 ? 3 : layer.c * options.channels / 64, k = layer.k * options.channels / 64;
      const std::int64_t h = options.height / layer.scale, w = options.width / layer.scale;
      const Conv2dSizes z{1, h, w, c, k, 3, 3, h, w, 1, 1, 1, 1, false};
      for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad}) {
        if (pass == ConvPass::dgrad && layer.c == 3) continue;  // nobody wants the gradient of the image
        product_row(options, layer.name, z, pass, tf32);
      }
    }
    const std::int64_t units = 64 * options.channels;
    for (const auto& [name, in] : {std::pair("fc6", 49 * 8 * options.channels), std::pair("fc7", units)}) {
      const Conv2dSizes z{options.regions, 1, 1, in, units, 1, 1, 1, 1, 1, 0, 1, 1, false};
      for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad}) product_row(options, name, z, pass, tf32);
    }
  }
}

Tensor random_codes(const Shape& shape, Dtype dtype) {
  Random random(3, RandomStream::test);
  const Tensor result(shape, dtype);
  auto* const codes = static_cast<std::int8_t*>(result.raw());
  for (std::int64_t i = 0; i < result.numel(); ++i) codes[i] = static_cast<std::int8_t>(random.below(127));
  return result.to(Device::cuda);
}

// Int8 by our tensor-core tiles and by dp4a, beside what their instructions do on registers alone, and by cuBLAS (products) or
// cuDNN (convolutions), where the time includes what turns u8 codes into s8 and sums into codes.
void int8_products(const Options& options) {
  using kernels::int8::Path;
  using Provider = CudaSettings::Provider;
  const int rounds = SHRIKE_CUDA_HOST ? 4 : 4096;
  const double mma = cuda::ceiling(cuda::Unit::mma_s8, rounds).operations_per_second;
  const double dp4a = cuda::ceiling(cuda::Unit::dp4a, rounds).operations_per_second;
  std::printf("\nOn registers alone: mma of s8 %.1f TOP/s, dp4a %.1f TOP/s.\n\n", 1e-12 * mma, 1e-12 * dp4a);
  std::printf(
      "| int8 layer | ours | ms | TOP/s | of mma's ceiling | dp4a | ms | of dp4a's ceiling | vendor | vendor ms | vendor's "
      "time / "
      "ours |\n");
  std::printf("|---|---|---|---|---|---|---|---|---|---|---|\n");
  const auto row = [&](const char* layer, const Op& op, const Tensors& in, double operations) {
    const auto time = [&](Path path, Provider provider) {
      kernels::int8::choice().path = path;
      cuda_settings().provider = provider;
      const double seconds = median_seconds(options.runs, [&] { op.forward(in); });
      kernels::int8::choice() = {};
      cuda_settings().provider = Provider::automatic;
      return seconds;
    };
    const double ours = time(Path::automatic, Provider::native);
    std::printf("| %s, %s | %s | %.4f | %.1f | %.2f |", layer, name(in[0].dtype()), last_kernel().c_str(), 1e3 * ours,
                1e-12 * operations / ours, operations / ours / mma);
    const double scalar = time(Path::dp4a, Provider::native);
    std::printf(" %s | %.4f | %.2f |", last_kernel().c_str(), 1e3 * scalar, operations / scalar / dp4a);
    if (SHRIKE_CUDA_HOST) {
      std::printf(" none | | |\n");
    } else {
      const double theirs = time(Path::automatic, Provider::vendor);  // named as ours where they have none for the layer
      std::printf(" %s | %.4f | %.2f |\n", last_kernel().c_str(), 1e3 * theirs, theirs / ours);
    }
    std::fflush(stdout);
    return ours;
  };
  const auto epilogue = [](std::int64_t k) {
    return std::pair(zeros({k}, Dtype::s32, Device::cuda), full({k}, 1e-3f, Device::cuda));
  };
  struct Layer {
    const char* name;
    std::int64_t c, k, scale;
  };
  for (const Layer& layer : {Layer{"conv3_1", 128, 256, 4}, Layer{"conv3_2", 256, 256, 4}, Layer{"conv4_1", 256, 512, 8},
                             Layer{"conv4_2", 512, 512, 8}, Layer{"conv5_1", 512, 512, 16}}) {
    const std::int64_t c = layer.c * options.channels / 64, k = layer.k * options.channels / 64;
    const std::int64_t h = std::max<std::int64_t>(options.height / layer.scale, 1),
                       w = std::max<std::int64_t>(options.width / layer.scale, 1);
    QuantizedConv2d op;
    op.padding = 1;
    op.output = "u8";
    op.relu = true;
    const auto [bias, multiplier] = epilogue(k);
    row(layer.name, op, {random_codes({1, h, w, c}, Dtype::u8), random_codes({k, 3, 3, c}, Dtype::s8), bias, multiplier},
        18.0 * static_cast<double>(h * w * c * k));
  }
  for (const Dtype dtype : {Dtype::u8, Dtype::s8}) {
    const std::int64_t in = 49 * 8 * options.channels, out = 64 * options.channels;
    QuantizedLinear op;
    op.output = "u8";
    op.relu = true;
    const auto [bias, multiplier] = epilogue(out);
    const Tensor x = random_codes({options.regions, in}, dtype), weight = random_codes({out, in}, Dtype::s8);
    const double ours = row("fc6", op, {x, weight, bias, multiplier}, 2.0 * static_cast<double>(options.regions * in * out));
    if (dtype != Dtype::s8) continue;
    const Tensor sums({options.regions, out}, Dtype::s32, Device::cuda);
    std::vector<cuda::Way> ways;
    cuda::add_vendor_code_product(ways, out, in, [&](const cuda::CodeProduct& multiply) {
      multiply(options.regions, out, in, x.data<std::int8_t>(), weight.data<std::int8_t>(), sums.data<std::int32_t>());
    });
    for (const cuda::Way& way : ways) {
      const double theirs = median_seconds(options.runs, way.run);
      std::printf("\nThe product of fc6 alone, from s8 to s32 and no further, by %s: %.4f ms, %.2f of ours.\n",
                  way.name.c_str(), 1e3 * theirs, theirs / ours);
    }
  }
}

Tensor random_boxes(std::int64_t count, const Options& options, bool image_index) {
  Random random(2, RandomStream::test);
  const auto height = static_cast<float>(options.height), width = static_cast<float>(options.width);
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) {
    const float x = random.uniform(0, 0.7f * width), y = random.uniform(0, 0.7f * height);
    if (image_index) values.push_back(0);
    values.insert(values.end(), {x, y, x + 16 + random.uniform(0, 0.25f * width), y + 16 + random.uniform(0, 0.25f * height)});
  }
  return tensor<float>({count, image_index ? 5 : 4}, values, Device::cuda);
}

double roi_align_seconds(const Options& options, bool gradient) {
  const Tensor x = random_tensor(
      {1, std::max<std::int64_t>(options.height / 16, 1), std::max<std::int64_t>(options.width / 16, 1), 8 * options.channels});
  x.set_requires_grad(gradient);
  const Tensor rois = random_boxes(options.regions, options, true);
  RoiOptions roi;
  roi.spatial_scale = 1.0 / 16;
  if (!gradient) return median_seconds(options.runs, [&] { roi_align(x, rois, roi); });
  const Tensor y = roi_align(x, rois, roi);
  const Tensor dy = full(y.shape(), 0.5f, Device::cuda);
  // Forward and backward together: a tape serves once.
  return median_seconds(options.runs, [&] {
    backward({roi_align(x, rois, roi)}, {dy});
    x.clear_grad();
  });
}

double nms_seconds(const Options& options) {
  const Tensor boxes = random_boxes(6000, options, false), scores = random_tensor({6000});
  return median_seconds(options.runs, [&] { nms(boxes, scores, 0.7); });
}

int run(const Options& options) {
  const CudaStatus& status = cuda_status();
  SHRIKE_CHECK(options.device == "cuda", "device '", options.device, "': this benchmark is of cuda only");
  SHRIKE_CHECK(status.usable, "device cuda: ", status.text);
  if (!options.only.empty()) {
    const double seconds = options.only == "nms" ? nms_seconds(options) : roi_align_seconds(options, false);
    JsonWriter json;
    json.begin_object().field("case", options.only).field("median_s", seconds).end_object();
    std::printf("%s\n", json.str().c_str());
    return 0;
  }
  std::printf("%s, %lldx%lld, %lld channels, median of %d runs\n\n", status.text.c_str(),
              static_cast<long long>(options.height), static_cast<long long>(options.width),
              static_cast<long long>(options.channels), options.runs);
  products(options);
  int8_products(options);
  std::printf("\n| kernel | ms |\n|---|---|\n");
  std::printf("| RoIAlign forward, %lld regions | %.4f |\n", static_cast<long long>(options.regions),
              1e3 * roi_align_seconds(options, false));
  std::printf("| RoIAlign forward and backward | %.4f |\n", 1e3 * roi_align_seconds(options, true));
  std::printf("| NMS of 6000 boxes at 0.7, scores sorted, kept boxes brought to the host | %.4f |\n",
              1e3 * nms_seconds(options));
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("The CUDA kernels at the sizes of VGG16 Faster R-CNN");
  Options options;
  app.add_option("--height", options.height, "of the image")->capture_default_str()->check(CLI::Range(16, 8192));
  app.add_option("--image-width", options.width, "of the image")->capture_default_str()->check(CLI::Range(16, 8192));
  app.add_option("--channels", options.channels, "of the first stage; 64 is VGG16")
      ->capture_default_str()
      ->check(CLI::Range(4, 512));
  app.add_option("--regions", options.regions, "that are pooled and classified")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  app.add_option("--runs", options.runs, "of each; the median counts")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--only", options.only, "roi_align or nms: that alone, as JSON")->check(CLI::IsMember({"roi_align", "nms"}));
  app.add_option("--device", options.device, "cuda")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return run(options);
} catch (const shrike::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
