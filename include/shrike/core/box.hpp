// Boxes, and what is known or claimed to be in an image.
#pragma once

#include <algorithm>
#include <cstdint>

namespace shrike {

// Corners in pixels: 0-based and continuous, so that x2 - x1 is the width (torchvision's convention).
struct Box {
  float x1 = 0, y1 = 0, x2 = 0, y2 = 0;

  float width() const { return x2 - x1; }
  float height() const { return y2 - y1; }
  float area() const { return width() * height(); }
  friend bool operator==(const Box&, const Box&) = default;
};

// Area of the intersection over that of the union; 0 when the union is empty.
inline float iou(const Box& a, const Box& b) {
  const float width = std::max(0.0f, std::min(a.x2, b.x2) - std::max(a.x1, b.x1));
  const float height = std::max(0.0f, std::min(a.y2, b.y2) - std::max(a.y1, b.y1));
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
