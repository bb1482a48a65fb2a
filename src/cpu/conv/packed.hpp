// Weights of inference, packed once and kept beside the weight tensor, until its elements may have changed.
#pragma once

#include <cstdint>
#include <memory>

#include "../gemm/gemm.hpp"
#include "shrike/ops/conv.hpp"

namespace shrike::cpu {

enum class Form { winograd, panels };

struct PackedWeights {
  std::uint64_t version;  // of the weight tensor
  const FloatKernels* isa;
  Form form;
  std::int64_t k, r, s, c;  // of the weights
  Scratch winograd;
  PackedRight panels;
};

// Null without a companion, and with groups. Thread-safe.
std::shared_ptr<const PackedWeights> packed_weights(const kernels::Conv2dSizes& sizes, Form form, const float* weight,
                                                    Companion* beside);

}  // namespace shrike::cpu
