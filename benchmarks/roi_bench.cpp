// Times RoI pooling, suppression and sorting at the sizes that Faster R-CNN meets; roi_bench.py times torchvision's on the same
// boxes.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>

#include "shrike/core/threads.hpp"
#include "shrike/ops/nms.hpp"
#include "shrike/ops/roi.hpp"

using namespace shrike;

namespace {

// Simple enough to be the same in Python.
struct Lcg {
  std::uint32_t state = 1;
  float operator()() {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) * 0x1p-24f;
  }
};

// Of 16 to 400 pixels a side in an image of 600 by 800.
std::vector<float> boxes(std::int64_t n, bool image_index) {
  Lcg random;
  std::vector<float> result;
  for (std::int64_t i = 0; i < n; ++i) {
    const float w = 16 + 384 * random(), h = 16 + 384 * random();
    const float x = (800 - w) * random(), y = (600 - h) * random();
    if (image_index) result.push_back(0);
    result.insert(result.end(), {x, y, x + w, y + h});
  }
  return result;
}

// The least of `repeats` times: the machine may be busy with other things.
template <class F> void report(const char* what, int repeats, const F& f) {
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::printf("%-44s %9.3f ms\n", what, best);
}

void pooling(std::int64_t count, std::int64_t height, std::int64_t width, std::int64_t channels, double scale, int repeats) {
  const Tensor x({1, height, width, channels});
  Lcg random;
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] = random();
  x.set_requires_grad(true);
  const Tensor rois = tensor<float>({count, 5}, boxes(count, true));
  RoiOptions options;
  options.spatial_scale = scale;
  const auto both = [&](const char* name, auto&& f) {
    const std::string text = message(name, ' ', count, " x 7x7x", channels, " of ", height, 'x', width);
    report((text + " forward").c_str(), repeats, [&] {
      const NoGrad no_grad;
      f();
    });
    const Tensor dy = full({count, 7, 7, channels}, 0.5f);
    double best = 1e30;
    for (int i = 0; i < repeats; ++i) {
      const Tensor y = f();
      const auto start = std::chrono::steady_clock::now();
      backward({y}, {dy});
      best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
      x.clear_grad();
    }
    std::printf("%-44s %9.3f ms\n", (text + " backward").c_str(), best);
  };
  const Tensor codes(x.shape(), Dtype::u8);
  for (std::int64_t i = 0; i < codes.numel(); ++i) codes.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(256 * random());
  report(message("roi_align of codes").c_str(), repeats, [&] { roi_align(codes, rois, options); });
  report(message("roi_pool of codes").c_str(), repeats, [&] { roi_pool(codes, rois, options); });
  both("roi_align", [&] { return roi_align(x, rois, options); });
  both("roi_pool", [&] { return roi_pool(x, rois, options); });
}

void suppression(std::int64_t count, double threshold, int repeats) {
  const Tensor b = tensor<float>({count, 4}, boxes(count, false));
  const Tensor scores({count}), labels({count}, Dtype::s32);
  Lcg random;
  for (std::int64_t i = 0; i < count; ++i) {
    scores.data<float>()[i] = random();
    labels.data<std::int32_t>()[i] = static_cast<std::int32_t>(random() * 20);
  }
  std::int64_t kept = 0;
  report(message("nms ", count, " boxes, threshold ", threshold).c_str(), repeats,
         [&] { kept = nms(b, scores, threshold).numel(); });
  std::printf("  kept %lld\n", static_cast<long long>(kept));
  const Tensor order = top_k(scores, count);
  report("  in order, the first 2000", repeats, [&] { nms_in_order(b, order, {}, threshold, 2000); });
  report("  of 20 labels", repeats, [&] { kept = batched_nms(b, scores, labels, threshold).numel(); });
  std::printf("  kept %lld\n", static_cast<long long>(kept));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Times RoI pooling and suppression");
  int threads = 1, repeats = 20;
  app.add_option("--threads", threads, "CPU threads, 0: one per core");
  app.add_option("--repeats", repeats, "The least of this many times is printed");
  CLI11_PARSE(app, argc, argv);
  set_num_threads(threads);
  pooling(128, 37, 50, 512, 1.0 / 16, repeats);
  pooling(512, 75, 100, 256, 1.0 / 8, repeats);
  pooling(2000, 37, 50, 512, 1.0 / 16, std::max(1, repeats / 4));
  suppression(6000, 0.7, repeats);
  suppression(12000, 0.7, repeats);
  suppression(12000, 0.3, repeats);
  Lcg random;
  for (const std::int64_t n : {22500, 250000}) {
    const Tensor scores({n});
    for (std::int64_t i = 0; i < n; ++i) scores.data<float>()[i] = random();
    report(message("top_k 12000 of ", n).c_str(), repeats, [&] { top_k(scores, 12000); });
  }
}
