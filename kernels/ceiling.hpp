// What the arithmetic units of the device do at most, measured: the rates that benchmarks compare kernels with.
#pragma once

#include <cstdint>

namespace shrike::cuda {

// fma in float32; mma.sync of TF32 (m16n8k8); of f16 with float32 sums (m16n8k16, before sm_80 m16n8k8); dp4a; mma.sync of s8
// (m16n8k32, before sm_80 m8n8k16).
enum class Unit { ffma, mma_tf32, mma_f16, dp4a, mma_s8 };

struct Ceiling {
  double operations_per_second;  // two to a multiply-add, as everywhere
  bool exact;                    // every thread's sum came out as it must: the loops really ran
};

// Registers alone, eight independent sums a thread, all multiprocessors; the best of five tries. `rounds` of eight instructions
// each. Throws Error where the device has no such instruction.
Ceiling ceiling(Unit unit, int rounds = 4096);

}  // namespace shrike::cuda
