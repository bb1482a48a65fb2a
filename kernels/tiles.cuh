// C = A B by tiles, of elements of one or two bytes, whatever multiplies them.
//
// A block computes a tile of C, M x N, by turns of 64 bytes along K. Rows of A and of B (filters) lie in shared memory as they
// do in memory, K innermost, 80 bytes apart: eight neighbouring rows then begin in eight different groups of four banks, so
// that ldmatrix and 16-byte loads have no conflicts. The copies of the next Stages - 1 turns are under way (cp.async, or plain
// loads and stores before sm_80) while a turn is multiplied by `Multiply`:
//   Multiply::threads, Multiply::m, Multiply::n     of a block
//   Multiply::blocks                                of a multiprocessor that registers must leave room for
//   multiply(a, b)                                  adds one turn
//   each(f)                                         f(row in the tile, column, sum) for every sum of this thread
// What is multiplied is a struct P (int8::Product, half::Product) with
//   P::Element                                      an unsigned integer as large as an element of x, of weight and of y
//   map, weight, filters, y, partial, turns         as in int8.hpp; floats() says that y is f32
//   finish(p, sum, row, column)                     y in float, for one sum
//   to_element(p, y)                                y as it is stored, unless y is f32
// Elements leave through shared memory, so that memory is written 16 neighbouring bytes at a time.
//
// Bytes: A once for every column of tiles, B once for every row of them, mostly out of L2; C once.
#pragma once

#include "kernels/mma.hpp"
#include "kernels/tiles.hpp"

namespace shrike::kernels::tiles {

constexpr int pitch = depth + 16;

struct RowPlace {
  int pixel;  // of tap (0, 0) in the map; may lie outside
  int h, w;
  int unused;
};

__device__ __forceinline__ RowPlace row_place(const ByteMap& map, int m) {
  if (m >= map.pixels) return {0, -(1 << 29), 0, 0};  // all of its taps are outside
  const int image = m / (map.rows * map.columns), rest = m - image * map.rows * map.columns;
  const int p = rest / map.columns, q = rest - p * map.columns;
  const int h = p * map.stride - map.padding, w = q * map.stride - map.padding;
  return {(image * map.height + h) * map.width + w, h, w, 0};
}

// The address of byte k of a row of A, or null where it counts as 0.
__device__ __forceinline__ const std::uint8_t* byte_at(const ByteMap& map, const RowPlace& row, int k) {
  const int tap = k / map.channels, r = tap / map.taps_w, s = tap - r * map.taps_w;
  const int dh = r * map.dilation, dw = s * map.dilation;
  const bool inside = k < map.length && static_cast<unsigned>(row.h + dh) < static_cast<unsigned>(map.height) &&
                      static_cast<unsigned>(row.w + dw) < static_cast<unsigned>(map.width);
  if (!inside) return nullptr;
  return map.data + static_cast<std::int64_t>(row.pixel + dh * map.width + dw) * map.channels + (k - tap * map.channels);
}

// Output i, of row i / filters and column i % filters, from its sum.
template <class P, class Sum> __device__ __forceinline__ void put(const P& p, std::int64_t i, Sum sum) {
  const std::int64_t row = i / p.filters;
  const float y = finish(p, sum, row, static_cast<int>(i - row * p.filters));
  if (p.floats()) {
    static_cast<float*>(p.y)[i] = y;
  } else {
    static_cast<typename P::Element*>(p.y)[i] = to_element(p, y);
  }
}

// A thread adds up the parts of output i, i + threads of the grid, ..., in their order. Reads 4 bytes a part.
template <class P> __device__ __forceinline__ void add_parts(const P& p) {
  const std::int64_t all = static_cast<std::int64_t>(p.map.pixels) * p.filters;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    auto sum = p.partial[i];
    for (int part = 1; part < p.splits; ++part) sum += p.partial[part * all + i];
    put(p, i, sum);
  }
}

template <bool Async> __device__ __forceinline__ void put_16(std::uint8_t* to, const void* from) {
  if constexpr (Async) {
    cuda::cp_async_16(to, from);
  } else {
    *reinterpret_cast<int4*>(to) = *static_cast<const int4*>(from);
  }
}

// One turn of A. Wide: a pixel is a multiple of 16 bytes and the map is aligned, so that 16 bytes belong to one tap.
template <class Element, int M, int Threads, bool Wide, bool Async>
__device__ __forceinline__ void copy_map(const ByteMap& map, const RowPlace* places, int first_k, std::uint8_t* to) {
  constexpr int width = Wide ? 16 : 4, across = depth / width, size = sizeof(Element);
  const int offset = static_cast<int>(threadIdx.x) % across * width;
  for (int row = static_cast<int>(threadIdx.x) / across; row < M; row += Threads / across) {
    std::uint8_t* const at = to + row * pitch + offset;
    if constexpr (Wide) {
      const std::uint8_t* const from = byte_at(map, places[row], first_k + offset);
      if (from != nullptr) {
        put_16<Async>(at, from);
      } else {
        *reinterpret_cast<int4*>(at) = make_int4(0, 0, 0, 0);
      }
    } else {
      unsigned word = 0;
#pragma unroll
      for (int i = 0; i < 4; i += size) {
        const std::uint8_t* const from = byte_at(map, places[row], first_k + offset + i);
        if (from != nullptr) word |= static_cast<unsigned>(*reinterpret_cast<const Element*>(from)) << (8 * i);
      }
      *reinterpret_cast<unsigned*>(at) = word;
    }
  }
}

