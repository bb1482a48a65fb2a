// VGG16 (Simonyan and Zisserman, 2015) with the RPN of Faster R-CNN; ResNet-18 and ResNet-50 (He et al., 2016), the latter with
// the stride in the 3x3 convolutions, as torchvision and NVIDIA's version 1.5 have it.
#include "benchmarks/support/networks.hpp"

namespace shrike::bench {
namespace {

// Name, channels in and out, kernel, stride, halvings.
const std::vector<ConvLayer> vgg16_layers = {
    {"conv1_1", 3, 64, 3, 1, 0},    {"conv1_2", 64, 64, 3, 1, 0},   {"conv2_1", 64, 128, 3, 1, 1},
    {"conv2_2", 128, 128, 3, 1, 1}, {"conv3_1", 128, 256, 3, 1, 2}, {"conv3_2", 256, 256, 3, 1, 2},
    {"conv3_3", 256, 256, 3, 1, 2}, {"conv4_1", 256, 512, 3, 1, 3}, {"conv4_2", 512, 512, 3, 1, 3},
    {"conv4_3", 512, 512, 3, 1, 3}, {"conv5_1", 512, 512, 3, 1, 4}, {"conv5_2", 512, 512, 3, 1, 4},
    {"conv5_3", 512, 512, 3, 1, 4}, {"rpn", 512, 512, 3, 1, 4},
};

const std::vector<ConvLayer> resnet18_layers = {
    {"conv1", 3, 64, 7, 2, 0},
    {"layer1.0.conv1", 64, 64, 3, 1, 2},
    {"layer2.0.conv1", 64, 128, 3, 2, 2},
    {"layer2.0.downsample", 64, 128, 1, 2, 2},
    {"layer2.0.conv2", 128, 128, 3, 1, 3},
    {"layer3.0.conv1", 128, 256, 3, 2, 3},
    {"layer3.0.downsample", 128, 256, 1, 2, 3},
    {"layer3.0.conv2", 256, 256, 3, 1, 4},
    {"layer4.0.conv1", 256, 512, 3, 2, 4},
    {"layer4.0.downsample", 256, 512, 1, 2, 4},
    {"layer4.0.conv2", 512, 512, 3, 1, 5},
};

const std::vector<ConvLayer> resnet50_layers = {
    {"conv1", 3, 64, 7, 2, 0},
    {"layer1.0.conv1", 64, 64, 1, 1, 2},
    {"layer1.0.conv2", 64, 64, 3, 1, 2},
    {"layer1.0.conv3", 64, 256, 1, 1, 2},
    {"layer1.1.conv1", 256, 64, 1, 1, 2},
    {"layer2.0.conv1", 256, 128, 1, 1, 2},
    {"layer2.0.conv2", 128, 128, 3, 2, 2},
    {"layer2.0.conv3", 128, 512, 1, 1, 3},
    {"layer2.0.downsample", 256, 512, 1, 2, 2},
    {"layer2.1.conv1", 512, 128, 1, 1, 3},
    {"layer2.1.conv2", 128, 128, 3, 1, 3},
    {"layer3.0.conv1", 512, 256, 1, 1, 3},
    {"layer3.0.conv2", 256, 256, 3, 2, 3},
    {"layer3.0.conv3", 256, 1024, 1, 1, 4},
    {"layer3.0.downsample", 512, 1024, 1, 2, 3},
    {"layer3.1.conv1", 1024, 256, 1, 1, 4},
    {"layer3.1.conv2", 256, 256, 3, 1, 4},
    {"layer4.0.conv1", 1024, 512, 1, 1, 4},
    {"layer4.0.conv2", 512, 512, 3, 2, 4},
    {"layer4.0.conv3", 512, 2048, 1, 1, 5},
    {"layer4.0.downsample", 1024, 2048, 1, 2, 4},
    {"layer4.1.conv1", 2048, 512, 1, 1, 5},
    {"layer4.1.conv2", 512, 512, 3, 1, 5},
};

}  // namespace

kernels::Conv2dSizes Network::sizes(const ConvLayer& layer, std::int64_t batch, std::int64_t image_height,
                                    std::int64_t image_width, std::int64_t width) const {
  const auto halved = [&](std::int64_t size) {
    for (int i = 0; i < layer.halvings; ++i) size = (size + (rounds_up ? 1 : 0)) / 2;
    return size;
  };
  const std::int64_t h = halved(image_height), w = halved(image_width), padding = layer.kernel / 2;
  const auto outputs = [&](std::int64_t size) { return (size + 2 * padding - layer.kernel) / layer.stride + 1; };
  const std::int64_t c = layer.c == 3 ? 3 : layer.c * width / 64, k = layer.k * width / 64;
  return {batch, h, w, c, k, layer.kernel, layer.kernel, outputs(h), outputs(w), layer.stride, padding, 1, 1, false};
}

const std::vector<Network>& networks() {
  static const std::vector<Network> all = {
      {"vgg16", false, vgg16_layers}, {"resnet18", true, resnet18_layers}, {"resnet50", true, resnet50_layers}};
  return all;
}

}  // namespace shrike::bench
