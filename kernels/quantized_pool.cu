// Max pooling of codes and of halves. Thread i owns 16 bytes of neighbouring channels (1 channel where they do not allow it) of
// outputs i, i + threads of the grid, ...; y is written `=`. Each element is read as often as windows hold it, mostly from
// cache; 2 x 2 windows with stride 2 read 4 elements and write 1 for each output: bandwidth is the bound.
#include "kernels/pooled.cuh"
#include "shrike/ops/pool.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;

// V elements of type T; the widest vector is 16 bytes.
template <class T, int V> struct __align__(V * sizeof(T)) Codes { T v[V]; };

template <class T, int V>
__global__ void quantized_max_pool2d_kernel(PoolSizes z, std::int64_t outputs, const T* __restrict__ x, T* __restrict__ y) {
  using Vector = Codes<T, V>;
  const std::int64_t vectors = z.c / V;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < outputs; i += step) {
    const std::int64_t c = i % vectors * V, q = i / vectors % z.q, p = i / vectors / z.q % z.p, n = i / vectors / z.q / z.p;
    const std::int64_t top = p * z.stride - z.padding, left = q * z.stride - z.padding;
    const std::int64_t bottom = top + z.kernel < z.h ? top + z.kernel : z.h;
    const std::int64_t right = left + z.kernel < z.w ? left + z.kernel : z.w;
    Vector best{};
    bool first = true;
    for (std::int64_t h = top < 0 ? 0 : top; h < bottom; ++h) {
      for (std::int64_t w = left < 0 ? 0 : left; w < right; ++w, first = false) {
        const Vector codes = *reinterpret_cast<const Vector*>(x + ((n * z.h + h) * z.w + w) * z.c + c);
#pragma unroll
        for (int k = 0; k < V; ++k) best.v[k] = first || is_greater(codes.v[k], best.v[k]) ? codes.v[k] : best.v[k];
      }
    }
    *reinterpret_cast<Vector*>(y + ((n * z.p + p) * z.q + q) * z.c + c) = best;
  }
}

template <class T> void max_pool(const PoolSizes& z, const void* x, void* y) {
  const std::int64_t all = z.n * z.p * z.q * z.c;
  if (all == 0) return;
  constexpr int in_16 = 16 / sizeof(T);
  const bool wide = z.c % in_16 == 0 && (reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y)) % 16 == 0;
  const std::int64_t outputs = wide ? all / in_16 : all;
  const unsigned blocks = std::min(cuda::blocks_for(outputs, threads), 65536u);
  cuda::launch(wide ? quantized_max_pool2d_kernel<T, in_16> : quantized_max_pool2d_kernel<T, 1>, blocks, threads, 0, z, outputs,
               static_cast<const T*>(x), static_cast<T*>(y));
}

}  // namespace

void quantized_max_pool2d_forward(Cuda, const PoolSizes& z, Dtype dtype, const void* x, void* y) {
  with_element(dtype, [&](auto element) { max_pool<decltype(element)>(z, x, y); });
}

}  // namespace shrike::kernels
