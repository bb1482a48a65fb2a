// C = A B in fp32 throughout, for every architecture.
//
// A block of 256 threads computes a tile of C, M x N, by turns of Depth along K; thread (ty, tx) of 16 x 16 owns rows
// 4 ty + 64 u + 0 .. 3 and columns 4 tx + 64 v + 0 .. 3. Two buffers in shared memory, both [Depth][extent]: the next turn's
// elements are loaded into registers before this one is multiplied and stored after it, so that one barrier a turn is enough.
//
// Bound: with 128 x 128, a thread reads 16 floats of shared memory for 64 multiply-adds. A warp's 32 threads are 4 x 8, so that
// it reads 192 different bytes of A and B, twice, and 2048 multiply-adds take 16 clocks of a multiprocessor with 128 lanes:
// FFMA is the bound. With 64 x 64, 8 floats for 16: shared memory is as long.
//
// Registers by ptxas for sm_90 (fprop, dgrad, wgrad): 128x128 127, 127, 157; 64x64 79, 79, 79. No spills.
#pragma once

#include "kernels/gemm.cuh"

namespace shrike::kernels::gemm {

template <int M, int N, int Depth, int Blocks> struct FloatTile {
  static constexpr int m = M, n = N, depth = Depth;
  static constexpr int threads = 256;
  static constexpr int blocks = Blocks;
  static_assert(M % 64 == 0 && N % 64 == 0);
};

// What a thread holds of a tile on its way to shared memory.
template <class Operand> struct Staged {
  float value[Operand::pieces][Operand::width];

  __device__ __forceinline__ void load(const Operand& operand) {
    operand.tile([&](int piece, const float* source, bool valid) {
      if constexpr (Operand::vector) {
        const float4 v = valid ? *reinterpret_cast<const float4*>(source) : make_float4(0, 0, 0, 0);
        value[piece][0] = v.x, value[piece][1] = v.y, value[piece][2] = v.z, value[piece][3] = v.w;
      } else {
        value[piece][0] = valid ? *source : 0.0f;
      }
    });
  }
  __device__ __forceinline__ void store(const Operand& operand, float* to) const {
    constexpr int pitch = Operand::extent + 4;
#pragma unroll
    for (int piece = 0; piece < Operand::pieces; ++piece) {
      float* const at = to + operand.depth(piece) * pitch + operand.line(piece);
      if constexpr (Operand::along_k) {
#pragma unroll
        for (int e = 0; e < Operand::width; ++e) at[e * pitch] = value[piece][e];
      } else if constexpr (Operand::vector) {
        *reinterpret_cast<float4*>(at) = make_float4(value[piece][0], value[piece][1], value[piece][2], value[piece][3]);
      } else {
        at[0] = value[piece][0];
      }
    }
  }
};

template <class Tile, class A, class B> constexpr std::size_t float_shared_bytes() {
  return sizeof(float) * (2 * Tile::depth * (Tile::m + Tile::n + 8) + A::table_ints);
}

// Writes all of C (=), or of this split's part. Bytes and operations as for gemm_tf32_kernel.
template <class Tile, class A, class B> __global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    gemm_fp32_kernel(typename A::Source a_source, typename B::Source b_source, Sizes sizes, Epilogue epilogue) {
  SHRIKE_DYNAMIC_SHARED(float, shared);
  constexpr int pitch_a = Tile::m + 4, pitch_b = Tile::n + 4;
  constexpr int stage_floats = Tile::depth * (pitch_a + pitch_b);
  const int tile_m = static_cast<int>(blockIdx.x) / sizes.tiles_n * Tile::m;
  const int tile_n = static_cast<int>(blockIdx.x) % sizes.tiles_n * Tile::n;
  const int first = static_cast<int>(blockIdx.z) * sizes.tiles_per_split;
  const int all = (sizes.k + Tile::depth - 1) / Tile::depth - first;
  const int turns = all < sizes.tiles_per_split ? all : sizes.tiles_per_split;

  A a_operand(a_source, tile_m, first * Tile::depth, reinterpret_cast<int*>(shared + 2 * stage_floats));
  B b_operand(b_source, tile_n, first * Tile::depth, nullptr);
  if constexpr (A::table_ints > 0) __syncthreads();

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row = 4 * (lane / 8 + warp / 2 * 4), column = 4 * (lane % 8 + warp % 2 * 8);
  constexpr int halves_m = Tile::m / 64, halves_n = Tile::n / 64;
  float sum[4 * halves_m][4 * halves_n] = {};
  Staged<A> a_staged;
  Staged<B> b_staged;
  if (turns > 0) {
    a_staged.load(a_operand);
    b_staged.load(b_operand);
    a_staged.store(a_operand, shared);
    b_staged.store(b_operand, shared + Tile::depth * pitch_a);
  }
  for (int turn = 0; turn < turns; ++turn) {
    __syncthreads();
    const bool more = turn + 1 < turns;
    if (more) {
      a_operand.advance();
      b_operand.advance();
      a_staged.load(a_operand);
      b_staged.load(b_operand);
    }
    const float* const a_tile = shared + turn % 2 * stage_floats;
    const float* const b_tile = a_tile + Tile::depth * pitch_a;
#pragma unroll
    for (int k = 0; k < Tile::depth; ++k) {
      float a[4 * halves_m], b[4 * halves_n];
#pragma unroll
      for (int u = 0; u < halves_m; ++u) {
        const float4 v = *reinterpret_cast<const float4*>(a_tile + k * pitch_a + row + 64 * u);
        a[4 * u] = v.x, a[4 * u + 1] = v.y, a[4 * u + 2] = v.z, a[4 * u + 3] = v.w;
      }
#pragma unroll
      for (int v = 0; v < halves_n; ++v) {
        const float4 w = *reinterpret_cast<const float4*>(b_tile + k * pitch_b + column + 64 * v);
        b[4 * v] = w.x, b[4 * v + 1] = w.y, b[4 * v + 2] = w.z, b[4 * v + 3] = w.w;
      }
#pragma unroll
      for (int i = 0; i < 4 * halves_m; ++i) {
#pragma unroll
        for (int j = 0; j < 4 * halves_n; ++j) sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
      }
    }
    if (more) {
      float* const next = shared + (turn + 1) % 2 * stage_floats;
      a_staged.store(a_operand, next);
      b_staged.store(b_operand, next + Tile::depth * pitch_a);
    }
  }

  float* const part = epilogue.part(blockIdx.z);
#pragma unroll
  for (int i = 0; i < 4 * halves_m; ++i) {
#pragma unroll
    for (int v = 0; v < halves_n; ++v) {
      epilogue.store(tile_m + row + i % 4 + 64 * (i / 4), tile_n + column + 64 * v,
                     make_float4(sum[i][4 * v], sum[i][4 * v + 1], sum[i][4 * v + 2], sum[i][4 * v + 3]), part);
    }
  }
}

}  // namespace shrike::kernels::gemm
