// Matrix products by cuBLAS: an alternative to our own, only in builds by nvcc.
#pragma once

#include <cstdint>
#include <string>

namespace shrike::cuda::cublas {

// A product of row-major float matrices, c [m, n] = op(a) op(b) (+ bias [n] to every row, then clamped below at 0). op is the
// transpose where asked for: a is [m, k], or [k, m] with transpose_a; b is [k, n], or [n, k] with transpose_b.
struct Product {
  bool transpose_a = false, transpose_b = false;
  std::int64_t m = 0, n = 0, k = 0;
  bool bias = false, relu = false;
  bool tf32 = false;  // products of TF32, sums in float32; otherwise float32 throughout

  auto operator<=>(const Product&) const = default;
};

// Computes it on cuda::stream(); c is overwritten, bias is not read without product.bias. m, n and k must not be 0. Equal calls
// give equal bits: partial sums of a split k go through the workspace and are added in a fixed order. Throws Error naming the
// sizes when cuBLAS fails or has no algorithm.
void multiply(const Product& product, const float* a, const float* b, const float* bias, float* c);

// "cuBLAS 13.2.0"
std::string version();

}  // namespace shrike::cuda::cublas
