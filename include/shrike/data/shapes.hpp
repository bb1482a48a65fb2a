// The built-in data set: textured shapes on cluttered backgrounds, drawn by a seed and stored as a VOC folder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shrike/core/box.hpp"
#include "shrike/data/image.hpp"

namespace shrike {

struct ShapesOptions {
  int train = 600, test = 150;  // images of the splits trainval and test
  int width = 256, height = 192;
  int max_objects = 6;  // in an image; at least one is drawn
  std::uint64_t seed = 1;
};

// circle, cross, ring, square, star, triangle
const std::vector<std::string>& shape_classes();

struct ShapesPicture {
  struct Shape {
    Object object;           // the box of what can be seen, whole pixels; difficult when less than 40% of the shape can be
    bool truncated = false;  // reaches beyond the image
    bool occluded = false;   // partly behind another
  };
  Image image;
  std::vector<Shape> shapes;
};

// Image number `index`, fixed by the options' size, max_objects and seed.
ShapesPicture draw_shapes(const ShapesOptions& options, std::uint64_t index);

// Fills `folder` with JPEGImages, Annotations and ImageSets/Main/{trainval,test}.txt, for read_voc. A file shapes.txt, which
// says with which options, is written last: a folder that has it is left as it is, and one whose generation was interrupted or
// that was generated with other options is made anew. Returns whether images were drawn. Throws Error when an option makes no
// sense, a file cannot be written, or the folder has files but no shapes.txt.
bool write_shapes(const std::string& folder, const ShapesOptions& options = {});

}  // namespace shrike
