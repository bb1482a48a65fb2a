// C = A B on tensor cores, operands rounded to TF32, sums in fp32: sm_80 and up.
//
// A block computes a tile of C, M x N, by turns of 32 along K. Copies of the next Stages - 1 turns are under way (cp.async)
// while the warps multiply this one; a warp owns WarpM x WarpN of the tile as 16 x 8 products of mma.sync.m16n8k8.
//
// Which row of C a row of an mma stands for is ours to choose. Here row g of half h of mma i is 32 (i / 2) + 4 g + 2 (i % 2) +
// h of the warp's rows, and column g of mma j is 32 (j / 4) + 4 g + j % 4 of its columns. So, with lane = 4 g + t,
// - an operand contiguous along rows (or columns) is read as float4: [k + t][32 q + 4 g .. + 3] feeds four fragments at once;
// - a thread ends up with 8 neighbours in a row of C, which it stores as two float4.
// Shared memory without bank conflicts: along K, a row is 128 bytes whose 16-byte pieces are permuted by ^ (row / 4) % 8, for
// ldmatrix reads rows 4 apart; otherwise a row of K is padded by 8 floats, so that rows t = 0 .. 3 fall into different banks.
//
// Bound, a turn of a 128 x 128 tile: 512 mma are 819 clocks of an H100's multiprocessor at the rate that mma.sync reaches (0.62
// of wgmma's, 640 multiply-adds a clock). Warps of 64 x 64 read 64 KiB of shared memory for them and the copies write 32 KiB:
// 768 clocks. Warps of 64 x 32 read 96 KiB, 1024 clocks: there shared memory is the bound.
//
// Registers and KiB of shared memory by ptxas for sm_90 (fprop, dgrad, wgrad), and the blocks of a multiprocessor they leave
// room for:
//   256x128, 256 threads    223, 214, 214    144, 147, 150    1, 1, 1
//   128x128, 128 threads    227, 214, 212     96,  99, 102    2, 2, 2
//   128x64,  128 threads    159, 147, 136     72,  75,  78    3, 3, 2
//   64x64,   128 threads    111, 102, 104     48,  51,  54    4, 4, 4
#pragma once

#include "kernels/gemm.cuh"
#include "kernels/mma.hpp"

namespace shrike::kernels::gemm {

template <int M, int N, int WarpM, int WarpN, int Stages, int Blocks> struct TensorTile {
  static constexpr int m = M, n = N, depth = 32;
  static constexpr int warp_m = WarpM, warp_n = WarpN;
  static constexpr int stages = Stages;
  static constexpr int threads = M / WarpM * (N / WarpN) * 32;
  static constexpr int blocks = Blocks;  // meant to share a multiprocessor
  static_assert(WarpM % 32 == 0 && WarpN % 32 == 0);
};

template <class Operand> struct TensorLayout {
  static constexpr int pitch = Operand::along_k ? 32 : Operand::extent + 8;
  static constexpr int floats = Operand::along_k ? Operand::extent * 32 : 32 * pitch;

  __device__ __forceinline__ static int at(int line, int k) {
    if constexpr (Operand::along_k) return line * 32 + ((((k >> 2) ^ (line >> 2)) & 7) << 2 | (k & 3));
    return k * pitch + line;
  }
};

template <class Tile, class A, class B> constexpr std::size_t tensor_shared_bytes() {
  return sizeof(float) * (Tile::stages * (TensorLayout<A>::floats + TensorLayout<B>::floats) + A::table_ints);
}

template <class Operand> __device__ __forceinline__ void copy_tile(const Operand& operand, float* to) {
  operand.tile([&](int piece, const float* source, bool valid) {
    float* const at = to + TensorLayout<Operand>::at(operand.line(piece), operand.depth(piece));
    if constexpr (Operand::vector) {
      cuda::cp_async_16(at, source, valid);
    } else {
      cuda::cp_async_4(at, source, valid);
    }
  });
}

// The fragments of A for 8 of K, as they lie in memory.
template <class Operand, int Count>
__device__ __forceinline__ void load_a(unsigned (&a)[Count][4], const float* tile, int first_row, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if constexpr (Operand::along_k) {
    const int row = first_row + 4 * (lane % 8) + lane / 8 % 2;
    const float* const from = tile + row * 32 + (((k / 4 + lane / 16) ^ (lane % 8)) << 2);
#pragma unroll
    for (int i = 0; i < Count; ++i) cuda::ldmatrix_x4(a[i], from + (32 * (i / 2) + 2 * (i % 2)) * 32);
  } else {
    constexpr int pitch = TensorLayout<Operand>::pitch;
    const float* const from = tile + (k + lane % 4) * pitch + first_row + 4 * (lane / 4);
#pragma unroll
    for (int q = 0; q < Count / 2; ++q) {
      const uint4 low = *reinterpret_cast<const uint4*>(from + 32 * q);
      const uint4 high = *reinterpret_cast<const uint4*>(from + 4 * pitch + 32 * q);
      a[2 * q][0] = low.x, a[2 * q][1] = low.y, a[2 * q + 1][0] = low.z, a[2 * q + 1][1] = low.w;
      a[2 * q][2] = high.x, a[2 * q][3] = high.y, a[2 * q + 1][2] = high.z, a[2 * q + 1][3] = high.w;
    }
  }
}

template <class Operand, int Count>
__device__ __forceinline__ void load_b(unsigned (&b)[Count][2], const float* tile, int first_column, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if constexpr (Operand::along_k) {
    const int row = first_column + 4 * (lane % 8) + lane / 16;
    const float* const from = tile + row * 32 + (((k / 4 + lane / 8 % 2) ^ (lane % 8)) << 2);
#pragma unroll
    for (int j = 0; j < Count; j += 2) {
      unsigned two[4];
      cuda::ldmatrix_x4(two, from + (32 * (j / 4) + j % 4) * 32);
      b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
    }
  } else {
    constexpr int pitch = TensorLayout<Operand>::pitch;
    const float* const from = tile + (k + lane % 4) * pitch + first_column + 4 * (lane / 4);
#pragma unroll
    for (int q = 0; q < Count / 4; ++q) {
      const uint4 low = *reinterpret_cast<const uint4*>(from + 32 * q);
      const uint4 high = *reinterpret_cast<const uint4*>(from + 4 * pitch + 32 * q);
      b[4 * q][0] = low.x, b[4 * q + 1][0] = low.y, b[4 * q + 2][0] = low.z, b[4 * q + 3][0] = low.w;
      b[4 * q][1] = high.x, b[4 * q + 1][1] = high.y, b[4 * q + 2][1] = high.z, b[4 * q + 3][1] = high.w;
    }
  }
}

template <int Count, int Registers> __device__ __forceinline__ void round_tf32(unsigned (&fragments)[Count][Registers]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) {
#pragma unroll
    for (int r = 0; r < Registers; ++r) fragments[i][r] = cuda::to_tf32(__uint_as_float(fragments[i][r]));
  }
}

