// Products of int8 codes by dp4a: four multiply-adds an instruction of every lane, from sm_61.
//
// A thread of 16 x 16 owns rows ty, ty + 16, ... and columns tx, tx + 16, ... of the tile: for 16 bytes of K it loads M / 16
// rows and N / 16 columns, 16 bytes each, for M N / 64 dp4a. With 8 x 8 outputs that is 16 loads for 256 dp4a: the dp4a are the
// bound, 64 lanes a clock and multiprocessor on an H100.
#include "kernels/int8.cuh"

namespace shrike::kernels::int8 {
namespace {

template <int Tile, bool Signed> struct Dp4a {
  static constexpr int m = Tile, n = Tile, threads = 256;
  static constexpr int blocks = Tile == 64 ? 3 : 2;  // 80 and 128 registers a thread; with 64 the small tile spills
  static constexpr int count = Tile / 16;
  int sums[count][count] = {};

  __device__ __forceinline__ static int dot(int a, int b, int c) {
    if constexpr (Signed) return cuda::dp4a_s8s8(a, b, c);
    return cuda::dp4a_u8s8(static_cast<unsigned>(a), b, c);
  }
  __device__ __forceinline__ void multiply(const std::uint8_t* a, const std::uint8_t* b) {
    const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
#pragma unroll 1
    for (int k = 0; k < depth; k += 16) {
      int4 rows[count];
#pragma unroll
      for (int i = 0; i < count; ++i) rows[i] = *reinterpret_cast<const int4*>(a + (ty + 16 * i) * pitch + k);
#pragma unroll
      for (int j = 0; j < count; ++j) {
        const int4 column = *reinterpret_cast<const int4*>(b + (tx + 16 * j) * pitch + k);
#pragma unroll
        for (int i = 0; i < count; ++i) {
          sums[i][j] = dot(rows[i].x, column.x, sums[i][j]);
          sums[i][j] = dot(rows[i].y, column.y, sums[i][j]);
          sums[i][j] = dot(rows[i].z, column.z, sums[i][j]);
          sums[i][j] = dot(rows[i].w, column.w, sums[i][j]);
        }
      }
    }
  }
  template <class F> __device__ __forceinline__ void each(F&& f) const {
    const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
#pragma unroll
    for (int i = 0; i < count; ++i) {
#pragma unroll
      for (int j = 0; j < count; ++j) f(ty + 16 * i, tx + 16 * j, sums[i][j]);
    }
  }
};

template <int Tile, bool Signed> void run(const Product& p) {
  if (cuda::properties().compute_capability >= 80) {
    launch_tiles<Dp4a<Tile, Signed>, 3, true>(p);
  } else {
    launch_tiles<Dp4a<Tile, Signed>, 2, false>(p);
  }
}

}  // namespace

void multiply_dp4a(const Product& p, int tile) {
  const bool is_signed = p.to.x == Dtype::s8;
  if (tile == 128) return is_signed ? run<128, true>(p) : run<128, false>(p);
  return is_signed ? run<64, true>(p) : run<64, false>(p);
}

}  // namespace shrike::kernels::int8
