// VGG (Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015).
#pragma once

#include <string>
#include <vector>

#include "models/grid.hpp"
#include "shrike/nn/layers.hpp"

namespace shrike::models {

// The convolutions of each of the five stages of VGG-11, -13 and -16.
inline std::vector<int> vgg_stages(int depth) {
  switch (depth) {
    case 11: return {1, 1, 2, 2, 2};
    case 13: return {2, 2, 2, 2, 2};
    case 16: return {2, 2, 3, 3, 3};
    default: fail("VGG-", depth, ": expected depth 11, 13 or 16");
  }
}

// Each of four poolings halves the map, rounded down or up: a cell sees the 16 pixels above which it lies, and its centre is
// theirs.
inline constexpr MapGrid vgg_grid{16, 0.5f};

struct VggOptions {
  int depth = 16;
  int width = 64;            // channels of the first stage; the others have 2, 4, 8 and 8 times as many
  bool batch_norm = false;   // after each convolution
  bool frozen_norm = false;  // batch norm by its running statistics, untrained
  int frozen_stages = 0;     // first stages that are not trained; their batch norm is frozen, too
  bool ceil_mode = false;    // poolings round a map's size up, as Caffe's
};

// The features without the last pooling: [N, H, W, 3] -> [N, H / 16, W / 16, 8 * width], rounded as options.ceil_mode says.
// Layers are named as torchvision numbers them, "0" to "28" for VGG-16, where the convolution (or batch norm) takes its ReLU
// in.
inline std::shared_ptr<nn::Sequential> vgg_features(const VggOptions& options) {
  auto features = std::make_shared<nn::Sequential>();
  const auto stages = vgg_stages(options.depth);
  PoolOptions pool;
  pool.ceil_mode = options.ceil_mode;
  std::int64_t in = 3;
  int index = 0;
  for (std::size_t stage = 0; stage < stages.size(); ++stage) {
    if (stage > 0) features->add(std::to_string(index++), std::make_shared<nn::MaxPool2d>(pool));
    const std::int64_t out = std::int64_t{options.width} << std::min<std::size_t>(stage, 3);
    const bool frozen = static_cast<int>(stage) < options.frozen_stages;
    for (int i = 0; i < stages[stage]; ++i) {
      Conv2dOptions conv;
      conv.padding = 1;
      conv.relu = !options.batch_norm;
      const bool live = options.batch_norm && !options.frozen_norm;
      const nn::Init init = live ? nn::Init{} : nn::Init::he();
      auto layer = std::make_shared<nn::Conv2d>(in, out, 3, conv, !options.batch_norm, init);
      if (frozen) nn::set_requires_grad(*layer, false);
      features->add(std::to_string(index++), std::move(layer));
      if (options.batch_norm) {
        features->add(std::to_string(index++), std::make_shared<nn::BatchNorm>(out, true, frozen || options.frozen_norm));
      }
      ++index;  // the ReLU's own number
      in = out;
    }
  }
  return features;
}

}  // namespace shrike::models
