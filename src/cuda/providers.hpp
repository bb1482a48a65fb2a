// The ways to compute one pass of a layer, ours and the vendor's, and the one that is taken.
//
// A launcher with a choice lists its own kernels, adds the vendor's and runs the best:
//
//   std::vector<Way> ways{{"ffma 64x64", [&] { ... }}, {"ffma 128x128", [&] { ... }}};
//   add_vendor_forward(ways, sizes, x, weight, bias, y);
//   run_best(conv_key("conv2d_forward", sizes, bias != nullptr, residual != nullptr), ways);
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autotune.hpp"
#include "shrike/ops/conv.hpp"

namespace shrike::cuda {

struct Way {
  std::string name;
  std::function<void()> run;  // overwrites the result; may run more than once
  bool vendor = false;
};

// Runs the one that cuda_settings().provider asks for: native, the first that is not the vendor's; vendor, the first of the
// vendor's, or of ours where the vendor has none; automatic, the fastest by the autotuner. `ways` begins with the kernel that
// our own rule of thumb prefers; the vendor's follow in the order of its heuristics. On the host nothing is measured, as time
// there says nothing about a GPU, unless SHRIKE_TUNE_CACHE names a file. While the stream is captured nothing is measured
// either.
//
// A vendor's way that throws Error ends nothing: with note_failure() the next takes its place, at last the first of ours, whose
// Error is what the caller sees. This process does not try it again for the same key. While the stream is captured the Error
// goes on: what is recorded is what ran before, or is not recorded.
void run_best(const TuneKey& key, const std::vector<Way>& ways);

// Whether run_best() looks at more than the first of our own ways: where it does not, the others need not be listed.
bool looks_further();

// Keys of the two kinds of layers. The image decides the height and width of a map, the number of rows of a matrix product's m.
TuneKey conv_key(const char* pass, const kernels::Conv2dSizes& sizes, bool bias, bool residual);
TuneKey product_key(const char* pass, std::int64_t m, std::int64_t n, std::int64_t k, bool bias, bool residual, bool relu);

// Each adds what cuDNN has for the pass with this shape, in builds by nvcc; nothing on the host. Pointers as in cudnn.hpp.
void add_vendor_forward(std::vector<Way>& ways, const kernels::Conv2dSizes& sizes, const float* x, const float* weight,
                        const float* bias, float* y);
void add_vendor_backward_data(std::vector<Way>& ways, const kernels::Conv2dSizes& sizes, const float* weight, const float* dy,
                              float* dx);
void add_vendor_backward_weight(std::vector<Way>& ways, const kernels::Conv2dSizes& sizes, const float* x, const float* dy,
                                float* dweight);

// Adds cuBLAS's product c [m, n] = op(a) op(b) + bias, row-major, as in cublas.hpp.
void add_vendor_product(std::vector<Way>& ways, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                        std::int64_t k, const float* a, const float* b, const float* bias, bool relu, float* c);

// Of s8 codes, with exact s32 sums: c [m, n] = a [m, k] b [n, k]^T, and y [n, p, q, k] = conv(x [n, h, w, c], weight [k, r, s,
// c]). Other sizes, relu included, do not matter.
using CodeProduct = std::function<void(std::int64_t m, std::int64_t n, std::int64_t k, const std::int8_t* a,
                                       const std::int8_t* b, std::int32_t* c)>;
using CodeConvolution =
    std::function<void(const kernels::Conv2dSizes& sizes, const std::int8_t* x, const std::int8_t* weight, std::int32_t* y)>;

// Each adds layer(f) for every f that cuBLAS has for products, cuDNN for convolutions of these sizes: nothing where one of c, k
// or n is not a multiple of 4, and nothing on the host. The library is asked when the way runs.
void add_vendor_code_product(std::vector<Way>& ways, std::int64_t n, std::int64_t k,
                             const std::function<void(const CodeProduct&)>& layer);
void add_vendor_code_convolution(std::vector<Way>& ways, const kernels::Conv2dSizes& sizes,
                                 const std::function<void(const CodeConvolution&)>& layer);

// Everything that measurements depend on: device, driver, libraries, our kernels.
std::string tune_environment();

}  // namespace shrike::cuda
