// Layers of halves in double, and random halves to try them on.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "reference.hpp"
#include "shrike/ops/half.hpp"

namespace halves {

using namespace shrike;

inline Tensor random_halves(const Shape& shape, Random& random) { return narrow(reference::random_tensor(shape, random)); }
inline Tensor random_integers(const Shape& shape, Random& random, int limit = 3) {
  return narrow(reference::random_integers(shape, random, limit));
}

inline bool same(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

struct Case {
  std::int64_t n, h, w, c, k, r, s;
  Conv2dOptions options;
};
inline const std::vector<Case> cases = {
    {1, 5, 7, 3, 16, 3, 3, {.padding = 1}},
    {2, 9, 6, 16, 33, 3, 3, {.padding = 1}},
    {1, 6, 5, 37, 70, 3, 3, {.padding = 1}},
    {1, 7, 4, 24, 8, 3, 3, {.padding = 1}},
    {1, 1, 1, 5, 7, 1, 1, {}},
    {1, 1, 1, 8, 9, 3, 3, {.padding = 1}},
    {1, 10, 13, 64, 130, 3, 3, {.padding = 1}},  // more than one tile each way, 18 turns along K
    {1, 9, 8, 6, 5, 3, 2, {.stride = 2, .padding = 1}},
    {1, 12, 11, 8, 17, 3, 3, {.stride = 3, .padding = 2, .dilation = 2}},
    {2, 6, 5, 12, 9, 3, 3, {.padding = 1, .groups = 3}},
    {0, 6, 5, 4, 4, 3, 3, {}},
};

inline HalfConv2d conv_op(const Case& z, const char* output, bool relu) {
  HalfConv2d op;
  op.set(z.options);
  op.relu = relu;
  op.output = output;
  return op;
}

// What a layer should give, and the sum of the magnitudes of what is added up, both exact in double to 2^-50 or so.
struct Exact {
  std::vector<double> y, reach;
};

inline std::vector<double> doubles(const Tensor& tensor) {
  return reference::doubles(tensor.dtype() == Dtype::f16 ? widen(tensor) : tensor);
}

// in: x, weight, bias, residual; the last two may be undefined or missing. x [N, H, W, C], weight [K, R, S, C / groups].
inline Exact exact(const Tensors& in, const Conv2dOptions& o, bool relu) {
  Conv2d conv;
  conv.set(o);
  const auto z = conv.sizes(in[0].shape(), in[1].shape());
  const auto x = doubles(in[0]), weight = doubles(in[1]);
  const auto operand = [&](std::size_t i) { return in.size() > i && in[i].defined() ? doubles(in[i]) : std::vector<double>(); };
  const auto bias = operand(2), residual = operand(3);
  const std::int64_t c = z.c / o.groups, per_group = z.k / o.groups;
  Exact result;
  for (std::int64_t i = 0; i < z.n * z.p * z.q * z.k; ++i) {
    const std::int64_t k = i % z.k, q = i / z.k % z.q, p = i / z.k / z.q % z.p, n = i / z.k / z.q / z.p;
    double sum = 0, reach = 0;
    const auto add = [&](double value) { sum += value, reach += std::abs(value); };
    for (std::int64_t r = 0; r < z.r; ++r)
      for (std::int64_t s = 0; s < z.s; ++s) {
        const std::int64_t h = p * o.stride - o.padding + r * o.dilation, w = q * o.stride - o.padding + s * o.dilation;
        if (h < 0 || w < 0 || h >= z.h || w >= z.w) continue;
        for (std::int64_t e = 0; e < c; ++e) {
          add(x[static_cast<std::size_t>(((n * z.h + h) * z.w + w) * z.c + k / per_group * c + e)] *
              weight[static_cast<std::size_t>(((k * z.r + r) * z.s + s) * c + e)]);
        }
      }
    if (!bias.empty()) add(bias[static_cast<std::size_t>(k)]);
    if (!residual.empty()) add(residual[static_cast<std::size_t>(i)]);
    result.y.push_back(relu ? std::max(sum, 0.0) : sum);
    result.reach.push_back(reach);
  }
  return result;
}

// Products of halves are exact in float32. Adding up `terms` of them makes an error below terms * 2^-24 of what they reach, and
// twice that where a tensor core cuts digits off instead of rounding. A half is off by half a unit in its last place.
inline void check_close(const Tensor& y, const Exact& expected, std::int64_t terms) {
  REQUIRE(y.numel() == static_cast<std::int64_t>(expected.y.size()));
  const auto got = doubles(y);
  for (std::size_t i = 0; i < got.size(); ++i) {
    double right = expected.y[i], allowed = static_cast<double>(terms + 2) * 0x1p-23 * expected.reach[i];
    if (y.dtype() == Dtype::f16) {
      right = std::clamp(right, -65504.0, 65504.0);
      allowed += std::max((std::abs(right) + allowed) * 0x1p-11, 0x1p-25);
    }
    INFO("element " << i << ": " << got[i] << ", exactly " << right << ", allowed " << allowed);
    REQUIRE(std::abs(got[i] - right) <= allowed);
  }
}

}  // namespace halves
