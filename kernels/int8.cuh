// C = A B of int8 codes with exact int32 sums, by tiles, whatever multiplies them.
//
// A block computes a tile of C, M x N, by turns of 64 bytes along K. Rows of A and of B (filters) lie in shared memory as they
// do in memory, K innermost, 80 bytes apart: eight neighbouring rows then begin in eight different groups of four banks, so
// that ldmatrix and 16-byte loads have no conflicts. The copies of the next Stages - 1 turns are under way (cp.async, or plain
// loads and stores before sm_80) while a turn is multiplied by `Multiply`:
//   Multiply::threads, Multiply::m, Multiply::n     of a block
//   Multiply::blocks                                of a multiprocessor that registers must leave room for
//   multiply(a, b)                                  adds one turn
//   each(f)                                         f(row in the tile, column, sum) for every sum of this thread
// The codes leave through shared memory, so that memory is written 16 neighbouring bytes at a time.
//
// Bytes: A once for every column of tiles, B once for every row of them, mostly out of L2; C once. Operations: 2 m n k.
#pragma once

#include "kernels/int8.hpp"
#include "kernels/mma.hpp"

namespace shrike::kernels::int8 {

constexpr int depth = 64;  // bytes along K a turn
constexpr int pitch = depth + 16;

struct RowPlace {
  int pixel;  // of tap (0, 0) in the map; may lie outside
  int h, w;
  int unused;
};

__device__ __forceinline__ RowPlace row_place(const CodeMap& map, int m) {
  if (m >= map.pixels) return {0, -(1 << 29), 0, 0};  // all of its taps are outside
  const int image = m / (map.rows * map.columns), rest = m - image * map.rows * map.columns;
  const int p = rest / map.columns, q = rest - p * map.columns;
  const int h = p * map.stride - map.padding, w = q * map.stride - map.padding;
  return {(image * map.height + h) * map.width + w, h, w, 0};
}

// The address of element k of a row of A, or null where it counts as 0.
__device__ __forceinline__ const std::uint8_t* code_at(const CodeMap& map, const RowPlace& row, int k) {
  const int tap = k / map.channels, r = tap / map.taps_w, s = tap - r * map.taps_w;
  const int dh = r * map.dilation, dw = s * map.dilation;
  const bool inside = k < map.length && static_cast<unsigned>(row.h + dh) < static_cast<unsigned>(map.height) &&
                      static_cast<unsigned>(row.w + dw) < static_cast<unsigned>(map.width);
  if (!inside) return nullptr;
  return map.data + static_cast<std::int64_t>(row.pixel + dh * map.width + dw) * map.channels + (k - tap * map.channels);
}

// y for one sum: ops/requantize.hpp, step by step.
__device__ __forceinline__ float requantize(const Product& p, int sum, std::int64_t row, int column) {
  float t = __fmul_rn(static_cast<float>(sum + p.bias[column]), p.multiplier[column]);
  if (p.residual != nullptr) {
    const std::int64_t at = row * p.filters + column;
    const float r = p.to.residual == Dtype::u8 ? static_cast<float>(static_cast<const std::uint8_t*>(p.residual)[at])
                                               : static_cast<float>(static_cast<const std::int8_t*>(p.residual)[at]);
    t = fmaf(r, p.to.residual_multiplier, t);
  }
  if (p.to.y == Dtype::f32) return p.to.relu && !(t > 0.0f) ? 0.0f : t;
  return fminf(fmaxf(rintf(t), p.low), p.high);
}

// A code as a byte: negative ones in two's complement.
__device__ __forceinline__ std::uint8_t code_byte(float y) { return static_cast<std::uint8_t>(static_cast<int>(y)); }

// Output i, of row i / filters and column i % filters, from its sum.
__device__ __forceinline__ void put(const Product& p, std::int64_t i, int sum) {
  const std::int64_t row = i / p.filters;
  const float y = requantize(p, sum, row, static_cast<int>(i - row * p.filters));
  if (p.to.y == Dtype::f32) {
    static_cast<float*>(p.y)[i] = y;
  } else {
    static_cast<std::uint8_t*>(p.y)[i] = code_byte(y);
  }
}

template <bool Async> __device__ __forceinline__ void put_16(std::uint8_t* to, const void* from) {
  if constexpr (Async) {
    cuda::cp_async_16(to, from);
  } else {
    *reinterpret_cast<int4*>(to) = *static_cast<const int4*>(from);
  }
}

// One turn of A. Wide: channels are a multiple of 16 and the map is aligned, so that 16 bytes belong to one tap.
template <int M, int Threads, bool Wide, bool Async>
__device__ __forceinline__ void copy_codes(const CodeMap& map, const RowPlace* places, int first_k, std::uint8_t* to) {
  constexpr int width = Wide ? 16 : 4, across = depth / width;
  const int offset = static_cast<int>(threadIdx.x) % across * width;
  for (int row = static_cast<int>(threadIdx.x) / across; row < M; row += Threads / across) {
    std::uint8_t* const at = to + row * pitch + offset;
    if constexpr (Wide) {
      const std::uint8_t* const from = code_at(map, places[row], first_k + offset);
      if (from != nullptr) {
        put_16<Async>(at, from);
      } else {
        *reinterpret_cast<int4*>(at) = make_int4(0, 0, 0, 0);
      }
    } else {
      unsigned word = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::uint8_t* const from = code_at(map, places[row], first_k + offset + i);
        if (from != nullptr) word |= static_cast<unsigned>(*from) << (8 * i);
      }
      *reinterpret_cast<unsigned*>(at) = word;
    }
  }
}

