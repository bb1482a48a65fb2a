// Anchors: boxes of several sizes and shapes at every cell of a feature map (Ren et al., "Faster R-CNN", NIPS 2015).
#pragma once

#include <cstdint>
#include <vector>

#include "shrike/core/box.hpp"
#include "shrike/core/tensor.hpp"

namespace shrike {

// How the sides of anchors are rounded: corners: half sides to whole pixels (torchvision); base: the sides that an anchor of
// 16^2 pixels would have, and then scaled (py-faster-rcnn, lib/rpn/generate_anchors.py); none (Detectron2).
enum class AnchorRounding { corners, base, none };

// The default is the paper's: base 16 with scales 8, 16, 32, which are sides of 128, 256 and 512 pixels.
struct AnchorOptions {
  std::vector<float> sizes = {128, 256, 512};  // square roots of the areas, pixels
  std::vector<float> ratios = {0.5f, 1, 2};    // height / width
  float offset = 0;  // centre of the first anchor, in strides: 0 as torchvision, 0.5 for the centre of the cell
  AnchorRounding rounding = AnchorRounding::corners;

  int per_cell() const { return static_cast<int>(sizes.size() * ratios.size()); }
};

// The per_cell() anchors around the origin: sides w = size / sqrt(ratio), h = size sqrt(ratio), rounded (ties to even) as
// options.rounding says. Ratios are the outer loop, sizes the inner one, as in torchvision.
std::vector<Box> base_anchors(const AnchorOptions& options);

// All anchors of a map of map_height x map_width cells, stride_y x stride_x pixels apart: f32 [map_height map_width A, 4], in
// order (y, x, ratio, size). An NHWC map with A or 4 A channels, viewed as [H W A] or [H W A, 4], has the same order.
// Throws Error on no or non-positive sizes, ratios or strides.
Tensor anchors(const AnchorOptions& options, std::int64_t stride_y, std::int64_t stride_x, std::int64_t map_height,
               std::int64_t map_width, Device device = Device::cpu);

namespace kernels {
struct AnchorSizes {
  std::int64_t map_height, map_width, per_cell;
  float stride_y, stride_x;
  float offset_y, offset_x;  // pixels
};
SHRIKE_KERNEL(anchors, AnchorSizes sizes, const float* base, float* boxes);
}  // namespace kernels

}  // namespace shrike
