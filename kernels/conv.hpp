// The ways to compute a convolution on the device, and the choice between them. A linear layer is a convolution of 1x1 maps.
#pragma once

#include <span>

#include "kernels/cuda.hpp"
#include "shrike/ops/conv.hpp"
#include "shrike/ops/linear.hpp"

namespace shrike::kernels {

enum class ConvPass { fprop, dgrad, wgrad };

// Device memory. fprop reads x and weight, and bias [k] and residual (shaped like y) unless they are null; dgrad reads dy and
// weight; wgrad reads dy and x. `out` is y, dx or dweight: overwritten, all of it.
struct ConvPointers {
  const float* x = nullptr;
  const float* weight = nullptr;
  const float* dy = nullptr;
  const float* bias = nullptr;
  const float* residual = nullptr;
  float* out = nullptr;
};

// Only fprop looks at sizes.relu: y = max(conv + bias + residual, 0). The dy of the other passes is masked already.
struct ConvCandidate {
  const char* name;  // "tf32_128x128"
  bool tf32;         // rounds its operands to 10 bits of mantissa; all others are fp32 throughout
  bool (*supported)(const Conv2dSizes& sizes, const cuda::Properties& device);
  double (*predict)(const Conv2dSizes& sizes, const cuda::Properties& device);  // seconds, by the model in conv_plan.hpp
  void (*run)(const Conv2dSizes& sizes, const ConvPointers& pointers);
};

// All of ours for a pass; the last is the naive kernel, which supports every size.
std::span<const ConvCandidate> conv_candidates(ConvPass pass);

// The supported candidate of the least predicted time, among those without TF32 where that is switched off.
const ConvCandidate& predicted_conv(ConvPass pass, const Conv2dSizes& sizes,
                                    const cuda::Properties& device = cuda::properties());

// Runs a pass by the provider that cuda_settings() asks for: predicted_conv's candidate where ours are, or the fastest of ours
// and the vendor's.
void run_conv(ConvPass pass, const Conv2dSizes& sizes, const ConvPointers& pointers);

Conv2dSizes as_conv(const LinearSizes& sizes);

// The gradients of everything by run_conv, after one pass over dy that masks it and sums its columns.
void conv_gradients(const Conv2dSizes& sizes, const ConvPointers& pointers, const float* y, float* dx, float* dweight,
                    float* dbias);

}  // namespace shrike::kernels
