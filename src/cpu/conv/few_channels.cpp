// For each line of outputs the lines of inputs that it meets are put down once, with their padding. What an output meets of a line
// is contiguous there, and begins `stride` pixels after what the one before it meets: the product needs no other copy.
#include "few_channels.hpp"

#include <algorithm>

#include "../gemm/gemm.hpp"
#include "../isa.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::cpu::few_channels {
namespace {

// lines [r, width] = what output line `row` meets of x.
void put_lines(const kernels::Conv2dSizes& z, const float* x, std::int64_t row, std::int64_t width, float* lines) {
  for (std::int64_t r = 0; r < z.r; ++r) {
    const std::int64_t h = row % z.p * z.stride - z.padding + r;
    float* const to = lines + r * width + z.padding * z.c;
    if (h >= 0 && h < z.h) {
      std::copy_n(x + (row / z.p * z.h + h) * z.w * z.c, z.w * z.c, to);
    } else {
      std::fill_n(to, z.w * z.c, 0.0f);
    }
  }
}

}  // namespace

bool fits(const kernels::Conv2dSizes& z) { return z.r * z.s > 1 && z.s * z.c <= 64 && z.dilation == 1 && z.groups == 1; }

void forward(const kernels::Conv2dSizes& z, const float* x, const float* weight, const float* bias, const float* residual,
             float* y) {
  const FloatKernels& isa = float_kernels();
  const std::int64_t rows = z.n * z.p, taps = z.s * z.c, depth = z.r * taps, panels = (z.k + isa.panel - 1) / isa.panel;
  const std::int64_t width = (z.w + 2 * z.padding) * z.c + isa.lanes;
  const int slots = thread_slots(rows);
  const PackedRight packed(isa, z.k, depth, MatrixRight(weight, depth, true));
  const Scratch scratch = scratch_floats(panels * isa.panel + slots * z.r * width);
  float* const biases = scratch.data();
  float* const all_lines = biases + panels * isa.panel;
  std::fill_n(biases, panels * isa.panel + slots * z.r * width, 0.0f);
  if (bias != nullptr) std::copy_n(bias, z.k, biases);
  parallel_chunks(rows, slots, [&](std::int64_t row, int slot) {
    float* const lines = all_lines + slot * z.r * width;
    put_lines(z, x, row, width, lines);
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      const std::int64_t k = panel * isa.panel, at = row * z.q * z.k + k;
      Product p{.segments = z.r,
                .depth = taps,
                .a = lines,
                .a_row = z.stride * z.c,
                .a_segment = width,
                .b = packed.data() + panel * depth * isa.panel,
                .b_step = isa.panel,
                .c = y + at,
                .c_row = z.k,
                .start = biases + k,
                .relu = z.relu};
      if (residual != nullptr) p.residual = residual + at;
      isa.multiply_rows(z.q, static_cast<int>(std::min<std::int64_t>(isa.panel, z.k - k)), p);
    }
  });
}

}  // namespace shrike::cpu::few_channels
