// Max and average pooling. Thread i owns V neighbouring channels of one output (forward) or input (backward) place: forward
// reads its window, backward gathers from the windows that see the place, in their order, so nothing is added by two threads.
//
// Bytes per input element, 2x2 windows at stride 2: max forward 4 read + 5/4 written, backward 5/4 read + 4 written; average
// 4 + 1 and 1 + 4. Overlapping windows find their neighbours' reads in the cache. Bandwidth is the bound.
#include "kernels/reduce.cuh"
#include "shrike/ops/pool.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;

// Blocks of a multiprocessor that registers must leave room for: 64 registers a thread with 32-bit indices, 80 with 64. Left to
// itself ptxas goes for more blocks and spills.
template <class I> constexpr int resident = sizeof(I) == 4 ? 4 : 3;

// PoolSizes in the index type I: 32-bit divisions are several times cheaper, and suffice for tensors below 2^31 elements.
template <class I> struct Sizes {
  I n, h, w, c, p, q, kernel, stride, padding;
  explicit Sizes(const PoolSizes& z)
      : n(static_cast<I>(z.n)),
        h(static_cast<I>(z.h)),
        w(static_cast<I>(z.w)),
        c(static_cast<I>(z.c)),
        p(static_cast<I>(z.p)),
        q(static_cast<I>(z.q)),
        kernel(static_cast<I>(z.kernel)),
        stride(static_cast<I>(z.stride)),
        padding(static_cast<I>(z.padding)) {}
};

// The part of a window that lies inside the input: [begin, end) in one dimension, `start` where it would begin without an edge.
template <class I> struct Window {
  I start, begin, end;
  __device__ Window(I output, I size, const Sizes<I>& z)
      : start(output * z.stride - z.padding),
        begin(start > 0 ? start : 0),
        end(start + z.kernel < size ? start + z.kernel : size) {}
};

// The windows that see input position i: [begin, end) of `count` outputs.
template <class I> struct Seers {
  I begin, end;
  __device__ Seers(I i, I count, const Sizes<I>& z) {
    const I low = i + z.padding - z.kernel + z.stride;
    begin = (low > 0 ? low : 0) / z.stride;
    end = (i + z.padding) / z.stride + 1;
    end = end < count ? end : count;
  }
};

// Place and first channel of vector number `i` of a map of `rows` by `columns`.
template <int V, class I> struct Place {
  I c, column, row, image;
  __device__ Place(I i, I channels, I rows, I columns) {
    const I vectors = channels / V;
    I rest = i / vectors;
    c = (i - rest * vectors) * V;
    column = rest % columns;
    rest /= columns;
    row = rest % rows;
    image = rest / rows;
  }
};

// What a window's mean divides by: its size, cut off where the padding ends.
template <class I>
__device__ __forceinline__ float mean_factor(const Window<I>& rows, const Window<I>& columns, const Sizes<I>& z) {
  const I bottom = rows.start + z.kernel < z.h + z.padding ? rows.start + z.kernel : z.h + z.padding;
  const I right = columns.start + z.kernel < z.w + z.padding ? columns.start + z.kernel : z.w + z.padding;
  return 1.0f / static_cast<float>((bottom - rows.start) * (right - columns.start));
}

// The first of equals wins, the last NaN if there is one.
template <int V, class I> __global__ void __launch_bounds__(threads, resident<I>)
    max_pool2d_forward_kernel(const Sizes<I> z, std::int64_t count, const float* __restrict__ x, float* __restrict__ y,
                              std::uint8_t* __restrict__ argmax) {
  for (std::int64_t i = cuda::first_index(); i < count; i += cuda::index_stride()) {
    const Place<V, I> at(static_cast<I>(i), z.c, z.p, z.q);
    const Window<I> rows(at.row, z.h, z), columns(at.column, z.w, z);
    cuda::Pack<float, V> best;
    cuda::Pack<std::uint8_t, V> where;
    const auto corner = static_cast<std::uint8_t>((rows.begin - rows.start) * z.kernel + columns.begin - columns.start);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      best.v[k] = -INFINITY;
      where.v[k] = corner;
    }
    for (I h = rows.begin; h < rows.end; ++h) {
      for (I w = columns.begin; w < columns.end; ++w) {
        const auto from = cuda::load<V>(x + ((at.image * z.h + h) * z.w + w) * z.c + at.c);
        const auto position = static_cast<std::uint8_t>((h - rows.start) * z.kernel + w - columns.start);
#pragma unroll
        for (int k = 0; k < V; ++k) {
          const bool better = from.v[k] > best.v[k] || from.v[k] != from.v[k];
          where.v[k] = better ? position : where.v[k];
          best.v[k] = better ? from.v[k] : best.v[k];
        }
      }
    }
    cuda::store<V>(y + i * V, best);
    cuda::store<V>(argmax + i * V, where);
  }
}

