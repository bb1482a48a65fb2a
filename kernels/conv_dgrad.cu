// The kernels of dgrad: see gemm_tf32.cuh and gemm_fp32.cuh for the products, conv_operands.cuh for what they read.
#include "kernels/conv_passes.cuh"

namespace shrike::kernels {

std::span<const ConvCandidate> dgrad_candidates() { return gemm::candidates<gemm::Dgrad>; }

}  // namespace shrike::kernels
