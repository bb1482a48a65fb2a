// Winograd's weight gradient: dU = sum over tiles of (A dy A^T) * (B^T d B), dweight = G^T dU G.
#include <algorithm>
#include <vector>

#include "../blocks.hpp"
#include "../gemm/gradients.hpp"
#include "../isa.hpp"
#include "shrike/core/threads.hpp"
#include "winograd.hpp"
#include "winograd_kernels.hpp"

namespace shrike::cpu::winograd {
namespace {

constexpr std::int64_t points = winograd_points;
constexpr std::int64_t gap = 16;

// Blocks of tiles, and the matrices of a block: V [36][c / panel][tile][panel], dM [36][k / lanes][tile][lanes], and the sum of
// their products, dU [36][k][c].
class Gradient {
 public:
  Gradient(const FloatKernels& isa, const WinogradGradient& of) : isa_(isa), of_(of), c_(of.in.c), k_(of.out.c) {
    tiles_ = of.out.count();
    const std::int64_t w_bytes = points * c_ * k_ * 4;
    // Where dU is small and tiles are many, each of some parts of the tiles has its own sum, over blocks that stay in a core's
    // cache; else all threads share each step, and the larger the blocks, the less often dU is read and written.
    own_ = w_bytes <= 3 << 20 && tiles_ >= (w_bytes <= 1 << 20 ? 128 : 512);
    parts_ = own_ ? std::min<std::int64_t>(tiles_ / 112 + 1, 8) : 1;
    const std::int64_t shared = std::clamp<std::int64_t>((32 << 20) / (points * (c_ + k_) * 4), 64, 256);
    const std::int64_t own = std::clamp<std::int64_t>((1 << 19) / (points * (c_ + k_) * 4), w_bytes <= 1 << 20 ? 32 : 64, 112);
    block_ = std::min(own_ ? own : shared, divide_up(tiles_, parts_));
    v_point_ = block_ * c_ + gap;
    m_point_ = block_ * k_ + gap;
    w_point_ = c_ * k_ + gap;
    slots_ = own_ ? thread_slots(parts_) : 1;
    operands_ = scratch_floats(slots_ * points * (v_point_ + m_point_) + std::max(c_, k_) + isa.panel);
    sums_ = scratch_floats(parts_ * points * w_point_);
    zeros_ = operands_.data() + slots_ * points * (v_point_ + m_point_);
    std::fill_n(zeros_, std::max(c_, k_) + isa.panel, 0.0f);
    of_.zeros = zeros_;
    bias_.resize(static_cast<std::size_t>(parts_ * k_));
  }

  void run();
  void write(float* dweight, float* dbias) const;

 private:
  void sum_part(std::int64_t part, int slot);
  template <class F> void loop(std::int64_t n, std::int64_t grain, const F& f) const {
    own_ ? f(std::int64_t{0}, n) : parallel_for(n, grain, f);
  }
  void multiply(std::int64_t job, std::int64_t count, bool first, const float* v, const float* m, float* w) const;

  const FloatKernels& isa_;
  WinogradGradient of_;
  std::int64_t c_, k_, tiles_, parts_, block_, v_point_, m_point_, w_point_;
  bool own_;
  int slots_;
  Scratch operands_, sums_;
  float* zeros_;
  std::vector<double> bias_;
};

// At one point, as many rows of dU as a vector has lanes.
void Gradient::multiply(std::int64_t job, std::int64_t count, bool first, const float* v, const float* m, float* w) const {
  const std::int64_t k_panels = k_ / isa_.lanes, point = job / k_panels, k = job % k_panels * isa_.lanes;
  for (std::int64_t c = 0; c < c_; c += isa_.panel) {
    const std::int64_t width = std::min<std::int64_t>(isa_.panel, c_ - c);
    const Product p{.depth = count,
                    .a = m + point * m_point_ + k * count,
                    .a_row = 1,
                    .a_step = isa_.lanes,
                    .b = v + point * v_point_ + c * count,
                    .b_step = width,
                    .c = w + point * w_point_ + k * c_ + c,
                    .c_row = c_,
                    .add = !first};
    isa_.multiply_columns(isa_.lanes, static_cast<int>(width), p);
  }
}

void Gradient::sum_part(std::int64_t part, int slot) {
  float* const v = operands_.data() + slot * points * (v_point_ + m_point_);
  float* const m = v + points * v_point_;
  float* const w = sums_.data() + part * points * w_point_;
  double* const bias = bias_.data() + part * k_;
  const std::int64_t first = tiles_ * part / parts_, last = tiles_ * (part + 1) / parts_,
                     blocks = divide_up(last - first, block_);
  for (std::int64_t number = 0; number < blocks; ++number) {
    const std::int64_t start = first + (last - first) * number / blocks;
    const std::int64_t count = first + (last - first) * (number + 1) / blocks - start;
    loop(count, 4, [&](std::int64_t begin, std::int64_t end) {
      isa_.winograd->gradient_input(of_, start, begin, end, count, v, v_point_, m, m_point_);
    });
    loop(points * (k_ / isa_.lanes), 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t job = begin; job < end; ++job) multiply(job, count, number == 0, v, m, w);
    });
    loop(k_ / isa_.lanes, 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        isa_.winograd->gradient_bias(count, m + i * isa_.lanes * count, m_point_, bias + i * isa_.lanes);
      }
    });
  }
}

void Gradient::run() {
  if (!own_) return sum_part(0, 0);
  parallel_chunks(parts_, slots_, [&](std::int64_t part, int slot) { sum_part(part, slot); });
}

void Gradient::write(float* dweight, float* dbias) const {
  sum_bias_parts(parts_, k_, bias_.data(), dbias);
  parallel_for(k_, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      isa_.winograd->gradient_weight(c_, parts_, sums_.data() + k * c_, points * w_point_, w_point_, dweight + k * 9 * c_);
    }
  });
}

}  // namespace

void backward_weight(const kernels::Conv2dSizes& z, const float* x, const float* y, const float* dy, float* dweight,
                     float* dbias) {
  using shrike::winograd::tiles_of;
  Gradient gradient(float_kernels(), {tiles_of(z.n, z.h, z.w, z.c, z.p, z.q), tiles_of(z.n, z.p, z.q, z.k, z.p, z.q), z.padding,
                                      x, y, dy, nullptr});
  gradient.run();
  gradient.write(dweight, dbias);
}

}  // namespace shrike::cpu::winograd
