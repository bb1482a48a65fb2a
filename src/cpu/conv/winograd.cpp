// Winograd's convolution: transform tiles to V, multiply by the weights U at each of 36 points, transform the sums M back.
#include "winograd.hpp"

#include <algorithm>

#include "../blocks.hpp"
#include "../isa.hpp"
#include "shrike/core/threads.hpp"
#include "winograd_kernels.hpp"

namespace shrike::cpu::winograd {
namespace {

constexpr std::int64_t points = winograd_points;
constexpr std::int64_t gap = 16;  // floats between matrices, so that they do not share a cache's sets

std::int64_t u_point(std::int64_t c, std::int64_t k) { return c * k + gap; }

Scratch transform_weights(const FloatKernels& isa, std::int64_t k, std::int64_t c, bool forward, const float* weight) {
  Scratch u = scratch_floats(points * u_point(c, k));
  const std::int64_t in = forward ? c : k, out = forward ? k : c;
  parallel_for(divide_up(out, isa.panel) * (in / 16), 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t job = begin; job < end; ++job) isa.winograd->weights(k, c, forward, weight, job, u.data(), u_point(c, k));
  });
  return u;
}

class Convolution {
 public:
  Convolution(const FloatKernels& isa, WinogradMaps maps, const float* u)
      : isa_(isa), maps_(maps), u_(u), c_(maps.in.c), k_(maps.out.c), zeros_(scratch_floats(c_ + isa.panel)) {
    std::fill_n(zeros_.data(), c_ + isa.panel, 0.0f);
    maps_.zeros = zeros_.data();
  }

  // Either each chunk takes a block of tiles through all three steps, and reads U anew if it is too large for a core's cache;
  // or all go through each step together, and V and M pass through memory twice.
  void run() const {
    const std::int64_t u_bytes = points * c_ * k_ * 4, blocks = divide_up(maps_.out.count(), block_tiles());
    const std::int64_t vm_bytes = points * 4 * maps_.out.count() * (v_row() + k_ + gap);
    const bool cached = u_bytes <= 1 << 20, few = blocks < 4;
    !few && (cached || (u_bytes <= 3 << 20 && blocks * u_bytes <= 2 * vm_bytes)) ? by_blocks() : by_steps();
  }

 private:
  void by_blocks() const;
  void by_steps() const;
  void multiply(int point, std::int64_t rows, std::int64_t k0, std::int64_t k1, const float* v, float* m,
                std::int64_t m_row) const;
  std::int64_t v_row() const { return c_ + gap; }
  std::int64_t block_tiles() const { return std::clamp<std::int64_t>((1 << 19) / (points * 4 * (c_ + k_)), 28, 112); }

  const FloatKernels& isa_;
  WinogradMaps maps_;
  const float* u_;
  std::int64_t c_, k_;
  Scratch zeros_;
};

// m [rows, k0 .. k1) = V U at one point.
void Convolution::multiply(int point, std::int64_t rows, std::int64_t k0, std::int64_t k1, const float* v, float* m,
                           std::int64_t m_row) const {
  const float* const u = u_ + point * u_point(c_, k_);
  for (std::int64_t k = k0; k < k1; k += isa_.panel) {
    const std::int64_t width = std::min<std::int64_t>(isa_.panel, k_ - k);
    isa_.multiply_rows(
        rows, static_cast<int>(width),
        {.depth = c_, .a = v, .a_row = v_row(), .b = u + k * c_, .b_step = width, .c = m + k - k0, .c_row = m_row});
  }
}

void Convolution::by_blocks() const {
  const std::int64_t tiles = maps_.out.count(), most = block_tiles();
  const std::int64_t blocks = divide_up(tiles, most), block = divide_up(tiles, blocks), m_row = k_ + gap;
  const std::int64_t v_point = block * v_row() + gap, m_point = block * m_row + gap, each = points * (v_point + m_point);
  const int slots = thread_slots(blocks);
  const Scratch scratch = scratch_floats(slots * each);
  parallel_chunks(blocks, slots, [&](std::int64_t number, int slot) {
    float* const v = scratch.data() + slot * each;
    float* const m = v + points * v_point;
    const std::int64_t first = tiles * number / blocks, count = tiles * (number + 1) / blocks - first;
    isa_.winograd->input(maps_, first, count, v, v_row(), v_point);
    for (int point = 0; point < points; ++point) multiply(point, count, 0, k_, v + point * v_point, m + point * m_point, m_row);
    isa_.winograd->output(maps_, first, count, 0, k_, m, m_row, m_point);
  });
}

