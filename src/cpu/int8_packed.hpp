// Weights in the order in which the kernels read them. They are packed once and kept beside the weight tensor, until its
// elements may have changed.
#pragma once

#include <memory>
#include <vector>

#include "int8_kernels.hpp"
#include "scratch.hpp"
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
  std::int64_t panels() const { return (columns() + isa->panel - 1) / isa->panel; }  // of a group
};

// What is multiplied: bytes, where the machine does so exactly; else bytes by weights in an order that is safe, where that adds
// little; else words. Or, for int8_winograd.hpp, transformed words.
enum class Form { bytes, safe_bytes, words, winograd };

// Some columns of b, as a product reads them: [step, column, 4 bytes]; zeros past the last column and the depth.
struct Panel {
  Scratch weights;
  std::vector<std::int32_t> order;  // of safe bytes, by step: see multiply_safe_bytes
  std::int64_t steps;
};

struct Packed {
  Packing how;
  std::uint64_t version;  // of the weight tensor
  Form form;
  std::vector<Panel> panels;  // [group, panel]; not of Form::winograd
  Scratch winograd;           // [panel, point, step, column, 2 words]
  Scratch starts;             // s32 [group, panel, column], or [panel, point, column]: what sums begin with, besides the bias

  std::int64_t codes() const { return form == Form::words ? 2 : 4; }  // of a row in a step of 32 bits
  std::int64_t steps() const {                                        // of a row; even where two go together
    return form == Form::words ? (how.depth() + 3) / 4 * 2 : (how.depth() + 3) / 4;
  }
  bool shifted() const { return how.x == Dtype::s8 && form != Form::words; }  // x + 128 meets instructions that want u8
  const std::int32_t* start(std::int64_t panel) const {                       // of all groups'
    return reinterpret_cast<const std::int32_t*>(starts.data()) + panel * how.isa->panel;
  }
};

// The operands' weights, from beside them or packed anew.
std::shared_ptr<const Packed> packed_weights(const Packing& how, const kernels::QuantizedOperands& operands);

}  // namespace shrike::int8
