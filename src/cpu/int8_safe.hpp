// Weights for instructions that add two u8 * s8 products in 16 bits, by pairs of steps: see multiply_safe_bytes.
#pragma once

#include <optional>

#include "int8_packed.hpp"

namespace shrike::int8 {

// The weights [steps, width, 4] of at most 16 columns, in an order in which neighbouring steps are safe together. A step that
// is not safe by itself is there twice, its weights as sums of smaller ones; one that found no partner is followed by zeros.
// None if there would be more than `most` steps.
std::optional<Panel> safe_panel(std::int64_t steps, std::int64_t width, const std::int8_t* weights, std::int64_t most);

}  // namespace shrike::int8