// One turn of B. Wide: rows are a multiple of 16 bytes and aligned.
template <class Element, int N, int Threads, bool Wide, bool Async, class P>
__device__ __forceinline__ void copy_filters(const P& p, int first_filter, int first_k, std::uint8_t* to) {
  constexpr int width = Wide ? 16 : 4, across = depth / width, size = sizeof(Element);
  const int offset = static_cast<int>(threadIdx.x) % across * width, k = first_k + offset, length = p.map.length;
  const auto* const weight = reinterpret_cast<const std::uint8_t*>(p.weight);
  for (int row = static_cast<int>(threadIdx.x) / across; row < N; row += Threads / across) {
    std::uint8_t* const at = to + row * pitch + offset;
    const int filter = first_filter + row;
    const std::uint8_t* const from = weight + static_cast<std::int64_t>(filter) * length + k;
    if constexpr (Wide) {
      if (filter < p.filters && k < length) {
        put_16<Async>(at, from);
      } else {
        *reinterpret_cast<int4*>(at) = make_int4(0, 0, 0, 0);
      }
    } else {
      unsigned word = 0;
#pragma unroll
      for (int i = 0; i < 4; i += size) {
        if (filter < p.filters && k + i < length) {
          word |= static_cast<unsigned>(*reinterpret_cast<const Element*>(from + i)) << (8 * i);
        }
      }
      *reinterpret_cast<unsigned*>(at) = word;
    }
  }
}

// Bytes from row to row of a tile of elements on its way out.
template <class Element, class Multiply> constexpr int out_pitch = Multiply::n* static_cast<int>(sizeof(Element)) + 16;

template <class Element, class Multiply, int Stages> constexpr std::size_t shared_bytes() {
  constexpr std::size_t stages = std::size_t{Stages} * (Multiply::m + Multiply::n) * pitch;
  constexpr std::size_t out = std::size_t{Multiply::m} * out_pitch<Element, Multiply>;
  return Multiply::m * sizeof(RowPlace) + (stages > out ? stages : out);
}

// What a kernel consists of: block x computes tile (x / tiles_n, x % tiles_n), block y part y of K.
template <class Multiply, int Stages, bool Wide, bool Async, class P>
__device__ __forceinline__ void multiply_tile(const P& p, int tiles_n) {
  SHRIKE_DYNAMIC_SHARED(std::uint8_t, shared);
  using Element = typename P::Element;
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
      copy_map<Element, m, threads, Wide, Async>(p.map, places, (first_turn + turn) * depth, stage);
      copy_filters<Element, n, threads, Wide, Async>(p, tile_n, (first_turn + turn) * depth, stage + m * pitch);
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
    auto* const part = p.partial + static_cast<std::int64_t>(blockIdx.y) * p.map.pixels * p.filters;
    sums.each([&](int i, int j, auto sum) {
      const int row = tile_m + i, column = tile_n + j;
      if (row < p.map.pixels && column < p.filters) part[static_cast<std::int64_t>(row) * p.filters + column] = sum;
    });
    return;
  }
  if (p.floats()) {
    sums.each([&](int i, int j, auto sum) {
      const int row = tile_m + i, column = tile_n + j;
      if (row >= p.map.pixels || column >= p.filters) return;
      static_cast<float*>(p.y)[static_cast<std::int64_t>(row) * p.filters + column] = finish(p, sum, row, column);
    });
    return;
  }
  constexpr int row_bytes = out_pitch<Element, Multiply>, in_16 = 16 / sizeof(Element);
  std::uint8_t* const out = stages;
  if constexpr (Async) cuda::cp_async_wait<0>();
  __syncthreads();  // the stages are free
  sums.each([&](int i, int j, auto sum) {
    const int row = tile_m + i, column = tile_n + j;
    if (row >= p.map.pixels || column >= p.filters) return;
    reinterpret_cast<Element*>(out + i * row_bytes)[j] = to_element(p, finish(p, sum, row, column));
  });
  __syncthreads();
  auto* const y = static_cast<Element*>(p.y);
  const bool wide = p.filters % in_16 == 0 && reinterpret_cast<std::uintptr_t>(y) % 16 == 0;
  for (int i = static_cast<int>(threadIdx.x); i < m * n / in_16; i += threads) {
    const int row = i / (n / in_16), j = i % (n / in_16) * in_16;
    if (tile_m + row >= p.map.pixels) break;
    Element* const to = y + static_cast<std::int64_t>(tile_m + row) * p.filters + tile_n + j;
    const auto* const from = reinterpret_cast<const Element*>(out + row * row_bytes) + j;
    if (wide) {
      if (tile_n + j < p.filters) *reinterpret_cast<int4*>(to) = *reinterpret_cast<const int4*>(from);
    } else {
      for (int e = 0; e < in_16 && tile_n + j + e < p.filters; ++e) to[e] = from[e];
    }
  }
}

// Launches a kernel made of multiply_tile(): the one with wide copies where operands allow them.
template <class Multiply, int Stages, class P> void launch(void (*wide)(P, int), void (*any)(P, int), const P& p) {
  const std::int64_t tiles_m = (std::int64_t{p.map.pixels} + Multiply::m - 1) / Multiply::m;
  const int tiles_n = (p.filters + Multiply::n - 1) / Multiply::n;
  const dim3 blocks(static_cast<unsigned>(tiles_m * tiles_n), static_cast<unsigned>(p.splits));
  constexpr std::size_t bytes = shared_bytes<typename P::Element, Multiply, Stages>();
  const auto aligned = [](const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; };
  const bool fits = p.map.channels % 16 == 0 && aligned(p.map.data) && aligned(p.weight);
  cuda::launch(fits ? wide : any, blocks, Multiply::threads, bytes, p, tiles_n);
}

}  // namespace shrike::kernels::tiles
