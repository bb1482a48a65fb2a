// For each line of outputs the lines of inputs that it meets are put down once, with their padding. What an output meets of a
// line is contiguous there, and begins `stride` pixels after what the one before it meets: the product needs no other copy.
#include "few_channels.hpp"

#include <algorithm>
#include <vector>

#include "../blocks.hpp"
#include "../gemm/gradients.hpp"
#include "../isa.hpp"
#include "implicit_gemm.hpp"
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

// Sums over some lines of outputs: sums [r, taps, k] and bias [k] of their gradients.
class LineGradients {
 public:
  LineGradients(const FloatKernels& isa, const kernels::Conv2dSizes& z, const float* x, const float* y, const float* dy)
      : isa_(isa),
        z_(z),
        x_(x),
        y_(y),
        dy_(dy),
        width_((z.w + 2 * z.padding) * z.c),
        copied_(y != nullptr || z.k % isa.lanes != 0) {}

  std::int64_t scratch_size() const { return z_.r * width_ + (copied_ ? z_.q * copy_stride(z_.k) : 0) + copy_stride(z_.k); }
  void add(std::int64_t row, float* scratch, float* sums, double* bias) const;

 private:
  Located gradients(std::int64_t row, float* copy) const;

  const FloatKernels& isa_;
  const kernels::Conv2dSizes& z_;
  const float *x_, *y_, *dy_;
  std::int64_t width_;
  bool copied_;  // whether gradients are masked, or their rows are no whole vectors
};

// One line of dy [q, k], with zeros where y is not positive.
Located LineGradients::gradients(std::int64_t row, float* copy) const {
  const float* const dy = dy_ + row * z_.q * z_.k;
  if (!copied_) return {dy, z_.k};
  const std::int64_t stride = copy_stride(z_.k);
  copy_gradient_rows(z_.q, z_.k, dy, y_ != nullptr ? y_ + row * z_.q * z_.k : nullptr, z_.k, copy, stride);
  return {copy, stride};
}

// scratch: [r, width] lines, zero in their padding, and what the copy of the gradients and their sums need.
void LineGradients::add(std::int64_t row, float* scratch, float* sums, double* bias) const {
  const std::int64_t taps = z_.s * z_.c;
  float* const lines = scratch;
  float* const of_line = lines + z_.r * width_;
  const Located dy = gradients(row, of_line + copy_stride(z_.k));
  put_lines(z_, x_, row, width_, lines);
  for (std::int64_t r = 0; r < z_.r; ++r) {
    const std::int64_t h = row % z_.p * z_.stride - z_.padding + r;
    if (h < 0 || h >= z_.h) continue;
    for (std::int64_t k = 0; k < z_.k; k += isa_.panel) {
      isa_.multiply_columns(taps, static_cast<int>(std::min<std::int64_t>(isa_.panel, z_.k - k)),
                            {.depth = z_.q,
                             .a = lines + r * width_,
                             .a_row = 1,
                             .a_step = z_.stride * z_.c,
                             .b = dy.data + k,
                             .b_step = dy.stride,
                             .c = sums + r * taps * z_.k + k,
                             .c_row = z_.k,
                             .add = true});
    }
  }
  if (bias != nullptr) add_row_sums(z_.q, z_.k, dy, of_line, bias);
}

}  // namespace

bool fits(const kernels::Conv2dSizes& z) { return z.r * z.s > 1 && z.s * z.c <= 64 && z.dilation == 1 && z.groups == 1; }

void forward(const kernels::Conv2dSizes& z, const float* x, const float* weight, const PackedRight* packed, const float* bias,
             const float* residual, float* y) {
  const FloatKernels& isa = float_kernels();
  const std::int64_t rows = z.n * z.p, taps = z.s * z.c, depth = z.r * taps, panels = divide_up(z.k, isa.panel);
  const std::int64_t width = (z.w + 2 * z.padding) * z.c + isa.lanes;
  const int slots = thread_slots(rows);
  const PackedRight made = packed == nullptr ? implicit_gemm::pack(z, weight) : PackedRight();
  const float* const panel_weights = packed != nullptr ? packed->data() : made.data();
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
                .b = panel_weights + panel * depth * isa.panel,
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

// What a line of the kernel meets is a row of a matrix, an output's after the other: its transpose times dy. Lines are dealt to
// a fixed number of sums.
void backward_weight(const kernels::Conv2dSizes& z, const float* x, const float* y, const float* dy, float* dweight,
                     float* dbias) {
  const FloatKernels& isa = float_kernels();
  const std::int64_t rows = z.n * z.p, parts = std::min<std::int64_t>(rows, 16), size = z.r * z.s * z.c * z.k;
  const LineGradients gradients(isa, z, x, y, dy);
  const int slots = thread_slots(parts);
  const std::int64_t each = gradients.scratch_size();
  const Scratch scratch = scratch_floats(parts * size + slots * each);
  float* const sums = scratch.data();
  std::fill_n(sums, parts * size + slots * each, 0.0f);
  std::vector<double> bias(static_cast<std::size_t>(parts * z.k));
  parallel_chunks(parts, slots, [&](std::int64_t part, int slot) {
    for (std::int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
      gradients.add(row, sums + parts * size + slot * each, sums + part * size,
                    dbias != nullptr ? bias.data() + part * z.k : nullptr);
    }
  });
  sum_bias_parts(parts, z.k, bias.data(), dbias);
  for (std::int64_t k = 0; k < z.k && dweight != nullptr; ++k) {
    for (std::int64_t tap = 0; tap < size / z.k; ++tap) {
      float sum = 0;
      for (std::int64_t part = 0; part < parts; ++part) sum += sums[part * size + tap * z.k + k];
      dweight[k * (size / z.k) + tap] = sum;
    }
  }
}

}  // namespace shrike::cpu::few_channels
