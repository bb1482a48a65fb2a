// After Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), with the points 0, +-1, +-2 and infinity,
// in integers modulo 2^32:
//   y = A^T [(G g G^T) * (B^T d B)] A      d: 6x6 input, g: 3x3 weights, y: 4x4 output, * by element
// B and A hold integers. The rows of G are (1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (1, -2, 4) and (0, 0, 1), divided by 4,
// -6, -6, 24, 24 and 1. We leave the divisions out, so that transformed weights are whole and at most 49 * 128, and multiply
// what comes out by 24 / (4, -6, -6, 24, 24, 1) = (6, -4, -4, 1, 1, 24) along each axis: the result is 576 y. Transformed
// inputs are at most 100 * 255. Both fit in 16 bits. 576 is 64 * 9, and 9 has an inverse modulo 2^32: times that, 64 y is left,
// and a shift by 6 gives y, provided that -2^25 <= y < 2^25, which the weights decide. The sums of a transformed input and a
// transformed weight, at most 31772, fit in 16 bits too, so the products are made by pairs (int8_kernels.hpp): what the inputs'
// products among themselves add is a number for each point of a tile, goes through A^T . A like the rest, and is subtracted
// there.
#include "int8_winograd.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "onednn.hpp"
#include "shrike/core/parallel.hpp"
#include "winograd_tiles.hpp"

