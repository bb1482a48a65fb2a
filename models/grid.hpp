// Where the cells of a backbone's feature map lie in the image.
#pragma once

namespace shrike::models {

struct MapGrid {
  int stride;    // pixels from a cell to the next, where image sides are multiples of it
  float centre;  // of the first cell, in strides from the image's corner
};

}  // namespace shrike::models
