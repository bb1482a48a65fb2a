// Boxes, and what is known or claimed to be in an image.
#pragma once

#include <algorithm>
#include <cstdint>

#include "shrike/core/device.hpp"

namespace shrike {

// Corners in pixels: 0-based and continuous, so that x2 - x1 is the width (torchvision's convention).
struct Box {
  float x1 = 0, y1 = 0, x2 = 0, y2 = 0;

  SHRIKE_HOST_DEVICE float width() const { return x2 - x1; }
  SHRIKE_HOST_DEVICE float height() const { return y2 - y1; }
  SHRIKE_HOST_DEVICE float area() const { return width() * height(); }
  friend bool operator==(const Box&, const Box&) = default;
};

// std::min and std::max in words that kernels may use: the first of equals, and the first where a NaN is involved.
SHRIKE_HOST_DEVICE inline float lesser(float a, float b) { return b < a ? b : a; }
SHRIKE_HOST_DEVICE inline float greater(float a, float b) { return a < b ? b : a; }

// Area of the intersection over that of the union; 0 when the union is empty.
SHRIKE_HOST_DEVICE inline float iou(const Box& a, const Box& b) {
  const float width = greater(0.0f, lesser(a.x2, b.x2) - greater(a.x1, b.x1));
  const float height = greater(0.0f, lesser(a.y2, b.y2) - greater(a.y1, b.y1));
  const float both = width * height;
  const float either = a.area() + b.area() - both;
  return either > 0.0f ? both / either : 0.0f;
}

// An annotated object. Labels count from 1; 0 is background.
struct Object {
  Box box;
  std::int32_t label = 0;
  bool difficult = false;  // VOC: neither counted nor punished in evaluation
  bool crowd = false;      // COCO: a region of many
};

// A detected object.
struct Detection {
  Box box;
  std::int32_t label = 0;
  float score = 0;
};

}  // namespace shrike