namespace shrike::int8::winograd {
namespace {

using onednn::Scratch;
using shrike::winograd::Tiles;

#if defined(__AVX512BW__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif
constexpr int points = 36, chunk = vector_bytes / 2, group = vector_bytes / 4;  // words and sums of a vector
typedef std::uint8_t Bytes __attribute__((vector_size(chunk)));
typedef std::int8_t SignedBytes __attribute__((vector_size(chunk)));
typedef std::int16_t Words __attribute__((vector_size(vector_bytes)));
typedef std::uint32_t Sums __attribute__((vector_size(vector_bytes)));
typedef std::int32_t SignedSums __attribute__((vector_size(vector_bytes)));
typedef std::uint64_t Pairs __attribute__((vector_size(vector_bytes)));
constexpr std::uint32_t ninth = 954437177;  // 9 * ninth = 1 modulo 2^32
static_assert(9 * ninth == 1);

template <class V> V load_as(const void* from) {
  V value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <class Code> Words load_codes(const std::uint8_t* from) { return __builtin_convertvector(load_as<Code>(from), Words); }

// Each transforms a line: in[i * S] to out[i * T].
template <int S, int T> void input_line(const Words* in, Words* out) {  // B^T
  const Words d1 = in[S], d2 = in[2 * S], d3 = in[3 * S], d4 = in[4 * S];
  const Words even_1 = d4 - 4 * d2, odd_1 = d3 - 4 * d1, even_2 = d4 - d2, odd_2 = 2 * (d3 - d1);
  out[0] = 4 * in[0] - 5 * d2 + d4;
  out[T] = even_1 + odd_1;
  out[2 * T] = even_1 - odd_1;
  out[3 * T] = even_2 + odd_2;
  out[4 * T] = even_2 - odd_2;
  out[5 * T] = 4 * d1 - 5 * d3 + in[5 * S];
}

template <int S, int T> void weight_line(const Words* in, Words* out) {  // G without its divisions
  const Words g0 = in[0], g1 = in[S], g2 = in[2 * S];
  const Words even_1 = g0 + g2, even_2 = g0 + 4 * g2;
  out[0] = g0;
  out[T] = even_1 + g1;
  out[2 * T] = even_1 - g1;
  out[3 * T] = even_2 + 2 * g1;
  out[4 * T] = even_2 - 2 * g1;
  out[5 * T] = g2;
}

// Dword i: (words 2i, 2i + 1) . (words 2j, 2j + 1), where j is i's neighbour; each product is there twice.
Sums pair_products(const Words& v) {
  const auto pairs = reinterpret_cast<Pairs>(v);
  const auto own = reinterpret_cast<SignedSums>(v), other = reinterpret_cast<SignedSums>((pairs << 32) | (pairs >> 32));
#if defined(__AVX512BW__)
  return reinterpret_cast<Sums>(_mm512_madd_epi16(reinterpret_cast<__m512i>(own), reinterpret_cast<__m512i>(other)));
#elif defined(__AVX2__)
  return reinterpret_cast<Sums>(_mm256_madd_epi16(reinterpret_cast<__m256i>(own), reinterpret_cast<__m256i>(other)));
#else
  return reinterpret_cast<Sums>(((own << 16) >> 16) * ((other << 16) >> 16) + (own >> 16) * (other >> 16));
#endif
}

// The sum of what pair_products() and sums of it hold.
std::uint32_t sum_of_pairs(const Sums& products) {
  std::uint32_t sum = 0;
  for (int i = 0; i < group; i += 2) sum += products[i];
  return sum;
}

template <int S, int T> void output_line(const Sums* in, Sums* out) {  // A^T times the scales
  const Sums even_1 = (in[S] + in[2 * S]) << 2, odd_1 = (in[S] - in[2 * S]) << 2;
  const Sums even_2 = in[3 * S] + in[4 * S], odd_2 = in[3 * S] - in[4 * S];
  out[0] = (in[0] << 2) + (in[0] << 1) - even_1 + even_2;
  out[T] = (odd_2 << 1) - odd_1;
  out[2 * T] = (even_2 << 2) - even_1;
  out[3 * T] = (odd_2 << 3) - odd_1 + (in[5 * S] << 4) + (in[5 * S] << 3);
}

Scratch bytes(std::int64_t count) { return Scratch(static_cast<std::size_t>(count)); }

std::int64_t panel_bytes(const Packing& how) { return how.channels / 2 * how.isa->panel * 4; }

// The weights of one panel as [point][step][column][2 words], and what the sums of [point][column] begin with.
void pack_panel(const Packing& how, std::int64_t panel, const std::int8_t* weight, char* u, std::int32_t* start) {
  const std::int64_t width = how.isa->panel, c = how.channels, used = std::min<std::int64_t>(width, how.k - panel * width);
  if (used < width) std::memset(u, 0, static_cast<std::size_t>(points * panel_bytes(how)));
  std::fill_n(start, points * width, 0);
  for (std::int64_t column = 0; column < used; ++column) {
    const std::int8_t* from = weight + (panel * width + column) * 9 * c;
    for (std::int64_t i = 0; i < c; i += chunk) {
      Words g[9], half[18], result[6];
      for (int tap = 0; tap < 9; ++tap) g[tap] = __builtin_convertvector(load_as<SignedBytes>(from + tap * c + i), Words);
      for (int s = 0; s < 3; ++s) weight_line<3, 3>(g + s, half + s);
      for (int r = 0; r < 6; ++r) {
        weight_line<1, 1>(half + 3 * r, result);
        for (int s = 0; s < 6; ++s) {
          char* to = u + (6 * r + s) * panel_bytes(how) + (i / 2 * width + column) * 4;
          const char* pairs = reinterpret_cast<const char*>(result + s);
          for (int pair = 0; pair < chunk / 2; ++pair) std::memcpy(to + pair * width * 4, pairs + 4 * pair, 4);
          auto& sum = start[(6 * r + s) * width + column];
          sum = static_cast<std::int32_t>(static_cast<std::uint32_t>(sum) - sum_of_pairs(pair_products(result[s])));
        }
      }
    }
  }
}

struct Job {
  const Packed& packed;
  const Kernels& isa;
  const Finish& how;
  const kernels::Conv2dSizes& z;
  const kernels::QuantizedOperands& o;
  Tiles in, out;

  std::int64_t v_row() const { return z.c * 2 + 64; }  // bytes; apart, so that points do not share a cache's sets

  template <class Code>
  void transform_input(std::int64_t tile, const std::uint8_t* zeros, char* v, std::int64_t stride, std::uint32_t* excess) const;
  void transform_back(std::int64_t tile, std::int64_t panel, const std::int32_t* m, std::int64_t stride,
                      const std::uint32_t* excess) const;
  void run(std::int64_t first, std::int64_t count, const std::uint8_t* zeros, char* v, std::int32_t* m) const;
};

// B^T d B of one tile; points are `stride` bytes apart. excess [16]: A^T P A, where P are the products of the inputs by pairs.
template <class Code> void Job::transform_input(std::int64_t tile, const std::uint8_t* zeros, char* v, std::int64_t stride,
                                                std::uint32_t* excess) const {
  const std::uint8_t* pixels[points];
  in.pixels<6>(tile, -z.padding, static_cast<const std::uint8_t*>(o.x), zeros, pixels);
  Sums products[points] = {};
  for (std::int64_t c = 0; c < z.c; c += chunk) {
    Words line[6], half[points], result[6];
    for (int j = 0; j < 6; ++j) {
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) line[i] = load_codes<Code>(pixels[6 * i + j] + c);
      input_line<1, 6>(line, half + j);
    }
    for (int i = 0; i < 6; ++i) {
      input_line<1, 1>(half + 6 * i, result);
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) {
        std::memcpy(v + (6 * i + j) * stride + c * 2, result + j, sizeof(Words));
        products[6 * i + j] += pair_products(result[j]);
      }
    }
  }
  Sums half[24], result[4];
  for (int j = 0; j < 6; ++j) output_line<6, 6>(products + j, half + j);
  for (int i = 0; i < 4; ++i) {
    output_line<1, 1>(half + 6 * i, result);
    for (int j = 0; j < 4; ++j) excess[4 * i + j] = sum_of_pairs(result[j]);
  }
}

// From the 36 sums of a tile, m [point][panel] at `stride`, to y.
void Job::transform_back(std::int64_t tile, std::int64_t panel, const std::int32_t* m, std::int64_t stride,
                         const std::uint32_t* excess) const {
  alignas(64) std::int32_t acc[16][64];
  const std::int64_t k = panel * isa.panel, used = std::min<std::int64_t>(isa.panel, z.k - k);
  for (std::int64_t c = 0; c < used; c += group) {
    Sums line[6], half[24], result[4];
    for (int j = 0; j < 6; ++j) {
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) line[i] = load_as<Sums>(m + (6 * i + j) * stride + c);
      output_line<1, 6>(line, half + j);
    }
    const auto bias = load_as<SignedSums>(o.bias + k + c);
    for (int i = 0; i < 4; ++i) {
      output_line<1, 1>(half + 6 * i, result);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const auto sum = reinterpret_cast<SignedSums>((result[j] - excess[4 * i + j]) * ninth);  // 64 y
        const SignedSums y = (sum >> 6) + bias;
        std::memcpy(&acc[4 * i + j][c], &y, sizeof(y));
      }
    }
  }
  const std::int64_t tx = tile % out.columns, ty = tile / out.columns % out.rows, image = tile / out.columns / out.rows;
  const std::int64_t y_size = how.y_type == 2 ? 4 : 1;
  for (std::int64_t i = 0; i < 16; ++i) {
    const std::int64_t p = 4 * ty + i / 4, q = 4 * tx + i % 4;
    if (p >= z.p || q >= z.q) continue;
    const std::int64_t at = ((image * z.p + p) * z.q + q) * z.k + k;
    isa.finish(how, used, acc[i], 0, o.multiplier + k,
               o.residual != nullptr ? static_cast<const char*>(o.residual) + at : nullptr,
               static_cast<char*>(o.y) + at * y_size);
  }
}

