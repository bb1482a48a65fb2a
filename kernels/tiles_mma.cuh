// Tiles of tensor cores whose products are 16 x 8 with 32 bytes of K: two steps a turn. Fragments: kernels/mma.hpp; in bytes
// they are the same for every type.
#pragma once

#include "kernels/tiles.cuh"

namespace shrike::kernels::tiles {

// The parts of a tile that its warps own.
template <int M, int N, int WarpM, int WarpN> struct Warps {
  static constexpr int m = M, n = N, threads = M / WarpM * (N / WarpN) * 32;
  static constexpr int blocks = (WarpM * WarpN > 2048 ? 256 : 512) / threads;  // 255 or 128 registers a thread

  __device__ __forceinline__ static int warp_row() { return static_cast<int>(threadIdx.x) / 32 / (N / WarpN) * WarpM; }
  __device__ __forceinline__ static int warp_column() { return static_cast<int>(threadIdx.x) / 32 % (N / WarpN) * WarpN; }
};

// Mma::Sum, and Mma::add(d, a, b): d += the product of 32 bytes of 16 rows and of 8.
template <int M, int N, int WarpM, int WarpN, class Mma> struct Fragments32 : Warps<M, N, WarpM, WarpN> {
  using Warps<M, N, WarpM, WarpN>::warp_row, Warps<M, N, WarpM, WarpN>::warp_column;
  typename Mma::Sum sums[WarpM / 16][WarpN / 8][4] = {};

  __device__ __forceinline__ void multiply(const std::uint8_t* a, const std::uint8_t* b) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const std::uint8_t* const a_from = a + (warp_row() + lane % 16) * pitch + lane / 16 * 16;
    const std::uint8_t* const b_from = b + (warp_column() + lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * 16;
#pragma unroll
    for (int k = 0; k < depth; k += 32) {
      unsigned fa[WarpM / 16][4], fb[WarpN / 8][2];
#pragma unroll
      for (int i = 0; i < WarpM / 16; ++i) cuda::ldmatrix_x4(fa[i], a_from + 16 * i * pitch + k);
#pragma unroll
      for (int j = 0; j < WarpN / 8; j += 2) {
        unsigned two[4];
        cuda::ldmatrix_x4(two, b_from + 8 * j * pitch + k);
        fb[j][0] = two[0], fb[j][1] = two[1], fb[j + 1][0] = two[2], fb[j + 1][1] = two[3];
      }
#pragma unroll
      for (int i = 0; i < WarpM / 16; ++i) {
#pragma unroll
        for (int j = 0; j < WarpN / 8; ++j) Mma::add(sums[i][j], fa[i], fb[j]);
      }
    }
  }
  template <class F> __device__ __forceinline__ void each(F&& f) const {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4, t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < WarpM / 16; ++i) {
#pragma unroll
      for (int j = 0; j < WarpN / 8; ++j) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          f(warp_row() + 16 * i + g + 8 * (r / 2), warp_column() + 8 * j + 2 * t + r % 2, sums[i][j][r]);
        }
      }
    }
  }
};

}  // namespace shrike::kernels::tiles
