// Bare convolutions of oneDNN, the peer of conv_bench: versions 2 and 3.
#pragma once

#include <functional>
#include <string>

#include "shrike/ops/conv.hpp"

namespace shrike::bench::onednn {

enum class Pass { forward, data, weight };

// "2.6.3"
std::string version();

// Debian's oneDNN computes on OpenMP's threads: so many, from here on, for calls by this thread.
void set_threads(int threads);

// A call of a primitive on memory of its own, filled with random values, in the layouts that oneDNN likes best, by its direct
// algorithm or its Winograd. Without a residual and a ReLU; with a bias, whose gradient the weight pass computes too. Throws
// Error where oneDNN has no such implementation.
std::function<void()> convolution(const kernels::Conv2dSizes& sizes, Pass pass, bool winograd);

}  // namespace shrike::bench::onednn