// dx = the sum of dy over the windows that chose this place.
template <int V, class I> __global__ void __launch_bounds__(threads, resident<I>)
    max_pool2d_backward_kernel(const Sizes<I> z, std::int64_t count, const std::uint8_t* __restrict__ argmax,
                               const float* __restrict__ dy, float* __restrict__ dx) {
  for (std::int64_t i = cuda::first_index(); i < count; i += cuda::index_stride()) {
    const Place<V, I> at(static_cast<I>(i), z.c, z.h, z.w);
    const Seers<I> rows(at.row, z.p, z), columns(at.column, z.q, z);
    cuda::Pack<float, V> sum{};
    for (I p = rows.begin; p < rows.end; ++p) {
      for (I q = columns.begin; q < columns.end; ++q) {
        const I from = ((at.image * z.p + p) * z.q + q) * z.c + at.c;
        const auto grad = cuda::load<V>(dy + from);
        const auto where = cuda::load<V>(argmax + from);
        const I row = at.row - (p * z.stride - z.padding), column = at.column - (q * z.stride - z.padding);
        const auto position = static_cast<std::uint8_t>(row * z.kernel + column);
#pragma unroll
        for (int k = 0; k < V; ++k) sum.v[k] += where.v[k] == position ? grad.v[k] : 0.0f;
      }
    }
    cuda::store<V>(dx + i * V, sum);
  }
}

template <int V, class I> __global__ void __launch_bounds__(threads, resident<I>)
    avg_pool2d_forward_kernel(const Sizes<I> z, std::int64_t count, const float* __restrict__ x, float* __restrict__ y) {
  for (std::int64_t i = cuda::first_index(); i < count; i += cuda::index_stride()) {
    const Place<V, I> at(static_cast<I>(i), z.c, z.p, z.q);
    const Window<I> rows(at.row, z.h, z), columns(at.column, z.w, z);
    cuda::Pack<float, V> sum{};
    for (I h = rows.begin; h < rows.end; ++h) {
      for (I w = columns.begin; w < columns.end; ++w) {
        const auto from = cuda::load<V>(x + ((at.image * z.h + h) * z.w + w) * z.c + at.c);
#pragma unroll
        for (int k = 0; k < V; ++k) sum.v[k] += from.v[k];
      }
    }
    const float factor = mean_factor(rows, columns, z);
#pragma unroll
    for (int k = 0; k < V; ++k) sum.v[k] *= factor;
    cuda::store<V>(y + i * V, sum);
  }
}

template <int V, class I> __global__ void __launch_bounds__(threads, resident<I>)
    avg_pool2d_backward_kernel(const Sizes<I> z, std::int64_t count, const float* __restrict__ dy, float* __restrict__ dx) {
  for (std::int64_t i = cuda::first_index(); i < count; i += cuda::index_stride()) {
    const Place<V, I> at(static_cast<I>(i), z.c, z.h, z.w);
    const Seers<I> rows(at.row, z.p, z), columns(at.column, z.q, z);
    cuda::Pack<float, V> sum{};
    for (I p = rows.begin; p < rows.end; ++p) {
      for (I q = columns.begin; q < columns.end; ++q) {
        const float factor = mean_factor(Window<I>(p, z.h, z), Window<I>(q, z.w, z), z);
        const auto grad = cuda::load<V>(dy + ((at.image * z.p + p) * z.q + q) * z.c + at.c);
#pragma unroll
        for (int k = 0; k < V; ++k) sum.v[k] += factor * grad.v[k];
      }
    }
    cuda::store<V>(dx + i * V, sum);
  }
}

// Calls f(V, index of 0) with constants that suit the sizes.
template <class F> void specialise(const PoolSizes& z, const F& f) {
  const std::int64_t room = z.n * z.c * std::max(z.h * z.w, z.p * z.q) + z.stride + 2 * z.kernel;
  const auto choose = [&](auto v) {
    if (room < (std::int64_t{1} << 31)) return f(v, int{});
    return f(v, std::int64_t{});
  };
  if (z.c % 4 == 0) return choose(std::integral_constant<int, 4>{});
  return choose(std::integral_constant<int, 1>{});
}

}  // namespace

void max_pool2d_forward(Cuda, const PoolSizes& z, const float* x, float* y, std::uint8_t* argmax) {
  specialise(z, [&](auto v, auto index) {
    constexpr int V = decltype(v)::value;
    using I = decltype(index);
    const std::int64_t count = z.n * z.p * z.q * (z.c / V);
    cuda::launch(max_pool2d_forward_kernel<V, I>, cuda::loop_blocks(count, threads), threads, 0, Sizes<I>(z), count, x, y,
                 argmax);
  });
}

void max_pool2d_backward(Cuda, const PoolSizes& z, const std::uint8_t* argmax, const float* dy, float* dx) {
  specialise(z, [&](auto v, auto index) {
    constexpr int V = decltype(v)::value;
    using I = decltype(index);
    const std::int64_t count = z.n * z.h * z.w * (z.c / V);
    cuda::launch(max_pool2d_backward_kernel<V, I>, cuda::loop_blocks(count, threads), threads, 0, Sizes<I>(z), count, argmax,
                 dy, dx);
  });
}

void avg_pool2d_forward(Cuda, const PoolSizes& z, const float* x, float* y) {
  specialise(z, [&](auto v, auto index) {
    constexpr int V = decltype(v)::value;
    using I = decltype(index);
    const std::int64_t count = z.n * z.p * z.q * (z.c / V);
    cuda::launch(avg_pool2d_forward_kernel<V, I>, cuda::loop_blocks(count, threads), threads, 0, Sizes<I>(z), count, x, y);
  });
}

void avg_pool2d_backward(Cuda, const PoolSizes& z, const float* dy, float* dx) {
  specialise(z, [&](auto v, auto index) {
    constexpr int V = decltype(v)::value;
    using I = decltype(index);
    const std::int64_t count = z.n * z.h * z.w * (z.c / V);
    cuda::launch(avg_pool2d_backward_kernel<V, I>, cuda::loop_blocks(count, threads), threads, 0, Sizes<I>(z), count, dy, dx);
  });
}

}  // namespace shrike::kernels
