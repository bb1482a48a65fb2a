// Products of int8 codes on tensor cores: mma.sync m16n8k32 from sm_80, m8n8k16 on sm_75. Fragments: kernels/mma.hpp.
//
// A warp owns WarpM x WarpN of the tile. For 32 bytes of K and 64 x 64 it loads four fragments of A and eight of B by eight
// ldmatrix.x4, 4 KiB, and issues 32 mma of 4,096 multiply-adds. An H100's multiprocessor reaches about 0.6 of its 4,096
// multiply-adds a clock by mma.sync; at that rate a turn of a 128 x 128 tile, 1,048,576 multiply-adds, takes 427 clocks. Its
// four warps read 32 KiB of shared memory and the copies write 16: 384 clocks, so mma is the bound. Half as many warps as
// with 64 x 32 (which would take 512 clocks), but each has 32 sums under way that do not wait for each other.
#include "kernels/int8.cuh"
#include "kernels/tiles_mma.cuh"

namespace shrike::kernels::int8 {
namespace {

template <bool Signed> struct Mma32 {
  using Sum = int;
  __device__ __forceinline__ static void add(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    if constexpr (Signed) {
      cuda::mma_m16n8k32_s8s8(d, a, b);
    } else {
      cuda::mma_m16n8k32_u8s8(d, a, b);
    }
  }
};

template <int M, int N, int WarpM, int WarpN, bool Signed> struct Tensor32
    : tiles::Fragments32<M, N, WarpM, WarpN, Mma32<Signed>> {};

template <int M, int N, int WarpM, int WarpN, bool Signed> struct Tensor16 : tiles::Warps<M, N, WarpM, WarpN> {
  using Base = tiles::Warps<M, N, WarpM, WarpN>;
  using Base::warp_row, Base::warp_column;
  int sums[WarpM / 8][WarpN / 8][2] = {};

  __device__ __forceinline__ void multiply(const std::uint8_t* a, const std::uint8_t* b) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const std::uint8_t* const a_from = a + (warp_row() + lane) * pitch;
    const std::uint8_t* const b_from = b + (warp_column() + lane) * pitch;
#pragma unroll
    for (int k = 0; k < depth; k += 16) {
      unsigned fa[WarpM / 32][4], fb[WarpN / 32][4];
#pragma unroll
      for (int i = 0; i < WarpM / 32; ++i) cuda::ldmatrix_x4(fa[i], a_from + 32 * i * pitch + k);
#pragma unroll
      for (int j = 0; j < WarpN / 32; ++j) cuda::ldmatrix_x4(fb[j], b_from + 32 * j * pitch + k);
#pragma unroll
      for (int i = 0; i < WarpM / 8; ++i) {
#pragma unroll
        for (int j = 0; j < WarpN / 8; ++j) {
          if constexpr (Signed) {
            cuda::mma_m8n8k16_s8s8(sums[i][j], fa[i / 4][i % 4], fb[j / 4][j % 4]);
          } else {
            cuda::mma_m8n8k16_u8s8(sums[i][j], fa[i / 4][i % 4], fb[j / 4][j % 4]);
          }
        }
      }
    }
  }
  template <class F> __device__ __forceinline__ void each(F&& f) const {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4, t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < WarpM / 8; ++i) {
#pragma unroll
      for (int j = 0; j < WarpN / 8; ++j) {
#pragma unroll
        for (int r = 0; r < 2; ++r) f(warp_row() + 8 * i + g, warp_column() + 8 * j + 2 * t + r, sums[i][j][r]);
      }
    }
  }
};

}  // namespace

void multiply_tensor32(const Product& p, int tile) {
  const bool is_signed = p.to.x == Dtype::s8;
  if (tile == 128) {
    return is_signed ? launch_tiles<Tensor32<128, 128, 64, 64, true>, 3, true>(p)
                     : launch_tiles<Tensor32<128, 128, 64, 64, false>, 3, true>(p);
  }
  return is_signed ? launch_tiles<Tensor32<64, 64, 32, 32, true>, 4, true>(p)
                   : launch_tiles<Tensor32<64, 64, 32, 32, false>, 4, true>(p);
}

void multiply_tensor16(const Product& p, int tile) {
  const bool is_signed = p.to.x == Dtype::s8;
  if (tile == 128) {
    return is_signed ? launch_tiles<Tensor16<128, 128, 64, 32, true>, 2, false>(p)
                     : launch_tiles<Tensor16<128, 128, 64, 32, false>, 2, false>(p);
  }
  return is_signed ? launch_tiles<Tensor16<64, 64, 32, 32, true>, 2, false>(p)
                   : launch_tiles<Tensor16<64, 64, 32, 32, false>, 2, false>(p);
}

}  // namespace shrike::kernels::int8
