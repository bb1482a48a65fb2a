// Moving elements: rows, permutations, picked rows. Bytes are read once and written once; bandwidth is the bound.
#include <vector>

#include "kernels/reduce.cuh"
#include "shrike/ops/layout.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;

// The widest of 16, 8, 4, 2 and 1 that divides all of `bytes`, bit by bit.
std::int64_t common_width(std::uint64_t bytes) {
  for (const std::int64_t width : {16, 8, 4, 2}) {
    if (bytes % static_cast<std::uint64_t>(width) == 0) return width;
  }
  return 1;
}

// Calls f(T{}) with a type of `width` bytes.
template <class F> void with_word(std::int64_t width, const F& f) {
  switch (width) {
    case 16: return f(uint4{});
    case 8: return f(std::uint64_t{});
    case 4: return f(std::uint32_t{});
    case 2: return f(std::uint16_t{});
    default: return f(std::uint8_t{});
  }
}

// a / b, by 32 bits where they suffice.
__device__ __forceinline__ std::int64_t divide(std::int64_t a, std::int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<unsigned>(a) / static_cast<unsigned>(b);
  return a / b;
}

// Thread i owns word i. Strides in words.
template <class T> __global__ void __launch_bounds__(threads)
    copy_rows_kernel(std::int64_t count, std::int64_t words, std::int64_t from_stride, std::int64_t to_stride,
                     const T* __restrict__ from, T* __restrict__ to) {
  for (std::int64_t i = cuda::first_index(); i < count; i += cuda::index_stride()) {
    const std::int64_t row = divide(i, words), column = i - row * words;
    to[row * to_stride + column] = from[row * from_stride + column];
  }
}

// Thread i owns element i of y and finds its place in x: writes are coalesced, reads as the strides have it.
template <class T> __global__ void __launch_bounds__(threads)
    permute_kernel(const PermuteSizes s, std::int64_t count, const T* __restrict__ x, T* __restrict__ y) {
  for (std::int64_t i = cuda::first_index(); i < count; i += cuda::index_stride()) {
    std::int64_t rest = i, from = 0;
#pragma unroll
    for (int d = Shape::max_rank - 1; d >= 0; --d) {
      if (d >= s.rank) continue;
      const std::int64_t next = divide(rest, s.sizes[d]);
      from += (rest - next * s.sizes[d]) * s.strides[d];
      rest = next;
    }
    y[i] = x[from];
  }
}

// y [batches, rows, columns] = x with the last two dimensions exchanged. A block of (32, 8) threads brings tiles of 32 x 32
// through shared memory, so that reads and writes are coalesced; the odd width keeps columns out of each other's banks.
constexpr int side = 32;
template <class T> __global__ void __launch_bounds__(threads)
    transpose_kernel(std::int64_t batches, std::int64_t rows, std::int64_t columns, std::int64_t batch_stride,
                     std::int64_t column_stride, const T* __restrict__ x, T* __restrict__ y) {
  SHRIKE_SHARED(T, tile, [side][side + 1]);
  const std::int64_t row_tiles = (rows + side - 1) / side;
  const std::int64_t column_tiles = (columns + side - 1) / side;
  for (std::int64_t t = blockIdx.x; t < batches * row_tiles * column_tiles; t += gridDim.x) {
    const std::int64_t rest = divide(t, row_tiles);
    const std::int64_t row0 = (t - rest * row_tiles) * side;
    const std::int64_t batch = divide(rest, column_tiles);
    const std::int64_t column0 = (rest - batch * column_tiles) * side;
    for (int j = static_cast<int>(threadIdx.y); j < side; j += 8) {
      const std::int64_t row = row0 + threadIdx.x, column = column0 + j;
      if (row < rows && column < columns) tile[j][threadIdx.x] = x[batch * batch_stride + column * column_stride + row];
    }
    __syncthreads();
    for (int j = static_cast<int>(threadIdx.y); j < side; j += 8) {
      const std::int64_t row = row0 + j, column = column0 + threadIdx.x;
      if (row < rows && column < columns) y[(batch * rows + row) * columns + column] = tile[threadIdx.x][j];
    }
    __syncthreads();
  }
}

