// Pooling of codes: maxima are the float operations' own, RoIAlign is the definition of ops/roi.hpp in plain loops.
#include "quantized.hpp"
#include "shrike/ops/pool.hpp"
#include "shrike/ops/roi.hpp"
#include "threads.hpp"

using namespace shrike;
using quantized::code_types;

namespace {

Tensor as_float(const Tensor& codes) {
  const auto values = quantized::codes(codes);
  return tensor<float>(codes.shape(), std::vector<float>(values.begin(), values.end()));
}

Tensor as_codes(const Tensor& values, Dtype dtype) {
  const Tensor result(values.shape(), dtype);
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    static_cast<std::uint8_t*>(result.raw())[i] = static_cast<std::uint8_t>(static_cast<int>(values.data<float>()[i]));
  }
  return result;
}

// Regions in, across and outside maps of 16 times h by w pixels, some of no image.
Tensor random_rois(std::int64_t count, std::int64_t images, std::int64_t h, std::int64_t w, Random& random) {
  const Tensor rois({count, 5});
  for (std::int64_t i = 0; i < count; ++i) {
    float* roi = rois.data<float>() + 5 * i;
    const auto height = 16.0f * static_cast<float>(h), width = 16.0f * static_cast<float>(w);
    roi[0] = static_cast<float>(static_cast<int>(random.below(static_cast<std::uint32_t>(images + 2))) - 1);
    roi[1] = random.uniform(-0.3f, 1.0f) * width;
    roi[2] = random.uniform(-0.3f, 1.0f) * height;
    roi[3] = roi[1] + random.uniform(-0.1f, 1.0f) * width;
    roi[4] = roi[2] + random.uniform(-0.1f, 1.0f) * height;
  }
  return rois;
}

// x alone, or x rounded into a float at every step, so that no compiler joins two.
float rounded(float x) {
  volatile float value = x;
  return value;
}

struct Places {
  std::int64_t samples = 0;
  std::vector<std::vector<float>> of_bin;  // of samples that count

  Places(float low, float high, std::int64_t bins, std::int64_t extent, const RoiOptions& o)
      : of_bin(static_cast<std::size_t>(bins)) {
    const auto scale = static_cast<float>(o.spatial_scale);
    const float offset = o.aligned ? 0.5f : 0.0f;
    const float start = std::fma(low, scale, -offset);
    float length = rounded(std::fma(high, scale, -offset) - start);
    if (!o.aligned && length < 1.0f) length = 1.0f;
    const float size = rounded(length / static_cast<float>(bins));
    samples = o.sampling_ratio > 0 ? o.sampling_ratio : std::max<std::int64_t>(0, static_cast<std::int64_t>(std::ceil(size)));
    for (std::int64_t bin = 0; bin < bins; ++bin) {
      for (std::int64_t i = 0; i < samples; ++i) {
        const float part = rounded(rounded(static_cast<float>(i) + 0.5f) / static_cast<float>(samples));
        const float at = std::fma(rounded(static_cast<float>(bin) + part), size, start);
        if (at >= -1.0f && at <= static_cast<float>(extent))
          of_bin[static_cast<std::size_t>(bin)].push_back(std::max(at, 0.0f));
      }
    }
  }
};

Tensor plain_roi_align(const Tensor& x, const Tensor& rois, const RoiOptions& o) {
  const auto codes = quantized::codes(x);
  const std::int64_t h = x.size(1), w = x.size(2), channels = x.size(3);
  const Tensor y({rois.size(0), o.height, o.width, channels}, x.dtype());
  auto* to = static_cast<std::uint8_t*>(y.raw());
  for (std::int64_t n = 0; n < rois.size(0); ++n) {
    const float* roi = rois.data<float>() + 5 * n;
    const Places rows(roi[2], roi[4], o.height, h, o), columns(roi[1], roi[3], o.width, w, o);
    for (std::int64_t i = 0; i < o.height; ++i)
      for (std::int64_t j = 0; j < o.width; ++j)
        for (std::int64_t c = 0; c < channels; ++c) {
          float sum = 0;
          const auto image = static_cast<std::int64_t>(roi[0]);
          const auto add = [&](std::int64_t row, std::int64_t column, float weight) {
            const auto at = static_cast<std::size_t>(((image * h + row) * w + column) * channels + c);
            sum = std::fma(weight, static_cast<float>(codes[at]), sum);
          };
          if (roi[0] >= 0 && image < x.size(0)) {
            for (const float v : rows.of_bin[static_cast<std::size_t>(i)])
              for (const float u : columns.of_bin[static_cast<std::size_t>(j)]) {
                const auto top = std::min(static_cast<std::int64_t>(v), h - 1),
                           left = std::min(static_cast<std::int64_t>(u), w - 1);
                const float b = top == h - 1 ? 0.0f : v - static_cast<float>(top);
                const float d = left == w - 1 ? 0.0f : u - static_cast<float>(left);
                const float a = rounded(1.0f - b), e = rounded(1.0f - d);
                const std::int64_t bottom = std::min(top + 1, h - 1), right = std::min(left + 1, w - 1);
                add(top, left, rounded(a * e));
                add(top, right, rounded(a * d));
                add(bottom, left, rounded(b * e));
                add(bottom, right, rounded(b * d));
              }
          }
          const float count = static_cast<float>(rows.samples) * static_cast<float>(columns.samples);
          const float mean = count > 0 ? sum / count : 0.0f;
          *to++ = static_cast<std::uint8_t>(static_cast<int>(std::rint(mean)));
        }
  }
  return y;
}

}  // namespace

