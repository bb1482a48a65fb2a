// The transforms of Winograd's convolution, once for every instruction set; see float_kernels.hpp. V, M and U are [36]
// matrices, one for each point, `*_point` floats apart.
#pragma once

#include "winograd_tiles.hpp"

namespace shrike::cpu {

using shrike::winograd::Tiles;

constexpr int winograd_points = 36;

// What a pass reads, y = conv(x where mask > 0), and what it makes of its sums: y = M + bias + residual, clamped with relu.
// mask, bias and residual may be null; mask is shaped like x, residual like y.
struct WinogradMaps {
  Tiles in, out;
  int64_t padding;
  const float* x = nullptr;
  const float* mask = nullptr;
  const float* zeros = nullptr;  // [in.c]
  const float* bias = nullptr;
  const float* residual = nullptr;
  bool relu = false;
  float* y = nullptr;
};

// The weight gradient reads x, and dy [.., k] where y > 0 (null: everywhere).
struct WinogradGradient {
  Tiles in, out;
  int64_t padding;
  const float* x;
  const float* y;
  const float* dy;
  const float* zeros;  // [max(c, k)]
};

struct WinogradKernels {
  // U [36][out / panel][in][panel] = G g G^T of the columns of panel number `job / (in / 16)`, 16 inputs of it. Forward: in =
  // c, out = k; else in = k, out = c and g is turned by 180 degrees. weight [k, 3, 3, c].
  void (*weights)(int64_t k, int64_t c, bool forward, const float* weight, int64_t job, float* u, int64_t u_point);
  // V [36][tile][channel] = B^T d B of tiles first .. first + count - 1, rows v_row apart.
  void (*input)(const WinogradMaps& maps, int64_t first, int64_t count, float* v, int64_t v_row, int64_t v_point);
  // y = A^T M A of channels [k0, k1), which begin at m.
  void (*output)(const WinogradMaps& maps, int64_t first, int64_t count, int64_t k0, int64_t k1, const float* m, int64_t m_row,
                 int64_t m_point);

  // For the gradient, rows of `tiles`, of which this is number first .. first + count - 1:
  // V [36][c / panel][tile][panel] = B^T d B and dM [36][k / lanes][tile][lanes] = A dy A^T.
  void (*gradient_input)(const WinogradGradient& of, int64_t first, int64_t begin, int64_t end, int64_t tiles, float* v,
                         int64_t v_point, float* m, int64_t m_point);
  // sums [lanes] += the gradients of dy themselves, from one panel of dM.
  void (*gradient_bias)(int64_t tiles, const float* m, int64_t m_point, double* sums);
  // dweight [3, 3, c] of one k = G^T dU G, dU being the sum of `parts` [36][c] that are `part` floats apart.
  void (*gradient_weight)(int64_t c, int64_t parts, const float* w, int64_t part, int64_t w_point, float* dweight);
};

}  // namespace shrike::cpu
