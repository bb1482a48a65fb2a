// The left operand of products whose elements are bytes or pairs of them, and how K is shared out.
#pragma once

#include <optional>

#include "kernels/cuda.hpp"
#include "shrike/ops/conv.hpp"

namespace shrike::kernels::tiles {

constexpr int depth = 64;  // bytes along K a turn

// A, in bytes: row m is output pixel m, column k = (tap, byte of the channels); found in a feature map while it is loaded, 0
// outside of it.
struct ByteMap {
  const std::uint8_t* data;     // [images, height, width, channels]
  int height, width, channels;  // bytes of a pixel
  int taps_w;
  int stride, padding, dilation;
  int rows, columns;  // of output pixels in an image
  int pixels;         // in all images
  int length;         // taps * channels
};

// Of x [n, h, w, c], whose elements are `element` bytes.
inline ByteMap byte_map(const char* what, const Conv2dSizes& z, const void* x, std::int64_t element) {
  constexpr std::int64_t most = std::int64_t{1} << 31;
  SHRIKE_CHECK(z.n * z.h * z.w < most && z.n * z.p * z.q < most && z.k < most && z.r * z.s * z.c * element < most, what, " of ",
               z.n * z.p * z.q, " output and ", z.n * z.h * z.w, " input pixels, ", z.r * z.s * z.c,
               " products each: fewer than 2^31 are supported");
  const auto narrow = [](std::int64_t value) { return static_cast<int>(value); };
  return {static_cast<const std::uint8_t*>(x),
          narrow(z.h),
          narrow(z.w),
          narrow(z.c * element),
          narrow(z.s),
          narrow(z.stride),
          narrow(z.padding),
          narrow(z.dilation),
          narrow(z.p),
          narrow(z.q),
          narrow(z.n * z.p * z.q),
          narrow(z.r * z.s * z.c * element)};
}

// run(p) with K in at most `splits` parts, none of them empty; with more than one, each leaves its sums in p.partial, and
// add(p) adds them up.
template <class P, class Run, class Add> void in_parts(P p, int splits, const Run& run, const Add& add) {
  const int all = (p.map.length + depth - 1) / depth;
  p.turns = (all + splits - 1) / std::max(splits, 1);
  p.splits = p.turns > 0 ? (all + p.turns - 1) / p.turns : 1;
  std::optional<cuda::Scratch> partial;
  if (p.splits > 1) {
    using Sum = std::remove_pointer_t<decltype(p.partial)>;
    partial.emplace(static_cast<std::size_t>(p.splits) * static_cast<std::size_t>(p.map.pixels) *
                    static_cast<std::size_t>(p.filters) * sizeof(Sum));
    p.partial = partial->template data<Sum>();
  }
  run(p);
  if (p.splits > 1) add(p);
}

}  // namespace shrike::kernels::tiles