TEST_CASE("max pooling of codes is that of their values") {
  const PoolOptions options[] = {{}, {.ceil_mode = true}, {.kernel = 3, .stride = 2, .padding = 1}, {.kernel = 3, .stride = 1}};
  for (const Dtype type : code_types) {
    for (const auto& o : options) {
      for (const Shape& shape : {Shape{2, 9, 7, 3}, Shape{1, 6, 5, 70}, Shape{0, 4, 4, 2}, Shape{1, 3, 3, 1}}) {
        Random random(1, RandomStream::test);
        const Tensor x = quantized::random_codes(shape, type, random);
        CHECK(quantized::same(max_pool2d(x, o), as_codes(max_pool2d(as_float(x), o), type)));
      }
    }
  }
}

TEST_CASE("RoIPool of codes is that of their values") {
  for (const Dtype type : code_types) {
    for (const std::int64_t channels : {1, 5, 40}) {
      Random random(2, RandomStream::test);
      const Tensor x = quantized::random_codes({2, 11, 13, channels}, type, random);
      const Tensor rois = random_rois(40, 2, 11, 13, random);
      const RoiOptions o{.height = 7, .width = 5, .spatial_scale = 1.0 / 16};
      CHECK(quantized::same(roi_pool(x, rois, o), as_codes(roi_pool(as_float(x), rois, o), type)));
    }
    CHECK(roi_pool(Tensor({1, 4, 4, 3}, type), Tensor({0, 5})).shape() == Shape{0, 7, 7, 3});
  }
}

TEST_CASE("RoIAlign of codes equals its definition to the bit, and float RoIAlign to a step") {
  for (const Dtype type : code_types) {
    for (const std::int64_t ratio : {2, 3, 0}) {
      for (const bool aligned : {false, true}) {
        Random random(3, RandomStream::test);
        const Tensor x = quantized::random_codes({2, 12, 9, 19}, type, random);
        const Tensor rois = random_rois(40, 2, 12, 9, random);
        const RoiOptions o{.height = 5, .width = 7, .spatial_scale = 1.0 / 16, .sampling_ratio = ratio, .aligned = aligned};
        const Tensor y = roi_align(x, rois, o);
        INFO(name(type) << ", sampling ratio " << ratio << ", aligned " << aligned);
        CHECK(quantized::same(y, plain_roi_align(x, rois, o)));
        const Tensor values = roi_align(as_float(x), rois, o);
        const auto codes = quantized::codes(y);
        float worst = 0;
        for (std::size_t i = 0; i < codes.size(); ++i) {
          worst = std::max(worst, std::abs(static_cast<float>(codes[i]) - values.data<float>()[i]));
        }
        CHECK(worst < 0.51f);
      }
    }
  }
}

TEST_CASE("RoIAlign of codes survives regions that are huge, or no numbers") {
  Random random(4, RandomStream::test);
  const Tensor x = quantized::random_codes({1, 4, 5, 3}, Dtype::u8, random);
  const RoiOptions o{.height = 2, .width = 2, .sampling_ratio = 0};
  const Tensor rois =
      tensor<float>({4, 5}, {0, 0, 0, NAN, 4, 0, -INFINITY, 0, 3, 3, 0, -30, -20, 60, 300, 0, -1e9f, -1e9f, 1e9f, 1e9f});
  const Tensor y = roi_align(x, rois, o);
  const auto codes = quantized::codes(y);
  for (std::size_t i = 0; i < 24; ++i) CHECK(codes[i] == 0);
  const Tensor third = roi_align(x, tensor<float>({1, 5}, {0, -30, -20, 60, 300}), o);
  CHECK(quantized::same(third, plain_roi_align(x, tensor<float>({1, 5}, {0, -30, -20, 60, 300}), o)));
}

TEST_CASE("pooling of codes does not depend on the number of threads") {
  Random random(5, RandomStream::test);
  const Tensor x = quantized::random_codes({2, 17, 15, 40}, Dtype::s8, random);
  const Tensor rois = random_rois(30, 2, 17, 15, random);
  CHECK(same_on_any_threads([&] { return max_pool2d(x); }));
  CHECK(same_on_any_threads([&] { return roi_pool(x, rois, {.spatial_scale = 1.0 / 16}); }));
  CHECK(same_on_any_threads([&] { return roi_align(x, rois, {.spatial_scale = 1.0 / 16}); }));
}
