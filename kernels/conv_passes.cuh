// The three passes of a convolution as matrix products, and the candidates of each.
//
//            m             n          k            A                        B
//   fprop    n p q         k          (r, s, c)    x around output pixels   weight
//   dgrad    n h w         c          (r, s, k)    dy around input pixels   weight, its taps in turn
//   wgrad    k             (r, s, c)  n p q        dy                       x around output pixels
//
// dgrad with a stride: input row h meets tap r where (h + padding - r dilation) is a multiple of the stride, so which taps
// there are depends on h modulo the stride only. The pixels of each remainder are a product of their own, of just those taps,
// which steps through dy by stride 1: no multiplication by the zeros between dy's pixels.
#pragma once

#include <array>
#include <cstdint>
#include <numeric>
#include <optional>

#include "kernels/conv.hpp"
#include "kernels/conv_operands.cuh"
#include "kernels/conv_plan.hpp"
#include "kernels/gemm_fp32.cuh"
#include "kernels/gemm_tf32.cuh"

namespace shrike::kernels {

// Any size and any groups: one thread an output element.
void naive_conv(ConvPass pass, const Conv2dSizes& sizes, const ConvPointers& pointers);

namespace gemm {

inline bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

inline int narrow(std::int64_t value) { return static_cast<int>(value); }  // where fits() has seen to it

// Whether the tuned kernels' 32-bit indices and tap masks are enough. What is not is left to the naive kernel.
inline bool fits(const Conv2dSizes& z) {
  constexpr std::int64_t limit = 1 << 30;
  const auto below = [](std::initializer_list<std::int64_t> factors) {
    std::int64_t product = 1;
    for (const std::int64_t f : factors) {
      if (f > limit / std::max<std::int64_t>(product, 1)) return false;
      product *= f;
    }
    return true;
  };
  const std::int64_t high = z.h + 2 * z.padding, wide = z.w + 2 * z.padding;
  return z.groups == 1 && z.r <= 16 && z.s <= 15 && z.stride <= 4 && below({z.n, high, wide}) && below({high, wide, z.c}) &&
         below({high, wide, z.k}) && below({z.r, z.s, z.c}) && below({z.r, z.s, z.k}) && below({z.dilation, z.r, wide, z.c});
}

template <class ASource, class BSource> struct Problem {
  ASource a;
  BSource b;
  Product product;
  Epilogue epilogue;
  bool vector_a, vector_b;
};

inline Epilogue make_epilogue(const Product& product, float* out) {
  Epilogue epilogue{};
  epilogue.rows = narrow(product.m);
  epilogue.columns = narrow(product.n);
  epilogue.out = out;
  epilogue.vectors = product.n % 4 == 0 && aligned(out);
  return epilogue;
}

// x as output pixels meet it.
inline PixelMap input_map(const Conv2dSizes& z, const float* x) {
  const int origin = -narrow(z.padding), step = narrow(z.dilation);
  return {x,
          narrow(z.h),
          narrow(z.w),
          narrow(z.c),
          narrow(z.r),
          narrow(z.s),
          narrow(z.stride),
          origin,
          origin,
          step,
          step,
          Divisor(z.p),
          Divisor(z.q),
          narrow(z.n * z.p * z.q),
          narrow(z.r * z.s * z.c)};
}

struct Fprop {
  template <int Extent, int Depth, int Threads, bool Vector> using A = PixelRows<Extent, Depth, Threads, Vector>;
  template <int Extent, int Depth, int Threads, bool Vector> using B = MatrixRows<Extent, Depth, Threads, Vector>;
  static constexpr ConvPass pass = ConvPass::fprop;

  static Product product(const Conv2dSizes& z) { return {z.n * z.p * z.q, z.k, z.r * z.s * z.c}; }
  static bool vectors(const Conv2dSizes& z) { return z.c % 4 == 0; }

  template <class F> static void each(const Conv2dSizes& z, const ConvPointers& at, F f) {
    const Product sizes = product(z);
    Epilogue epilogue = make_epilogue(sizes, at.out);
    epilogue.bias = at.bias;
    epilogue.residual = at.residual;
    epilogue.relu = z.relu;
    f(Problem<PixelMap, Matrix>{input_map(z, at.x),
                                {at.weight, narrow(z.k), narrow(sizes.k)},
                                sizes,
                                epilogue,
                                vectors(z) && aligned(at.x),
                                vectors(z) && aligned(at.weight)});
  }
};

// The input rows (or columns) of one remainder, and the taps that meet them.
struct Remainder {
  std::int64_t count, first_tap, tap_step, taps, origin, step;

  Remainder(std::int64_t remainder, std::int64_t size, std::int64_t filter, const Conv2dSizes& z) {
    count = (size - remainder + z.stride - 1) / z.stride;
    tap_step = z.stride / std::gcd(z.stride, z.dilation);
    first_tap = 0;
    while (first_tap < filter && (remainder + z.padding - first_tap * z.dilation) % z.stride != 0) ++first_tap;
    taps = first_tap < filter ? (filter - 1 - first_tap) / tap_step + 1 : 0;
    origin = (remainder + z.padding - first_tap * z.dilation) / z.stride;
    step = -tap_step * z.dilation / z.stride;
  }
};

struct Dgrad {
  template <int Extent, int Depth, int Threads, bool Vector> using A = PixelRows<Extent, Depth, Threads, Vector>;
  template <int Extent, int Depth, int Threads, bool Vector> using B = TapColumns<Extent, Depth, Threads, Vector>;
  static constexpr ConvPass pass = ConvPass::dgrad;

