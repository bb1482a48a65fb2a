// Weights in the order in which the kernels read them. They are packed once and kept beside the weight tensor; a fingerprint
// of its elements, taken at memory speed at every call, tells when they have changed.
#pragma once

#include <memory>

#include "int8_kernels.hpp"
#include "onednn.hpp"
#include "shrike/ops/quantized_conv.hpp"

namespace shrike::int8 {

// What decides how weights [k, taps, channels] are packed.
struct Packing {
  const Kernels* isa;
  Dtype x;
  std::int64_t k, taps, channels, groups;
  bool tiles;  // whether Winograd's kernels do this shape
  friend bool operator==(const Packing&, const Packing&) = default;

  std::int64_t columns() const { return k / groups; }
  std::int64_t depth() const { return taps * channels; }
  bool words() const { return isa->multiply_bytes == nullptr; }
  std::int64_t codes() const { return words() ? 2 : 4; }  // a step of 32 bits
  std::int64_t steps() const { return words() ? (depth() + 3) / 4 * 2 : (depth() + 3) / 4; }
  std::int64_t panels() const { return (columns() + isa->panel - 1) / isa->panel; }  // of a group
  std::int64_t panel_bytes() const { return steps() * isa->panel * 4; }
  bool shifted() const { return x == Dtype::s8 && !words(); }  // x + 128 meets an instruction that wants u8
};

struct Packed {
  Packing how;
  std::uint64_t fingerprint;
  bool winograd;           // packed for int8_winograd.hpp, [panel, point, step, column, 2 words], else as below
  onednn::Scratch memory;  // [group, panel, step, column, 4 bytes]; zeros past the last column and the depth
  onednn::Scratch starts;  // s32 [group, panel, column], or [panel, point, column]: what sums begin with, besides the bias

  const char* panel(std::int64_t group, std::int64_t number) const {
    return reinterpret_cast<const char*>(memory.data()) + (group * how.panels() + number) * how.panel_bytes();
  }
  const std::int32_t* start(std::int64_t group, std::int64_t number) const {
    return reinterpret_cast<const std::int32_t*>(starts.data()) + (group * how.panels() + number) * how.isa->panel;
  }
};

// The operands' weights, from beside them or packed anew.
std::shared_ptr<const Packed> packed_weights(const Packing& how, const kernels::QuantizedOperands& operands);

// 64 bits that differ, but for a chance of 2^-32 or less, when the bytes do.
std::uint64_t fingerprint(const void* data, std::int64_t bytes);

}  // namespace shrike::int8
