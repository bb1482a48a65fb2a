// A map's pixels as rows of a matrix, for convolutions by products.
#pragma once

#include "../gemm/gemm.hpp"

namespace shrike::cpu {

// Row (image, i, j) of an output map [n, p, q] is what tap (a, b) of a window meets, a < r, b < s: pixel (i stride + top + a
// dilation, j stride + left + b dilation) of x, zero outside of it, as [r, s, channels]. Where `mask`, laid out as x, is not
// null, x counts only where it is positive.
struct PixelRows : LeftOperand {
  const float* x = nullptr;
  const float* mask = nullptr;
  std::int64_t n, h, w, c;             // of x
  std::int64_t channel = 0, channels;  // that count
  std::int64_t r, s, stride, dilation, top, left;
  std::int64_t p, q;

  Located rows(std::int64_t first, std::int64_t count, std::int64_t k0, std::int64_t k1, float* to) const override;
  bool in_place() const override;
  std::int64_t piece() const override { return side_by_side() && r > 1 ? s * channels : 0; }
  void runs(std::int64_t first, std::int64_t count, std::int64_t k0, std::int64_t k1, std::int64_t tile, float* to,
            std::vector<Run>& result) const override;

 private:
  bool side_by_side() const { return channels == c && dilation == 1; }  // whether all taps of a line are neighbours in x
  bool inside(std::int64_t line, std::int64_t begin, std::int64_t end) const;
  void pixel(std::int64_t number, std::int64_t k0, std::int64_t k1, float* to) const;
  void copy(const float* from, std::int64_t count, float* to) const;
};

}  // namespace shrike::cpu