// One turn of B. Wide: rows are a multiple of 16 bytes and aligned.
template <int N, int Threads, bool Wide, bool Async>
__device__ __forceinline__ void copy_filters(const Product& p, int first_filter, int first_k, std::uint8_t* to) {
  constexpr int width = Wide ? 16 : 4, across = depth / width;
  const int offset = static_cast<int>(threadIdx.x) % across * width, k = first_k + offset, length = p.map.length;
  for (int row = static_cast<int>(threadIdx.x) / across; row < N; row += Threads / across) {
    std::uint8_t* const at = to + row * pitch + offset;
    const int filter = first_filter + row;
    const std::int8_t* const from = p.weight + static_cast<std::int64_t>(filter) * length + k;
    if constexpr (Wide) {
      if (filter < p.filters && k < length) {
        put_16<Async>(at, from);
      } else {
        *reinterpret_cast<int4*>(at) = make_int4(0, 0, 0, 0);
      }
    } else {
      unsigned word = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (filter < p.filters && k + i < length) word |= static_cast<unsigned>(static_cast<std::uint8_t>(from[i])) << (8 * i);
      }
      *reinterpret_cast<unsigned*>(at) = word;
    }
  }
}

template <class Multiply, int Stages> constexpr std::size_t shared_bytes() {
  constexpr std::size_t stages = std::size_t{Stages} * (Multiply::m + Multiply::n) * pitch;
  constexpr std::size_t codes = std::size_t{Multiply::m} * (Multiply::n + 16);
  return Multiply::m * sizeof(RowPlace) + (stages > codes ? stages : codes);
}