// Writes all of C (=), or of this split's part. Bytes: A once for every column of tiles, B once for every row of them, mostly
// out of L2; C once. Operations: 2 m n k.
template <class Tile, class A, class B> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    gemm_tf32_kernel(typename A::Source a_source, typename B::Source b_source, Sizes sizes, Epilogue epilogue) {
  SHRIKE_DYNAMIC_SHARED(float, shared);
  constexpr int stage_floats = TensorLayout<A>::floats + TensorLayout<B>::floats;
  const int tile_m = static_cast<int>(blockIdx.x) / sizes.tiles_n * Tile::m;
  const int tile_n = static_cast<int>(blockIdx.x) % sizes.tiles_n * Tile::n;
  const int first = static_cast<int>(blockIdx.z) * sizes.tiles_per_split;
  const int all = (sizes.k + Tile::depth - 1) / Tile::depth - first;
  const int turns = all < sizes.tiles_per_split ? all : sizes.tiles_per_split;

  A a_operand(a_source, tile_m, first * Tile::depth, reinterpret_cast<int*>(shared + Tile::stages * stage_floats));
  B b_operand(b_source, tile_n, first * Tile::depth, nullptr);
  if constexpr (A::table_ints > 0) __syncthreads();

  const auto copy = [&](int turn) {
    if (turn < turns) {
      float* const stage = shared + turn % Tile::stages * stage_floats;
      copy_tile(a_operand, stage);
      copy_tile(b_operand, stage + TensorLayout<A>::floats);
      a_operand.advance();
      b_operand.advance();
    }
    cuda::cp_async_commit();  // an empty group too, so that counting groups counts turns
  };
#pragma unroll
  for (int turn = 0; turn < Tile::stages - 1; ++turn) copy(turn);

  constexpr int warps_n = Tile::n / Tile::warp_n;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int warp_row = warp / warps_n * Tile::warp_m, warp_column = warp % warps_n * Tile::warp_n;
  float sum[Tile::warp_m / 16][Tile::warp_n / 8][4] = {};
  for (int turn = 0; turn < turns; ++turn) {
    cuda::cp_async_wait<Tile::stages - 2>();
    __syncthreads();  // everyone's copies of this turn are there, and everyone is done with the stage that is filled next
    copy(turn + Tile::stages - 1);
    const float* const stage = shared + turn % Tile::stages * stage_floats;
#pragma unroll
    for (int k = 0; k < Tile::depth; k += 8) {
      unsigned a[Tile::warp_m / 16][4], b[Tile::warp_n / 8][2];
      load_a<A>(a, stage, warp_row, k);
      load_b<B>(b, stage + TensorLayout<A>::floats, warp_column, k);
      round_tf32(a);
      round_tf32(b);
#pragma unroll
      for (int i = 0; i < Tile::warp_m / 16; ++i) {
#pragma unroll
        for (int j = 0; j < Tile::warp_n / 8; ++j) cuda::mma_m16n8k8_tf32(sum[i][j], a[i], b[j]);
      }
    }
  }

  float* const part = epilogue.part(blockIdx.z);
#pragma unroll
  for (int i = 0; i < Tile::warp_m / 16; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = tile_m + warp_row + 32 * (i / 2) + 4 * (lane / 4) + 2 * (i % 2) + h;
#pragma unroll
      for (int q = 0; q < Tile::warp_n / 32; ++q) {
        const int column = tile_n + warp_column + 32 * q + 8 * (lane % 4);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int r = 2 * h + e;
          epilogue.store(row, column + 4 * e,
                         make_float4(sum[i][4 * q][r], sum[i][4 * q + 1][r], sum[i][4 * q + 2][r], sum[i][4 * q + 3][r]), part);
        }
      }
    }
  }
}

}  // namespace shrike::kernels::gemm