// The same permutation with fewest dimensions: those of size 1 dropped, neighbours that stay neighbours made one.
PermuteSizes merged(const PermuteSizes& s) {
  PermuteSizes m{0, s.element, {}, {}};
  for (int i = 0; i < s.rank; ++i) {
    if (s.sizes[i] == 1) continue;
    if (m.rank > 0 && m.strides[m.rank - 1] == s.sizes[i] * s.strides[i]) {
      m.sizes[m.rank - 1] *= s.sizes[i];
      m.strides[m.rank - 1] = s.strides[i];
    } else {
      m.sizes[m.rank] = s.sizes[i];
      m.strides[m.rank++] = s.strides[i];
    }
  }
  return m;
}

// Runs that stay together become wider elements.
void widen(PermuteSizes& m) {
  if (m.rank == 0 || m.strides[m.rank - 1] != 1) return;
  auto all = static_cast<std::uint64_t>(m.sizes[m.rank - 1] * m.element) | 16u;
  for (int i = 0; i + 1 < m.rank; ++i) all |= static_cast<std::uint64_t>(m.strides[i] * m.element);
  const std::int64_t factor = common_width(all) / m.element;
  m.sizes[m.rank - 1] /= factor;
  for (int i = 0; i + 1 < m.rank; ++i) m.strides[i] /= factor;
  m.element *= factor;
}

// y[k] = x[index[k]], zeros outside. Thread i owns word i of y.
template <class T> __global__ void __launch_bounds__(threads)
    index_rows_forward_kernel(std::int64_t count, std::int64_t words, std::int64_t rows, const T* __restrict__ x,
                              const std::int32_t* __restrict__ index, T* __restrict__ y) {
  for (std::int64_t i = cuda::first_index(); i < count; i += cuda::index_stride()) {
    const std::int64_t k = divide(i, words), column = i - k * words;
    const std::int64_t row = index[k];
    y[i] = row >= 0 && row < rows ? x[row * words + column] : T{};
  }
}

__global__ void __launch_bounds__(threads) zero_kernel(std::int64_t n, float* __restrict__ y) {
  for (std::int64_t i = cuda::first_index(); i < n; i += cuda::index_stride()) y[i] = 0.0f;
}

// dx = the sum of dy over the picks of each row, in their order; dx is 0 before. The block of the first pick of a row owns it:
// it looks through the later picks, a tile at a time, and each thread adds its columns. picked^2 / 2 comparisons in all, of
// numbers that stay in the cache: made for the thousands of rows that a detector picks.
__global__ void __launch_bounds__(threads)
    index_rows_backward_kernel(const IndexRowsSizes s, const float* __restrict__ dy, const std::int32_t* __restrict__ index,
                               float* __restrict__ dx) {
  SHRIKE_SHARED(std::int32_t, picks, [threads]);
  for (std::int64_t k = blockIdx.x; k < s.picked; k += gridDim.x) {
    const std::int32_t row = index[k];
    int earlier = row < 0 || row >= s.rows;
    for (std::int64_t i = threadIdx.x; i < k && !earlier; i += threads) earlier = index[i] == row;
    if (__syncthreads_or(earlier)) continue;
    for (std::int64_t column0 = 0; column0 < s.width; column0 += threads) {
      const std::int64_t column = column0 + threadIdx.x;
      float sum = 0;
      for (std::int64_t tile = k; tile < s.picked; tile += threads) {
        const std::int64_t mine = tile + threadIdx.x;
        const bool match = mine < s.picked && index[mine] == row;
        picks[threadIdx.x] = match;
        if (__syncthreads_or(match)) {
          for (int j = 0; j < threads; ++j) {
            if (picks[j] && column < s.width) sum += dy[(tile + j) * s.width + column];
          }
        }
        __syncthreads();
      }
      if (column < s.width) dx[row * s.width + column] = sum;
    }
  }
}

}  // namespace