template <class Multiply, int Stages, bool Wide, bool Async>
__global__ void __launch_bounds__(Multiply::threads, Multiply::blocks) int8_kernel(Product p, int tiles_n) {
  SHRIKE_DYNAMIC_SHARED(std::uint8_t, shared);
  constexpr int m = Multiply::m, n = Multiply::n, threads = Multiply::threads;
  constexpr int stage_bytes = (m + n) * pitch;
  auto* const places = reinterpret_cast<RowPlace*>(shared);
  std::uint8_t* const stages = shared + m * sizeof(RowPlace);
  const int tile_m = static_cast<int>(blockIdx.x) / tiles_n * m, tile_n = static_cast<int>(blockIdx.x) % tiles_n * n;
  for (int i = static_cast<int>(threadIdx.x); i < m; i += threads) places[i] = row_place(p.map, tile_m + i);
  __syncthreads();

  const int all_turns = (p.map.length + depth - 1) / depth, first_turn = static_cast<int>(blockIdx.y) * p.turns;
  const int turns = all_turns - first_turn < p.turns ? all_turns - first_turn : p.turns;
  const auto copy = [&](int turn) {
    if (turn < turns) {
      std::uint8_t* const stage = stages + turn % Stages * stage_bytes;
      copy_codes<m, threads, Wide, Async>(p.map, places, (first_turn + turn) * depth, stage);
      copy_filters<n, threads, Wide, Async>(p, tile_n, (first_turn + turn) * depth, stage + m * pitch);
    }
    if constexpr (Async) cuda::cp_async_commit();  // an empty group too, so that counting groups counts turns
  };
#pragma unroll
  for (int turn = 0; turn < Stages - 1; ++turn) copy(turn);

  Multiply sums;
  for (int turn = 0; turn < turns; ++turn) {
    if constexpr (Async) cuda::cp_async_wait<Stages - 2>();
    __syncthreads();  // everyone's copies of this turn are there, and everyone is done with the stage that is filled next
    copy(turn + Stages - 1);
    const std::uint8_t* const stage = stages + turn % Stages * stage_bytes;
    sums.multiply(stage, stage + m * pitch);
  }

  if (p.partial != nullptr) {
    std::int32_t* const part = p.partial + static_cast<std::int64_t>(blockIdx.y) * p.map.pixels * p.filters;
    sums.each([&](int i, int j, int sum) {
      const int row = tile_m + i, column = tile_n + j;
      if (row < p.map.pixels && column < p.filters) part[static_cast<std::int64_t>(row) * p.filters + column] = sum;
    });
    return;
  }
  if (p.to.y == Dtype::f32) {
    sums.each([&](int i, int j, int sum) {
      const int row = tile_m + i, column = tile_n + j;
      if (row >= p.map.pixels || column >= p.filters) return;
      static_cast<float*>(p.y)[static_cast<std::int64_t>(row) * p.filters + column] = requantize(p, sum, row, column);
    });
    return;
  }
  constexpr int code_pitch = n + 16;
  std::uint8_t* const codes = stages;
  if constexpr (Async) cuda::cp_async_wait<0>();
  __syncthreads();  // the stages are free
  sums.each([&](int i, int j, int sum) {
    const int row = tile_m + i, column = tile_n + j;
    if (row < p.map.pixels && column < p.filters) codes[i * code_pitch + j] = code_byte(requantize(p, sum, row, column));
  });
  __syncthreads();
  auto* const y = static_cast<std::uint8_t*>(p.y);
  const bool wide = p.filters % 16 == 0 && reinterpret_cast<std::uintptr_t>(y) % 16 == 0;
  for (int i = static_cast<int>(threadIdx.x); i < m * n / 16; i += threads) {
    const int row = i / (n / 16), j = i % (n / 16) * 16;
    if (tile_m + row >= p.map.pixels) break;
    std::uint8_t* const to = y + static_cast<std::int64_t>(tile_m + row) * p.filters + tile_n + j;
    const std::uint8_t* const from = codes + row * code_pitch + j;
    if (wide) {
      if (tile_n + j < p.filters) *reinterpret_cast<int4*>(to) = *reinterpret_cast<const int4*>(from);
    } else {
      for (int e = 0; e < 16 && tile_n + j + e < p.filters; ++e) to[e] = from[e];
    }
  }
}

template <class Multiply, int Stages, bool Async> void launch_tiles(const Product& p) {
  const std::int64_t tiles_m = (std::int64_t{p.map.pixels} + Multiply::m - 1) / Multiply::m;
  const int tiles_n = (p.filters + Multiply::n - 1) / Multiply::n;
  const dim3 blocks(static_cast<unsigned>(tiles_m * tiles_n), static_cast<unsigned>(p.splits));
  constexpr std::size_t bytes = shared_bytes<Multiply, Stages>();
  const auto aligned = [](const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; };
  if (p.map.channels % 16 == 0 && aligned(p.map.data) && aligned(p.weight)) {
    cuda::launch(int8_kernel<Multiply, Stages, true, Async>, blocks, Multiply::threads, bytes, p, tiles_n);
  } else {
    cuda::launch(int8_kernel<Multiply, Stages, false, Async>, blocks, Multiply::threads, bytes, p, tiles_n);
  }
}

}  // namespace shrike::kernels::int8
