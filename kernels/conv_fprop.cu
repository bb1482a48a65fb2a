// The kernels of fprop: see gemm_tf32.cuh and gemm_fp32.cuh for the products, conv_operands.cuh for what they read.
#include "kernels/conv_passes.cuh"

namespace shrike::kernels {

std::span<const ConvCandidate> fprop_candidates() { return gemm::candidates<gemm::Fprop>; }

}  // namespace shrike::kernels
