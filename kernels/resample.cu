// Nearest-neighbour upsampling. Thread i owns V neighbouring channels of one place of y (forward) or of x (backward); backward
// gathers from the run of places that read it, row by row, so the sum has the CPU's order and its bits.
//
// Bytes per element of y, at twice the size: 1 read + 4 written forward, 4 read + 1 written backward. Bandwidth is the bound.
#include "kernels/reduce.cuh"
#include "shrike/ops/resample.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;

// nearest_source of ops/resample.hpp, for the device: each operation rounded by itself.
__device__ __forceinline__ std::int64_t source_of(std::int64_t i, std::int64_t size, std::int64_t out_size) {
  if (size == out_size) return i;
  if (2 * size == out_size) return i / 2;
  const float scale = __fdiv_rn(static_cast<float>(size), static_cast<float>(out_size));
  const auto place = static_cast<std::int64_t>(__fmul_rn(static_cast<float>(i), scale));
  return place < size - 1 ? place : size - 1;
}

// The first place whose source is at least `source`: sources never decrease.
__device__ __forceinline__ std::int64_t first_reader(std::int64_t source, std::int64_t size, std::int64_t out_size) {
  if (2 * size == out_size) return 2 * source;
  std::int64_t low = 0, high = out_size;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (source_of(middle, size, out_size) < source) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Vector number i of a map: first channel, column, row, image. 32-bit divisions where they suffice.
struct Place {
  std::int64_t c, column, row, image;
  __device__ Place(std::int64_t i, std::int64_t vectors, std::int64_t rows, std::int64_t columns, int width) {
    if (i < (std::int64_t{1} << 31)) {
      split(static_cast<unsigned>(i), static_cast<unsigned>(vectors), static_cast<unsigned>(rows),
            static_cast<unsigned>(columns));
    } else {
      split(i, vectors, rows, columns);
    }
    c *= width;
  }

 private:
  template <class I> __device__ void split(I i, I vectors, I rows, I columns) {
    c = i % vectors;
    column = i / vectors % columns;
    row = i / vectors / columns % rows;
    image = i / vectors / columns / rows;
  }
};

// y =
template <int V> __global__ void __launch_bounds__(threads)
    upsample_nearest_forward_kernel(const ResampleSizes s, std::int64_t count, const float* __restrict__ x,
                                    float* __restrict__ y) {
  for (std::int64_t i = cuda::first_index(); i < count; i += cuda::index_stride()) {
    const Place at(i, s.channels / V, s.out_height, s.out_width, V);
    const std::int64_t row = source_of(at.row, s.height, s.out_height), column = source_of(at.column, s.width, s.out_width);
    cuda::store<V>(y + i * V, cuda::load<V>(x + ((at.image * s.height + row) * s.width + column) * s.channels + at.c));
  }
}

// dx =
template <int V> __global__ void __launch_bounds__(threads)
    upsample_nearest_backward_kernel(const ResampleSizes s, std::int64_t count, const float* __restrict__ dy,
                                     float* __restrict__ dx) {
  for (std::int64_t i = cuda::first_index(); i < count; i += cuda::index_stride()) {
    const Place at(i, s.channels / V, s.height, s.width, V);
    const std::int64_t top = first_reader(at.row, s.height, s.out_height);
    const std::int64_t bottom = first_reader(at.row + 1, s.height, s.out_height);
    const std::int64_t left = first_reader(at.column, s.width, s.out_width);
    const std::int64_t right = first_reader(at.column + 1, s.width, s.out_width);
    cuda::Pack<float, V> sum{};
    for (std::int64_t p = top; p < bottom; ++p) {
      for (std::int64_t q = left; q < right; ++q) {
        const auto from = cuda::load<V>(dy + ((at.image * s.out_height + p) * s.out_width + q) * s.channels + at.c);
#pragma unroll
        for (int k = 0; k < V; ++k) sum.v[k] += from.v[k];
      }
    }
    cuda::store<V>(dx + i * V, sum);
  }
}

template <int V> void forward(const ResampleSizes& s, const float* x, float* y) {
  const std::int64_t count = s.images * s.out_height * s.out_width * (s.channels / V);
  cuda::launch(upsample_nearest_forward_kernel<V>, cuda::loop_blocks(count, threads), threads, 0, s, count, x, y);
}

template <int V> void backward(const ResampleSizes& s, const float* dy, float* dx) {
  const std::int64_t count = s.images * s.height * s.width * (s.channels / V);
  cuda::launch(upsample_nearest_backward_kernel<V>, cuda::loop_blocks(count, threads), threads, 0, s, count, dy, dx);
}

}  // namespace

void upsample_nearest_forward(Cuda, const ResampleSizes& s, const float* x, float* y) {
  s.channels % 4 == 0 ? forward<4>(s, x, y) : forward<1>(s, x, y);
}

void upsample_nearest_backward(Cuda, const ResampleSizes& s, const float* dy, float* dx) {
  s.channels % 4 == 0 ? backward<4>(s, dy, dx) : backward<1>(s, dy, dx);
}

}  // namespace shrike::kernels