void Convolution::by_steps() const {
  constexpr std::int64_t most_bytes = 24 << 20;  // of V and M together
  const std::int64_t tiles = maps_.out.count(), m_row = k_ + gap;
  const std::int64_t most = std::max<std::int64_t>(most_bytes / (points * 4 * (v_row() + m_row)), 64);
  const std::int64_t blocks = divide_up(tiles, most), block = divide_up(tiles, blocks);
  const std::int64_t v_point = block * v_row() + gap, m_point = block * m_row + gap;
  const Scratch scratch = scratch_floats(points * (v_point + m_point));
  float* const v = scratch.data();
  float* const m = v + points * v_point;
  const std::int64_t panels = divide_up(k_, isa_.panel), wide = std::min<std::int64_t>(panels, 8);
  const std::int64_t column_blocks = divide_up(panels, wide);
  for (std::int64_t number = 0; number < blocks; ++number) {
    const std::int64_t first = tiles * number / blocks, count = tiles * (number + 1) / blocks - first;
    parallel_for(count, 4, [&](std::int64_t begin, std::int64_t end) {
      isa_.winograd->input(maps_, first + begin, end - begin, v + begin * v_row(), v_row(), v_point);
    });
    parallel_for(points * column_blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t job = begin; job < end; ++job) {
        const auto point = static_cast<int>(job / column_blocks);
        const std::int64_t k0 = panels * (job % column_blocks) / column_blocks * isa_.panel,
                           k1 = std::min(panels * (job % column_blocks + 1) / column_blocks * isa_.panel, k_);
        multiply(point, count, k0, k1, v + point * v_point, m + point * m_point + k0, m_row);
      }
    });
    parallel_for(count, 4, [&](std::int64_t begin, std::int64_t end) {
      isa_.winograd->output(maps_, first + begin, end - begin, 0, k_, m + begin * m_row, m_row, m_point);
    });
  }
}

}  // namespace

using shrike::winograd::tiles_of;

bool fits(const kernels::Conv2dSizes& z) {
  return z.r == 3 && z.s == 3 && z.stride == 1 && z.dilation == 1 && z.groups == 1 && z.padding <= 2 && z.c % 16 == 0 &&
         z.k % 16 == 0;
}

Scratch pack(const kernels::Conv2dSizes& z, const float* weight) {
  return transform_weights(float_kernels(), z.k, z.c, true, weight);
}

void forward(const kernels::Conv2dSizes& z, const float* x, const float* weight, const float* packed, const float* bias,
             const float* residual, float* y) {
  const Scratch made = packed == nullptr ? pack(z, weight) : Scratch();
  WinogradMaps maps{tiles_of(z.n, z.h, z.w, z.c, z.p, z.q), tiles_of(z.n, z.p, z.q, z.k, z.p, z.q), z.padding};
  maps.x = x, maps.bias = bias, maps.residual = residual, maps.relu = z.relu, maps.y = y;
  Convolution(float_kernels(), maps, packed != nullptr ? packed : made.data()).run();
}

void backward_data(const kernels::Conv2dSizes& z, const float* weight, const float* y, const float* dy, float* dx) {
  const Scratch u = transform_weights(float_kernels(), z.k, z.c, false, weight);
  WinogradMaps maps{tiles_of(z.n, z.p, z.q, z.k, z.h, z.w), tiles_of(z.n, z.h, z.w, z.c, z.h, z.w), 2 - z.padding};
  maps.x = dy, maps.mask = y, maps.y = dx;
  Convolution(float_kernels(), maps, u.data()).run();
}

}  // namespace shrike::cpu::winograd
