// Images and what is in them, whatever format they came from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shrike/core/box.hpp"

namespace shrike {

// One image on disk and its annotated objects, boxes in pixels of the image as stored.
struct Sample {
  std::string id;
  std::string image_path;
  int height = 0, width = 0;
  std::vector<Object> objects;  // none is fine
};

struct Dataset {
  std::string root;
  std::vector<std::string> classes;  // label i is classes[i - 1]; label 0 is background
  std::vector<Sample> samples;
};

}  // namespace shrike
