// What resizing and mirroring an image do to its boxes.
#pragma once

#include "shrike/core/box.hpp"

namespace shrike {

// A box after its image was resized by these factors.
inline Box scaled(const Box& box, float scale_x, float scale_y) {
  return {box.x1 * scale_x, box.y1 * scale_y, box.x2 * scale_x, box.y2 * scale_y};
}

// A box after its image of `width` pixels was mirrored, left and right exchanged.
inline Box mirrored(const Box& box, float width) { return {width - box.x2, box.y1, width - box.x1, box.y2}; }

}  // namespace shrike
