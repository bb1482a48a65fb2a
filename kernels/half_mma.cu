// Products of halves on tensor cores: mma.sync m16n8k16 from sm_80, and m16n8k8 on sm_75, two of which take the same fragments.
// Fragments: kernels/mma.hpp.
//
// In bytes everything is as in kernels/int8_mma.cu, the copies, the loads and the shared memory; a turn is 32 halves and the
// tensor cores do half as many products a clock, so that again mma is the bound: 427 clocks for a turn of a 128 x 128 tile at
// 0.6 of an H100's 2,048 multiply-adds, against 384 of shared memory.
#include "kernels/half.cuh"
#include "kernels/tiles_mma.cuh"

namespace shrike::kernels::half {
namespace {

struct Mma16 {
  using Sum = float;
  __device__ __forceinline__ static void add(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    cuda::mma_m16n8k16_f16(d, a, b);
  }
};

struct Mma8 {
  using Sum = float;
  __device__ __forceinline__ static void add(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const unsigned first[2] = {a[0], a[1]}, second[2] = {a[2], a[3]};
    cuda::mma_m16n8k8_f16(d, first, b[0]);
    cuda::mma_m16n8k8_f16(d, second, b[1]);
  }
};

template <class Multiply, int Stages, bool Wide, bool Async>
__global__ void __launch_bounds__(Multiply::threads, Multiply::blocks) half_kernel(Product p, int tiles_n) {
  tiles::multiply_tile<Multiply, Stages, Wide, Async>(p, tiles_n);
}

template <class Multiply, int Stages, bool Async> void launch_tiles(const Product& p) {
  tiles::launch<Multiply, Stages>(half_kernel<Multiply, Stages, true, Async>, half_kernel<Multiply, Stages, false, Async>, p);
}

}  // namespace

void multiply_tensor16(const Product& p, int tile) {
  if (tile == 128) return launch_tiles<tiles::Fragments32<128, 128, 64, 64, Mma16>, 3, true>(p);
  launch_tiles<tiles::Fragments32<64, 64, 32, 32, Mma16>, 4, true>(p);
}

void multiply_tensor8(const Product& p, int tile) {
  if (tile == 128) return launch_tiles<tiles::Fragments32<128, 128, 64, 32, Mma8>, 2, false>(p);
  launch_tiles<tiles::Fragments32<64, 64, 32, 32, Mma8>, 2, false>(p);
}

}  // namespace shrike::kernels::half
