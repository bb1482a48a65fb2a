// Matrix products by cuBLAS: an alternative to our own, only in builds by nvcc.
#pragma once

#include <cstdint>
#include <string>

namespace shrike::cuda::cublas {

// A product of row-major matrices, c [m, n] = op(a) op(b) (+ bias [n] to every row, then clamped below at 0). op is the
// transpose where asked for: a is [m, k], or [k, m] with transpose_a; b is [k, n], or [n, k] with transpose_b.
struct Product {
  bool transpose_a = false, transpose_b = false;
  std::int64_t m = 0, n = 0, k = 0;
  bool bias = false, relu = false;
  bool tf32 = false;  // products of TF32, sums in float32; otherwise float32 throughout
  bool s8 = false;    // a and b are s8, c is s32: only a [m, k] and b [n, k], without bias and relu

  auto operator<=>(const Product&) const = default;
};

// Computes it on cuda::stream(); c is overwritten, bias is not read without product.bias. m, n and k must not be 0. Equal calls
// give equal bits: partial sums of a split k go through the workspace and are added in a fixed order. Throws Error naming the
// sizes when cuBLAS fails or has no algorithm.
void multiply(const Product& product, const float* a, const float* b, const float* bias, float* c);

// c [m, n], s32, = a [m, k] b [n, k]^T, both s8. cuBLAS has it where n and k are multiples of 4.
void multiply_codes(std::int64_t m, std::int64_t n, std::int64_t k, const std::int8_t* a, const std::int8_t* b,
                    std::int32_t* c);

// "cuBLAS 13.2.0"
std::string version();

}  // namespace shrike::cuda::cublas