void copy_rows(Cuda, const RowCopySizes& s, const void* from, void* to) {
  if (s.rows * s.bytes == 0) return;
  const std::int64_t width = common_width(static_cast<std::uint64_t>(s.bytes) | static_cast<std::uint64_t>(s.from_stride) |
                                          static_cast<std::uint64_t>(s.to_stride) | reinterpret_cast<std::uintptr_t>(from) |
                                          reinterpret_cast<std::uintptr_t>(to));
  with_word(width, [&](auto word) {
    using T = decltype(word);
    const std::int64_t count = s.rows * (s.bytes / width);
    cuda::launch(copy_rows_kernel<T>, cuda::loop_blocks(count, threads), threads, 0, count, s.bytes / width,
                 s.from_stride / width, s.to_stride / width, static_cast<const T*>(from), static_cast<T*>(to));
  });
}

void permute_forward(Cuda, const PermuteSizes& s, const void* x, void* y) {
  SHRIKE_CHECK(s.element == 1 || s.element == 2 || s.element == 4 || s.element == 8, "permute: elements of ", s.element,
               " bytes");
  std::int64_t count = 1;
  for (int i = 0; i < s.rank; ++i) count *= s.sizes[i];
  if (count == 0) return;
  PermuteSizes m = merged(s);
  const int last = m.rank - 1;
  if (m.rank >= 2 && m.rank <= 3 && m.strides[last - 1] == 1) {
    const std::int64_t batches = m.rank == 3 ? m.sizes[0] : 1;
    const std::int64_t tiles = batches * ((m.sizes[last - 1] + side - 1) / side) * ((m.sizes[last] + side - 1) / side);
    return with_word(m.element, [&](auto word) {
      using T = decltype(word);
      cuda::launch(transpose_kernel<T>, cuda::loop_blocks(tiles, 1), dim3(side, 8), 0, batches, m.sizes[last - 1],
                   m.sizes[last], m.rank == 3 ? m.strides[0] : 0, m.strides[last], static_cast<const T*>(x),
                   static_cast<T*>(y));
    });
  }
  widen(m);
  count = 1;
  for (int i = 0; i < m.rank; ++i) count *= m.sizes[i];
  with_word(m.element, [&](auto word) {
    using T = decltype(word);
    cuda::launch(permute_kernel<T>, cuda::loop_blocks(count, threads), threads, 0, m, count, static_cast<const T*>(x),
                 static_cast<T*>(y));
  });
}

void index_rows_forward(Cuda, const IndexRowsSizes& s, const void* x, const std::int32_t* index, void* y) {
  if (s.picked * s.width == 0) return;
  const std::int64_t width = common_width(static_cast<std::uint64_t>(s.width) | reinterpret_cast<std::uintptr_t>(x) |
                                          reinterpret_cast<std::uintptr_t>(y));
  with_word(width, [&](auto word) {
    using T = decltype(word);
    const std::int64_t count = s.picked * (s.width / width);
    cuda::launch(index_rows_forward_kernel<T>, cuda::loop_blocks(count, threads), threads, 0, count, s.width / width, s.rows,
                 static_cast<const T*>(x), index, static_cast<T*>(y));
  });
}

void index_rows_backward(Cuda, const IndexRowsSizes& s, const float* dy, const std::int32_t* index, float* dx) {
  cuda::launch(zero_kernel, cuda::loop_blocks(s.rows * s.width, threads), threads, 0, s.rows * s.width, dx);
  cuda::launch(index_rows_backward_kernel, cuda::loop_blocks(s.width > 0 ? s.picked : 0, 1), threads, 0, s, dy, index, dx);
}

}  // namespace shrike::kernels