// One block of tiles: transform, then for each panel 36 products and the transform back.
void Job::run(std::int64_t first, std::int64_t count, const std::uint8_t* zeros, char* v, std::int32_t* m) const {
  const std::int64_t v_stride = count * v_row() + 64, m_stride = count * isa.panel + 16;
  auto* const excess = reinterpret_cast<std::uint32_t*>(m + points * m_stride);
  for (std::int64_t t = 0; t < count; ++t) {
    if (packed.how.x == Dtype::u8) {
      transform_input<Bytes>(first + t, zeros, v + t * v_row(), v_stride, excess + 16 * t);
    } else {
      transform_input<SignedBytes>(first + t, zeros, v + t * v_row(), v_stride, excess + 16 * t);
    }
  }
  const char* u = reinterpret_cast<const char*>(packed.memory.data());
  const auto* start = reinterpret_cast<const std::int32_t*>(packed.starts.data());
  for (std::int64_t panel = 0; panel < packed.how.panels(); ++panel) {
    for (int point = 0; point < points; ++point, u += panel_bytes(packed.how), start += isa.panel) {
      isa.multiply_pairs(count, z.c / 2, v + point * v_stride, v_row(), u, start, 0, m + point * m_stride);
    }
    for (std::int64_t t = 0; t < count; ++t) transform_back(first + t, panel, m + t * isa.panel, m_stride, excess + 16 * t);
  }
}

}  // namespace

