// The one-dimensional transforms of Winograd's convolution F(4x4, 3x3), on vectors over channels.
//
// After Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), but with the points 0, +-a, +-b and
// infinity, a = sqrt(1/2), b = sqrt(2), which halve the error that their 0, +-1, +-2 and infinity make:
//   y = A^T [(G g G^T) * (B^T d B)] A      d: 6x6 input, g: 3x3 weights, y: 4x4 output, * by element
// and, since every step is linear, the gradient of g is G^T [(A dy A^T) * (B^T d B)] G.
#pragma once

#include "../simd.hpp"

namespace shrike::cpu {
inline namespace SHRIKE_SIMD {

using namespace simd;

constexpr float root_half = 0.70710678f;
constexpr float root_two = 1.41421356f;

// Each transforms a line: in[i * S] to out[i * T].
template <int S, int T> inline void input_line(const Vector* in, Vector* out) {  // B^T
  const Vector d0 = in[0], d1 = in[S], d2 = in[2 * S], d3 = in[3 * S], d4 = in[4 * S], d5 = in[5 * S];
  const Vector even_a = d4 - 2.0f * d2, odd_a = root_half * d3 - 2.0f * root_half * d1, even_b = d4 - 0.5f * d2,
               odd_b = root_two * d3 - 0.5f * root_two * d1;
  out[0] = d0 - 2.5f * d2 + d4;
  out[T] = even_a + odd_a;
  out[2 * T] = even_a - odd_a;
  out[3 * T] = even_b + odd_b;
  out[4 * T] = even_b - odd_b;
  out[5 * T] = d1 - 2.5f * d3 + d5;
}

template <int S, int T> inline void output_line(const Vector* in, Vector* out) {  // A^T
  const Vector even_a = in[S] + in[2 * S], odd_a = in[S] - in[2 * S], even_b = in[3 * S] + in[4 * S],
               odd_b = in[3 * S] - in[4 * S];
  out[0] = in[0] + even_a + even_b;
  out[T] = root_half * odd_a + root_two * odd_b;
  out[2 * T] = 0.5f * even_a + 2.0f * even_b;
  out[3 * T] = 0.5f * root_half * odd_a + 2.0f * root_two * odd_b + in[5 * S];
}

template <int S, int T> inline void output_gradient_line(const Vector* in, Vector* out) {  // A
  const Vector y0 = in[0], y1 = in[S], y2 = in[2 * S], y3 = in[3 * S];
  const Vector even_a = y0 + 0.5f * y2, odd_a = root_half * y1 + 0.5f * root_half * y3, even_b = y0 + 2.0f * y2,
               odd_b = root_two * y1 + 2.0f * root_two * y3;
  out[0] = y0;
  out[T] = even_a + odd_a;
  out[2 * T] = even_a - odd_a;
  out[3 * T] = even_b + odd_b;
  out[4 * T] = even_b - odd_b;
  out[5 * T] = y3;
}

template <int S, int T> inline void weight_line(const Vector* in, Vector* out) {  // G
  const Vector g0 = in[0], g1 = in[S], g2 = in[2 * S];
  const Vector even_a = (g0 + 0.5f * g2) * (-2.0f / 3), odd_a = g1 * (root_half * (-2.0f / 3));
  const Vector even_b = (g0 + 2.0f * g2) * (1.0f / 6), odd_b = g1 * (root_two * (1.0f / 6));
  out[0] = g0;
  out[T] = even_a + odd_a;
  out[2 * T] = even_a - odd_a;
  out[3 * T] = even_b + odd_b;
  out[4 * T] = even_b - odd_b;
  out[5 * T] = g2;
}

template <int S, int T> inline void weight_gradient_line(const Vector* in, Vector* out) {  // G^T
  const Vector even_a = in[S] + in[2 * S], odd_a = in[S] - in[2 * S], even_b = in[3 * S] + in[4 * S],
               odd_b = in[3 * S] - in[4 * S];
  out[0] = in[0] - even_a * (2.0f / 3) + even_b * (1.0f / 6);
  out[T] = odd_b * (root_two * (1.0f / 6)) - odd_a * (root_half * (2.0f / 3));
  out[2 * T] = (even_b - even_a) * (1.0f / 3) + in[5 * S];
}

// One element of a sum: the weights with which the lines of A add up to (1, 1, 1, 1).
constexpr float line_sum[6] = {0.0f, (1 + root_two) / 3, (1 - root_two) / 3, (1 + root_half) / 6, (1 - root_half) / 6, 0.0f};

}  // namespace SHRIKE_SIMD
}  // namespace shrike::cpu
