// ResNet (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016): its stages, and a backbone of the first four.
#pragma once

#include <cmath>
#include <deque>
#include <numeric>
#include <string>
#include <vector>

#include "models/grid.hpp"
#include "shrike/nn/layers.hpp"

namespace shrike::models {

// Odd kernels with a stride of 2 centre cell i of their map on pixel 2 i: cell i of this one lies at pixel 16 i.
inline constexpr MapGrid resnet_c4_grid{16, 0};

struct ResnetOptions {
  int depth = 18;           // 18, 34, 50 or 101
  int width = 64;           // channels of the first stage
  bool batch_norm = true;   // false: folded into the convolutions
  bool frozen_norm = true;  // batch norm by its running statistics, untrained, as is usual for fine-tuning detectors
  int frozen_stages = 0;    // conv1 is the first stage, layer1 the second, ...; their batch norm is frozen, too
};

// The blocks of layer1 to layer4.
inline std::vector<int> resnet_blocks(int depth) {
  switch (depth) {
    case 18: return {2, 2, 2, 2};
    case 34:
    case 50: return {3, 4, 6, 3};
    case 101: return {3, 4, 23, 3};
    default: fail("ResNet-", depth, ": expected depth 18, 34, 50 or 101");
  }
}

// Channels that leave a block, for each of its 3x3 convolution's.
inline std::int64_t resnet_expansion(int depth) { return depth >= 50 ? 4 : 1; }

// Channels that leave layer1 (stage 1) to layer4.
inline std::int64_t resnet_channels(int depth, int width, int stage) {
  return (std::int64_t{width} << (stage - 1)) * resnet_expansion(depth);
}

// How the last convolution of a residual branch starts. With live batch norm its scale does not matter. Else a branch of He's
// variance adds twice the mean square of what passes the block, and the map's grows threefold with each: here the L blocks of a
// network add 1 / L each, less than a factor of e in all.
inline nn::Init branch_end(const ResnetOptions& options) {
  if (options.batch_norm && !options.frozen_norm) return nn::Init::he();
  const std::vector<int> blocks = resnet_blocks(options.depth);
  return nn::Init::he(1 / std::sqrt(2.0f * static_cast<float>(std::accumulate(blocks.begin(), blocks.end(), 0))));
}

// conv + batch norm, or a convolution into which it was folded.
class ConvNorm : public nn::Module {
 public:
  ConvNorm(std::int64_t in, std::int64_t out, int kernel, int stride, bool relu, const ResnetOptions& options,
           nn::Init init = nn::Init::he())
      : conv(in, out, kernel, conv_options(kernel, stride, relu && !options.batch_norm), !options.batch_norm, init) {
    if (options.batch_norm) norm = std::make_shared<nn::BatchNorm>(out, relu, options.frozen_norm);
  }
  Tensors forward(const Tensors& in) override {
    const Tensor y = conv(in[0]);
    return {norm ? (*norm)(y) : y};
  }

  nn::Conv2d conv;
  std::shared_ptr<nn::BatchNorm> norm;

 private:
  static Conv2dOptions conv_options(int kernel, int stride, bool relu) {
    Conv2dOptions options;
    options.stride = stride;
    options.padding = kernel / 2;
    options.relu = relu;
    return options;
  }
};

// relu(f(x) + shortcut(x)), the shortcut a strided 1x1 convolution where the shape changes; f is a chain of convolutions, all
// but the last with ReLU.
class ResidualBlock : public nn::Module {
 public:
  Tensors forward(const Tensors& in) override {
    const Tensor shortcut = downsample_ ? (*downsample_)(in[0]) : in[0];
    Tensor x = in[0];
    for (auto& part : chain_) x = part(x);
    return {add(x, shortcut, true)};
  }
  void visit(nn::Members& members) override {
    for (std::size_t i = 0; i < chain_.size(); ++i) {
      visit(members, "conv" + std::to_string(i + 1), "bn" + std::to_string(i + 1), chain_[i]);
    }
    if (downsample_) visit(members, "downsample.0", "downsample.1", *downsample_);
  }

