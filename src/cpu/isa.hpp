// Which instructions the CPU's kernels use.
#pragma once

#include "float_kernels.hpp"

namespace shrike::cpu {

enum class Isa { plain, avx2, avxvnni, avx512 };

// The best that this processor has; the environment variable SHRIKE_CPU_ISA = plain, avx2, avxvnni or avx512 asks for a lesser
// one. Throws Error when it names something else, or what this processor has not.
Isa isa();

// Whether the processor has VNNI for vectors of 512 bits, or of 256 bits without AVX-512.
bool has_avx512_vnni();
bool has_avx_vnni();

const FloatKernels& float_kernels();

}  // namespace shrike::cpu