  // Of all remainders together.
  static Product product(const Conv2dSizes& z) { return {z.n * z.h * z.w, z.c, z.r * z.s * z.k / (z.stride * z.stride)}; }
  static bool vectors(const Conv2dSizes& z) { return z.c % 4 == 0 && z.k % 4 == 0; }

  template <class F> static void each(const Conv2dSizes& z, const ConvPointers& at, F f) {
    for (std::int64_t i = 0; i < std::min(z.stride, z.h); ++i) {
      for (std::int64_t j = 0; j < std::min(z.stride, z.w); ++j) {
        const Remainder h(i, z.h, z.r, z), w(j, z.w, z.s, z);
        const std::int64_t taps = h.taps * w.taps;
        const int across = narrow(std::max<std::int64_t>(w.taps, 1));
        const Product sizes{z.n * h.count * w.count, z.c, taps * z.k};
        Epilogue epilogue = make_epilogue(sizes, at.out);
        epilogue.row_map = {z.stride == 1, Divisor(h.count), Divisor(w.count), narrow(z.h),
                            narrow(z.w),   narrow(z.stride), narrow(i),        narrow(j)};
        const PixelMap a{at.dy,
                         narrow(z.p),
                         narrow(z.q),
                         narrow(z.k),
                         narrow(h.taps),
                         across,
                         1,
                         narrow(h.origin),
                         narrow(w.origin),
                         narrow(h.step),
                         narrow(w.step),
                         Divisor(h.count),
                         Divisor(w.count),
                         narrow(sizes.m),
                         narrow(sizes.k)};
        const TapMap b{at.weight,
                       across,
                       Divisor(z.k),
                       Divisor(across),
                       narrow((h.first_tap * z.s + w.first_tap) * z.c),
                       narrow(h.tap_step * z.s * z.c),
                       narrow(w.tap_step * z.c),
                       narrow(z.r * z.s * z.c),
                       narrow(z.c),
                       narrow(sizes.k)};
        f(Problem<PixelMap, TapMap>{a, b, sizes, epilogue, vectors(z) && aligned(at.dy), vectors(z) && aligned(at.weight)});
      }
    }
  }
};

struct Wgrad {
  template <int Extent, int Depth, int Threads, bool Vector> using A = MatrixColumns<Extent, Depth, Threads, Vector>;
  template <int Extent, int Depth, int Threads, bool Vector> using B = PixelColumns<Extent, Depth, Threads, Vector>;
  static constexpr ConvPass pass = ConvPass::wgrad;

  static Product product(const Conv2dSizes& z) { return {z.k, z.r * z.s * z.c, z.n * z.p * z.q}; }
  static bool vectors(const Conv2dSizes& z) { return z.c % 4 == 0 && z.k % 4 == 0; }

