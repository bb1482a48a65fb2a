// ResNet (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016), up to its fourth stage.
#pragma once

#include <deque>
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
  int frozen_stages = 0;    // conv1 is the first stage, layer1 the second, ...
};

// conv + batch norm, or a convolution into which it was folded.
class ConvNorm : public nn::Module {
 public:
  ConvNorm(std::int64_t in, std::int64_t out, int kernel, int stride, bool relu, const ResnetOptions& options)
      : conv(in, out, kernel, conv_options(kernel, stride, relu && !options.batch_norm), !options.batch_norm) {
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
    chain_.emplace_back(out, out, 3, 1, false, options);
    set_shortcut(in, out, stride, options);
  }
};

// 1x1, 3x3, 1x1 to four times as many channels; the stride is the 3x3 convolution's, as in torchvision ("ResNet v1.5").
class Bottleneck : public ResidualBlock {
 public:
  Bottleneck(std::int64_t in, std::int64_t middle, int stride, const ResnetOptions& options) {
    chain_.emplace_back(in, middle, 1, 1, true, options);
    chain_.emplace_back(middle, middle, 3, stride, true, options);
    chain_.emplace_back(middle, 4 * middle, 1, 1, false, options);
    set_shortcut(in, 4 * middle, stride, options);
  }
};

// The blocks of layer1 to layer3.
inline std::vector<int> resnet_blocks(int depth) {
  switch (depth) {
    case 18: return {2, 2, 2};
    case 34:
    case 50: return {3, 4, 6};
    case 101: return {3, 4, 23};
    default: fail("ResNet-", depth, ": expected depth 18, 34, 50 or 101");
  }
}

// Channels that leave a block, for each of its 3x3 convolution's.
inline std::int64_t resnet_expansion(int depth) { return depth >= 50 ? 4 : 1; }

// conv1 to layer3, "C4": [N, H, W, 3] -> [N, H / 16, W / 16, 4 * width * expansion]. Names as in torchvision.
class ResnetC4 : public nn::Module {
 public:
  explicit ResnetC4(const ResnetOptions& options) : stem_(3, options.width, 7, 2, true, options) {
    const std::vector<int> blocks = resnet_blocks(options.depth);
    std::int64_t in = options.width;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      auto layer = std::make_shared<nn::Sequential>();
      const std::int64_t middle = std::int64_t{options.width} << i;
      for (int b = 0; b < blocks[i]; ++b) {
        const int stride = b == 0 && i > 0 ? 2 : 1;
        nn::ModulePtr block;
        if (resnet_expansion(options.depth) == 1) {
          block = std::make_shared<BasicBlock>(in, middle, stride, options);
        } else {
          block = std::make_shared<Bottleneck>(in, middle, stride, options);
        }
        layer->add(std::to_string(b), std::move(block));
        in = middle * resnet_expansion(options.depth);
      }
      layers_.push_back(std::move(layer));
    }
    if (options.frozen_stages > 0) {
      nn::set_requires_grad(stem_.conv, false);
      if (stem_.norm) stem_.norm->frozen = true, nn::set_requires_grad(*stem_.norm, false);
    }
    for (int i = 1; i < options.frozen_stages && i <= static_cast<int>(layers_.size()); ++i) {
      nn::set_requires_grad(*layers_[static_cast<std::size_t>(i - 1)], false);
    }
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
