// The only file, with its .cpp, that knows which version of oneDNN this is. Convolutions and matrix products as cached
// primitives.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "scratch.hpp"

namespace shrike::onednn {

enum class Pass : std::int64_t { forward, backward_data, backward_weight };

// How a tensor lies in memory: as Shrike keeps it (NHWC, KRSC), or as oneDNN likes it best.
enum class Layout : std::int64_t { plain, any };

// One convolution; also the key of the cache.
struct Convolution {
  std::int64_t n, h, w, c, k, r, s, p, q, stride, padding, dilation, groups;
  Pass pass;
  bool bias, relu;  // of the forward pass; backward_weight computes a bias gradient with `bias`
  Layout x, weight, y;
  bool winograd = false;  // by oneDNN's own Winograd algorithm, where it has one, instead of directly
  friend auto operator<=>(const Convolution&, const Convolution&) = default;
};

// A ready primitive. The descriptions are of x (or dx), weight (or dweight), y (or dy).
struct Primitive {
  dnnl::primitive handle;
  dnnl::memory::desc x, weight, y, bias, scratchpad;
  dnnl::memory::desc plain_x, plain_weight, plain_y;  // of Shrike's layouts
  std::string implementation;                         // oneDNN's name for it
};

// From a bounded cache; least recently used ones are dropped. Thread-safe.
std::shared_ptr<const Primitive> primitive(const Convolution& key);

// Runs a primitive. Pointers not used are null. Throws Error with oneDNN's message.
void execute(const Convolution& key, const Primitive& primitive, const float* x, const float* weight, const float* bias,
             const float* y);

// y [m, n] = a * b, a being [m, k], or with transpose_a kept as [k, m], and b [k, n], or with transpose_b kept as [n, k].
void multiply(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
              const float* b, float* y);

// Copies between layouts.
void reorder(const dnnl::memory::desc& from, const float* source, const dnnl::memory::desc& to, float* target);

// "2.6.3"
std::string version();

}  // namespace shrike::onednn