bool fits(const Kernels& isa, const kernels::Conv2dSizes& z) {
  return isa.multiply_pairs != nullptr && z.r == 3 && z.s == 3 && z.stride == 1 && z.dilation == 1 && z.groups == 1 &&
         z.padding <= 2 && z.c % chunk == 0 && z.k % group == 0;
}

bool exact(const Packing& how, const std::int8_t* weight) {
  std::atomic<bool> result = true;
  parallel_for(how.k, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      std::int32_t sum = 0, size = 0;
      for (std::int64_t i = 0; i < how.depth(); ++i) {
        const std::int32_t w = weight[k * how.depth() + i];
        sum += w;
        size += w < 0 ? -w : w;
      }
      // The greatest |y|: u8 codes go with the weights of one sign, s8 codes with all.
      const std::int64_t most =
          how.x == Dtype::u8 ? std::int64_t{255} * ((size + (sum < 0 ? -sum : sum)) / 2) : std::int64_t{128} * size;
      if (most >= std::int64_t{1} << 25) result = false;
    }
  });
  return result;
}

Packed pack(const Packing& how, const std::int8_t* weight) {
  const std::int64_t size = points * panel_bytes(how), starts = points * how.isa->panel;
  Packed result{how, 0, true, bytes(how.panels() * size), bytes(how.panels() * starts * 4)};
  auto* const u = reinterpret_cast<char*>(result.memory.data());
  auto* const start = reinterpret_cast<std::int32_t*>(result.starts.data());
  parallel_for(how.panels(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) pack_panel(how, i, weight, u + i * size, start + i * starts);
  });
  return result;
}

void convolve(const Packed& packed, const Finish& how, const kernels::Conv2dSizes& z, const kernels::QuantizedOperands& o) {
  using shrike::winograd::tiles_of;
  const Kernels& isa = *packed.how.isa;
  const Job job{packed, isa, how, z, o, tiles_of(z.n, z.h, z.w, z.c, z.p, z.q), tiles_of(z.n, z.p, z.q, z.k, z.p, z.q)};
  // Blocks whose transformed input and sums stay in a core's cache, evenly many for each thread, of full tiles in registers.
  const std::int64_t tiles = job.out.count(), threads = num_threads(), unit = isa.pair_rows, units = (tiles + unit - 1) / unit;
  const std::int64_t most = std::clamp<std::int64_t>((800 << 10) / (points * (2 * z.c + 4 * isa.panel)), 18, 48) / unit;
  const std::int64_t rounds = (units + threads * most - 1) / (threads * most);
  const std::int64_t blocks = std::min(units, rounds * threads), block = (units + blocks - 1) / blocks * unit;
  const std::int64_t v_bytes = points * (block * job.v_row() + 64),
                     m_bytes = (points * (block * isa.panel + 16) + 16 * block) * 4;
  const Scratch scratch = bytes(threads * (v_bytes + m_bytes) + z.c);
  auto* const base = reinterpret_cast<char*>(scratch.data());
  auto* const zeros = reinterpret_cast<std::uint8_t*>(base + threads * (v_bytes + m_bytes));
  std::fill_n(zeros, z.c, std::uint8_t{0});
  parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part) {
      char* const v = base + part * (v_bytes + m_bytes);
      for (std::int64_t b = blocks * part / threads; b < blocks * (part + 1) / threads; ++b) {
        const std::int64_t first = units * b / blocks * unit, last = std::min(units * (b + 1) / blocks * unit, tiles);
        job.run(first, last - first, zeros, v, reinterpret_cast<std::int32_t*>(v + v_bytes));
      }
    }
  });
}

}  // namespace shrike::int8::winograd