  template <class F> static void each(const Conv2dSizes& z, const ConvPointers& at, F f) {
    const Product sizes = product(z);
    f(Problem<Matrix, PixelMap>{{at.dy, narrow(sizes.k), narrow(z.k)},
                                input_map(z, at.x),
                                sizes,
                                make_epilogue(sizes, at.out),
                                z.k % 4 == 0 && aligned(at.dy),
                                z.c % 4 == 0 && aligned(at.x)});
  }
};

// Clocks of a turn: of the tensor cores by mma.sync, or of shared memory, whichever is longer; of FFMA at 0.85 of its rate.
template <class Tile, bool Tf32> constexpr TileModel tile_model() {
  if constexpr (Tf32) {
    constexpr double products = Tile::m * Tile::n * 32 / 640.0;
    constexpr double warps = Tile::threads / 32;
    constexpr double shared = (warps * (Tile::warp_m + Tile::warp_n) + Tile::m + Tile::n) * 32 * 4 / 128.0;
    return {Tile::m, Tile::n, 32, products > shared ? products : shared};
  } else {
    constexpr double share = Tile::m == 128 ? 0.85 : 0.6;
    return {Tile::m, Tile::n, Tile::depth, Tile::m * Tile::n * Tile::depth / (128.0 * share)};
  }
}

template <class Pass, class Tile, bool Tf32, bool VectorA, bool VectorB, class P> void launch_product(P problem) {
  using A = typename Pass::template A<Tile::m, Tile::depth, Tile::threads, VectorA>;
  using B = typename Pass::template B<Tile::n, Tile::depth, Tile::threads, VectorB>;
  const auto [m, n, k] = problem.product;
  if (m == 0 || n == 0) return;
  const std::int64_t turns = (k + Tile::depth - 1) / Tile::depth;
  int splits = plan(problem.product, tile_model<Tile, Tf32>(), cuda::properties()).splits;
  const std::int64_t per_split = std::max<std::int64_t>((turns + splits - 1) / splits, 1);
  splits = static_cast<int>(std::max<std::int64_t>((turns + per_split - 1) / per_split, 1));
  std::optional<cuda::Scratch> partial;
  if (splits > 1) {
    partial.emplace(static_cast<std::size_t>(splits * m * n) * sizeof(float));
    problem.epilogue.partial = partial->data<float>();
  }
  const auto tiles_n = static_cast<unsigned>((n + Tile::n - 1) / Tile::n);
  const dim3 grid(static_cast<unsigned>((m + Tile::m - 1) / Tile::m) * tiles_n, 1, static_cast<unsigned>(splits));
  const Sizes sizes{narrow(k), static_cast<int>(tiles_n), narrow(per_split)};
  if constexpr (Tf32) {
    cuda::launch(gemm_tf32_kernel<Tile, A, B>, grid, Tile::threads, tensor_shared_bytes<Tile, A, B>(), problem.a, problem.b,
                 sizes, problem.epilogue);
  } else {
    cuda::launch(gemm_fp32_kernel<Tile, A, B>, grid, Tile::threads, float_shared_bytes<Tile, A, B>(), problem.a, problem.b,
                 sizes, problem.epilogue);
  }
  if (splits > 1) sum_splits(splits, problem.epilogue);
}

// By single elements there is one shape of tile for each precision: such maps are small, or narrow like an image.
template <bool Tf32> struct Ragged { using Tile = FloatTile<64, 64, 16, 2>; };
template <> struct Ragged<true> { using Tile = TensorTile<128, 64, 64, 32, 3, 2>; };

template <class Pass, class Tile, bool Tf32> void run_tile(const Conv2dSizes& sizes, const ConvPointers& pointers) {
  Pass::each(sizes, pointers, [](const auto& problem) {
    using Single = typename Ragged<Tf32>::Tile;
    if (problem.vector_a && problem.vector_b) {
      launch_product<Pass, Tile, Tf32, true, true>(problem);
    } else if (Pass::pass == ConvPass::wgrad && problem.vector_a) {  // an image's few channels, but many filters
      if constexpr (Pass::pass == ConvPass::wgrad) launch_product<Pass, Single, Tf32, true, false>(problem);
    } else {
      launch_product<Pass, Single, Tf32, false, false>(problem);
    }
  });
}

template <class Pass, class Tile, bool Tf32> bool supported(const Conv2dSizes& sizes, const cuda::Properties& device) {
  if (!fits(sizes)) return false;
  if (!Pass::vectors(sizes) && !std::is_same_v<Tile, typename Ragged<Tf32>::Tile>) return false;
  if constexpr (Tf32) {
    constexpr std::size_t bytes = tensor_shared_bytes<Tile, typename Pass::template A<Tile::m, 32, Tile::threads, true>,
                                                      typename Pass::template B<Tile::n, 32, Tile::threads, true>>();
    return device.compute_capability >= 80 && bytes <= device.shared_per_block_optin;
  }
  return true;
}

template <class Pass, class Tile, bool Tf32> double predict(const Conv2dSizes& sizes, const cuda::Properties& device) {
  return plan(Pass::product(sizes), tile_model<Tile, Tf32>(), device).seconds;
}

template <class Pass> void run_naive(const Conv2dSizes& sizes, const ConvPointers& pointers) {
  naive_conv(Pass::pass, sizes, pointers);
}

inline bool always(const Conv2dSizes&, const cuda::Properties&) { return true; }
inline double last(const Conv2dSizes&, const cuda::Properties&) { return 1e9; }

template <class Pass, class Tile, bool Tf32> constexpr ConvCandidate candidate(const char* name) {
  return {name, Tf32, supported<Pass, Tile, Tf32>, predict<Pass, Tile, Tf32>, run_tile<Pass, Tile, Tf32>};
}

// Tiles, warps' parts, stages, blocks meant to share a multiprocessor. 256 x 128 reads least of shared memory and of L2; the
// smaller ones are for few filters, small maps and devices with 100 KiB of shared memory. wgrad in fp32 needs more registers
// than two blocks leave each other.
template <class Pass> inline constexpr std::array<ConvCandidate, 7> candidates = {
    candidate<Pass, TensorTile<256, 128, 64, 64, 3, 1>, true>("tf32_256x128"),
    candidate<Pass, TensorTile<128, 128, 64, 64, 3, 2>, true>("tf32_128x128"),
    candidate<Pass, TensorTile<128, 64, 64, 32, 3, 2>, true>("tf32_128x64"),
    candidate<Pass, TensorTile<64, 64, 32, 32, 3, 4>, true>("tf32_64x64"),
    candidate<Pass, FloatTile<128, 128, 8, Pass::pass == ConvPass::wgrad ? 1 : 2>, false>("fp32_128x128"),
    candidate<Pass, FloatTile<64, 64, 16, 2>, false>("fp32_64x64"),
    ConvCandidate{"naive", false, always, last, run_naive<Pass>}};

}  // namespace gemm
}  // namespace shrike::kernels