 protected:
  void set_shortcut(std::int64_t in, std::int64_t out, int stride, const ResnetOptions& options) {
    if (stride != 1 || in != out) downsample_ = std::make_unique<ConvNorm>(in, out, 1, stride, false, options);
  }
  std::deque<ConvNorm> chain_;

 private:
  static void visit(nn::Members& members, const std::string& conv, const std::string& norm, ConvNorm& part) {
    members.child(conv, part.conv);
    if (part.norm) members.child(norm, *part.norm);
  }

  std::unique_ptr<ConvNorm> downsample_;
};

// Two 3x3 convolutions.
class BasicBlock : public ResidualBlock {
 public:
  BasicBlock(std::int64_t in, std::int64_t out, int stride, const ResnetOptions& options) {
    chain_.emplace_back(in, out, 3, stride, true, options);
    chain_.emplace_back(out, out, 3, 1, false, options, branch_end(options));
    set_shortcut(in, out, stride, options);
  }
};

// 1x1, 3x3, 1x1 to four times as many channels; the stride is the 3x3 convolution's, as in torchvision ("ResNet v1.5").
class Bottleneck : public ResidualBlock {
 public:
  Bottleneck(std::int64_t in, std::int64_t middle, int stride, const ResnetOptions& options) {
    chain_.emplace_back(in, middle, 1, 1, true, options);
    chain_.emplace_back(middle, middle, 3, stride, true, options);
    chain_.emplace_back(middle, 4 * middle, 1, 1, false, options, branch_end(options));
    set_shortcut(in, 4 * middle, stride, options);
  }
};

// layer1 (stage 1) to layer4: [N, H, W, C] -> [N, H / 2, W / 2, resnet_channels()], without the halving for stage 1; halves are
// rounded up. Names as in torchvision. A frozen stage keeps its weights and batch norm.
inline std::shared_ptr<nn::Sequential> resnet_layer(int stage, ResnetOptions options) {
  const bool frozen = stage < options.frozen_stages;  // conv1 is the first
  options.frozen_norm |= frozen;
  auto layer = std::make_shared<nn::Sequential>();
  const std::int64_t middle = std::int64_t{options.width} << (stage - 1);
  std::int64_t in = stage == 1 ? options.width : resnet_channels(options.depth, options.width, stage - 1);
  for (int b = 0; b < resnet_blocks(options.depth)[static_cast<std::size_t>(stage - 1)]; ++b) {
    const int stride = b == 0 && stage > 1 ? 2 : 1;
    nn::ModulePtr block;
    if (resnet_expansion(options.depth) == 1) {
      block = std::make_shared<BasicBlock>(in, middle, stride, options);
    } else {
      block = std::make_shared<Bottleneck>(in, middle, stride, options);
    }
    layer->add(std::to_string(b), std::move(block));
    in = resnet_channels(options.depth, options.width, stage);
  }
  if (frozen) nn::set_requires_grad(*layer, false);
  return layer;
}

// conv1 to layer3, "C4": [N, H, W, 3] -> [N, H / 16, W / 16, 4 * width * expansion]. Names as in torchvision.
class ResnetC4 : public nn::Module {
 public:
  explicit ResnetC4(const ResnetOptions& options) : stem_(3, options.width, 7, 2, true, options) {
    for (int stage = 1; stage <= 3; ++stage) layers_.push_back(resnet_layer(stage, options));
    if (options.frozen_stages <= 0) return;
    nn::set_requires_grad(stem_.conv, false);
    if (stem_.norm) stem_.norm->frozen = true, nn::set_requires_grad(*stem_.norm, false);
  }

  Tensors forward(const Tensors& in) override {
    PoolOptions pool;
    pool.kernel = 3;
    pool.stride = 2;
    pool.padding = 1;
    Tensor x = max_pool2d(stem_(in[0]), pool);
    for (auto& layer : layers_) x = (*layer)(x);
    return {x};
  }

  void visit(nn::Members& members) override {
    members.child("conv1", stem_.conv);
    if (stem_.norm) members.child("bn1", *stem_.norm);
    for (std::size_t i = 0; i < layers_.size(); ++i) members.child("layer" + std::to_string(i + 1), *layers_[i]);
  }

 private:
  ConvNorm stem_;
  std::vector<std::shared_ptr<nn::Sequential>> layers_;
};

}  // namespace shrike::models
