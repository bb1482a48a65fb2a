#include "shrike/detection/anchors.hpp"

#include <cmath>
#include <map>
#include <mutex>
#include <utility>

namespace shrike {

namespace {

// The corner of an anchor around the origin.
std::pair<float, float> half_sides(float size, float ratio, AnchorRounding rounding) {
  if (rounding == AnchorRounding::base) {
    constexpr float base = 16;
    const float width = std::nearbyint(std::sqrt(base * base / ratio));
    return {width * (size / base) / 2, std::nearbyint(width * ratio) * (size / base) / 2};
  }
  const float height_ratio = std::sqrt(ratio);
  const float x = 1.0f / height_ratio * size / 2.0f, y = height_ratio * size / 2.0f;
  return rounding == AnchorRounding::none ? std::pair{x, y} : std::pair{std::nearbyint(x), std::nearbyint(y)};
}

}  // namespace

std::vector<Box> base_anchors(const AnchorOptions& options) {
  SHRIKE_CHECK(options.per_cell() > 0, "anchors: ", options.sizes.size(), " sizes and ", options.ratios.size(),
               " ratios, expected at least one of each");
  for (const float size : options.sizes) SHRIKE_CHECK(size > 0, "anchors: size ", size, ", expected a positive one");
  std::vector<Box> base;
  for (const float ratio : options.ratios) {
    SHRIKE_CHECK(ratio > 0, "anchors: ratio ", ratio, ", expected a positive one");
    for (const float size : options.sizes) {
      const auto [x, y] = half_sides(size, ratio, options.rounding);
      base.push_back({-x, -y, x, y});
    }
  }
  return base;
}

namespace {

// [A, 4] on `device`. A device keeps those it has seen: a training step uploads none again, and nothing waits for a copy.
Tensor base_tensor(const std::vector<float>& base, Device device) {
  const Shape shape{static_cast<std::int64_t>(base.size() / 4), 4};
  if (device == Device::cpu) return tensor(shape, base);
  static std::mutex mutex;
  static auto* kept = new std::map<std::vector<float>, Tensor>;  // never destroyed: the device may be gone by then
  const std::lock_guard lock(mutex);
  Tensor& entry = (*kept)[base];
  if (!entry.defined()) entry = tensor(shape, base, device);
  return entry;
}

}  // namespace

Tensor anchors(const AnchorOptions& options, std::int64_t stride_y, std::int64_t stride_x, std::int64_t map_height,
               std::int64_t map_width, Device device) {
  SHRIKE_CHECK(stride_y > 0 && stride_x > 0, "anchors: strides ", stride_y, " and ", stride_x, ", expected positive ones");
  SHRIKE_CHECK(map_height >= 0 && map_width >= 0, "anchors: a map of ", map_height, " x ", map_width, " cells");
  std::vector<float> base;
  for (const Box& box : base_anchors(options)) base.insert(base.end(), {box.x1, box.y1, box.x2, box.y2});
  const std::int64_t per_cell = options.per_cell();
  const Tensor base_boxes = base_tensor(base, device);
  const Tensor boxes({map_height * map_width * per_cell, 4}, Dtype::f32, device);
  const auto y = static_cast<float>(stride_y);
  const auto x = static_cast<float>(stride_x);
  const kernels::AnchorSizes sizes{map_height, map_width, per_cell, y, x, options.offset * y, options.offset * x};
  dispatch(device, [&](auto d) { kernels::anchors(d, sizes, base_boxes.data<float>(), boxes.data<float>()); });
  return boxes;
}

}  // namespace shrike
