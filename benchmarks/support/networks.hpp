// The convolutions of networks that detectors are made of.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shrike/ops/conv.hpp"

namespace shrike::bench {

struct ConvLayer {
  const char* name;     // torchvision's, or the paper's for VGG16
  std::int64_t c, k;    // channels of the published network
  std::int64_t kernel;  // height and width; the padding is half of it
  std::int64_t stride;
  int halvings;  // the map is the image, halved so often
};

struct Network {
  std::string name;
  bool rounds_up;  // a map's half: of ResNet's strided convolutions (p + 1) / 2, of VGG's pools p / 2
  std::vector<ConvLayer> layers;

  // The layer on the maps of a batch of images; `width` channels in the first stage instead of 64.
  kernels::Conv2dSizes sizes(const ConvLayer& layer, std::int64_t batch, std::int64_t image_height, std::int64_t image_width,
                             std::int64_t width) const;
};

// VGG16 whole; a ResNet's layers of the same shape are listed once.
const std::vector<Network>& networks();

}  // namespace shrike::bench
