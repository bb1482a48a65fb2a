// Boxes and readable labels on pictures, with a font of our own: nothing but this library is needed to see what was detected.
// Edges are anti-aliased. Whatever lies outside the picture is clipped or moved inside; nothing here throws on odd boxes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shrike/core/box.hpp"
#include "shrike/data/image.hpp"

namespace shrike {

struct Color {
  std::uint8_t r = 0, g = 0, b = 0;
  friend bool operator==(const Color&, const Color&) = default;
};

// A colour of its own for each of the first 77 labels; the first seven are Okabe and Ito's, told apart by colour-blind eyes
// too.
Color class_color(std::int32_t label);

// Black or white, whichever is easier to read on `background` (contrast ratio of WCAG 2.1).
Color contrasting(Color background);

// Height of capitals, in pixels, and thickness of lines that suit a picture of this size.
int default_text_height(int height, int width);
float default_thickness(int height, int width);

// The outline of `box`, its line centred on the box's edge, with a thin rim, dark or light, that keeps it visible on any
// background. Edges beyond the picture are drawn at its border. A box with a NaN is not drawn.
void draw_box(Image& image, const Box& box, Color color, float thickness);

// Text without a plate. `x` is the left end, `baseline` the row on which capitals stand, `text_height` the height of capitals
// in pixels (multiples of 3 are crispest). Printable ASCII; any other character is drawn as an empty box.
void draw_text(Image& image, std::string_view text, float x, float baseline, int text_height, Color color);

// Width in pixels of that text.
float text_width(std::string_view text, int text_height);

// Size of the plate behind a label of that text.
ImageSize label_size(std::string_view text, int text_height);

// `text`, black or white, on a plate of `color` with its upper left corner at (x, y), moved as needed to stay in the picture.
// Text wider than the picture is shortened and ends in "..". Returns the plate's box.
Box draw_label(Image& image, std::string_view text, int x, int y, Color color, int text_height);

// Places for labels of the given sizes at their boxes, in a picture of height x width: first choice above the upper left
// corner, then inside it, below, and so on; inside the picture, and clear of the labels placed before wherever some choice is.
std::vector<Box> place_labels(int height, int width, std::span<const Box> boxes, std::span<const ImageSize> sizes);

// Zero means: chosen to suit the picture.
struct DrawOptions {
  float score_threshold = 0;  // detections below are not drawn
  float thickness = 0;
  int text_height = 0;
};

// Boxes with "class score" labels; classes[i] names label i + 1. High scores lie on top and get the better places.
void draw_detections(Image& image, std::span<const Detection> detections, std::span<const std::string> classes,
                     const DrawOptions& options = {});

// Annotated objects likewise; difficult ones and crowds say so.
void draw_objects(Image& image, std::span<const Object> objects, std::span<const std::string> classes,
                  const DrawOptions& options = {});

}  // namespace shrike
