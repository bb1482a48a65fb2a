// Linear layers: y = x weight^T + bias is a 1x1 convolution of `rows` maps of one pixel, and so are its gradients. The kernels
// are those of the convolution, where a map of one pixel costs two instructions a copy.
#include "kernels/conv.hpp"

namespace shrike::kernels {

Conv2dSizes as_conv(const LinearSizes& sizes) {
  return {.n = sizes.rows,
          .h = 1,
          .w = 1,
          .c = sizes.in,
          .k = sizes.out,
          .r = 1,
          .s = 1,
          .p = 1,
          .q = 1,
          .stride = 1,
          .padding = 0,
          .dilation = 1,
          .groups = 1,
          .relu = sizes.relu};
}

void linear_forward(Cuda, const LinearSizes& sizes, const float* x, const float* weight, const float* bias, float* y) {
  run_conv(ConvPass::fprop, as_conv(sizes), {.x = x, .weight = weight, .bias = bias, .out = y});
}

void linear_backward(Cuda, const LinearSizes& sizes, const float* x, const float* weight, const float* y, const float* dy,
                     float* dx, float* dweight, float* dbias) {
  conv_gradients(as_conv(sizes), {.x = x, .weight = weight, .dy = dy}, y, dx, dweight, dbias);
}

}  // namespace shrike::kernels
