// mma.sync: gathers the fragments of 32 lanes into matrices, multiplies, and adds to every lane's part of D.
#include "kernels/host/mma.hpp"

#include <cstring>

#include "kernels/host/worker.hpp"

namespace shrike::cuda::host {
namespace {

struct Fragments {
  void* d;
  const unsigned *a, *b;
};

void require_whole_warp(unsigned active) {
  if (active != 0xffffffffu) stop("mma.sync needs all 32 lanes of the warp", running().at);
}

// A[16][32] by bytes, rows of K elements of `Element`, of which a register holds 4 / sizeof(Element); B by columns. All four
// shapes are the same in bytes: a register holds bytes 4 t to 4 t + 3 of a row's first or second 16.
struct Bytes {
  alignas(16) unsigned char a[16][32], b[8][32];
};

Bytes gather(void* const* operands) {
  Bytes bytes;
  for (unsigned l = 0; l < 32; ++l) {
    const auto* fragments = static_cast<const Fragments*>(operands[l]);
    const unsigned g = l / 4, t = l % 4;
    for (unsigned r = 0; r < 4; ++r) std::memcpy(&bytes.a[g + 8 * (r % 2)][4 * t + 16 * (r / 2)], &fragments->a[r], 4);
    for (unsigned r = 0; r < 2; ++r) std::memcpy(&bytes.b[g][4 * t + 16 * r], &fragments->b[r], 4);
  }
  return bytes;
}

template <class D, class F> void scatter(void* const* operands, F product) {
  for (unsigned l = 0; l < 32; ++l) {
    auto* d = static_cast<D*>(static_cast<const Fragments*>(operands[l])->d);
    for (unsigned r = 0; r < 4; ++r) product(d[r], l / 4 + 8 * (r / 2), 2 * (l % 4) + r % 2);
  }
}

// The sum wraps, as without .satfinite.
template <class A> int add_products(int d, const unsigned char* a, const unsigned char* b, int count) {
  int sum = 0;
  for (int k = 0; k < count; ++k) sum += static_cast<A>(a[k]) * static_cast<std::int8_t>(b[k]);
  return static_cast<int>(static_cast<unsigned>(d) + static_cast<unsigned>(sum));
}

template <class A> void k32(void* const* operands, unsigned active) {
  require_whole_warp(active);
  const Bytes bytes = gather(operands);
  scatter<int>(operands,
               [&](int& d, unsigned row, unsigned column) { d = add_products<A>(d, bytes.a[row], bytes.b[column], 32); });
}

template <class A> void k16(void* const* operands, unsigned active) {
  require_whole_warp(active);
  unsigned char a[8][16], b[8][16];
  for (unsigned l = 0; l < 32; ++l) {
    const auto* fragments = static_cast<const Fragments*>(operands[l]);
    std::memcpy(&a[l / 4][4 * (l % 4)], fragments->a, 4);
    std::memcpy(&b[l / 4][4 * (l % 4)], fragments->b, 4);
  }
  for (unsigned l = 0; l < 32; ++l) {
    auto* d = static_cast<int*>(static_cast<const Fragments*>(operands[l])->d);
    for (unsigned r = 0; r < 2; ++r) d[r] = add_products<A>(d[r], a[l / 4], b[2 * (l % 4) + r], 16);
  }
}

// Products are exact; their sum is kept in double and rounded once, which no GPU promises and every GPU is near.
void tf32(void* const* operands, unsigned active) {
  require_whole_warp(active);
  const Bytes bytes = gather(operands);
  const auto element = [](const unsigned char* row, unsigned k) {
    unsigned bits;
    std::memcpy(&bits, row + 4 * k, 4);
    return static_cast<double>(std::bit_cast<float>(bits & 0xffffe000u));
  };
  scatter<float>(operands, [&](float& d, unsigned row, unsigned column) {
    double sum = d;
    for (unsigned k = 0; k < 8; ++k) sum += element(bytes.a[row], k) * element(bytes.b[column], k);
    d = static_cast<float>(sum);
  });
}

// The same of elements of 16 bits; they are decoded once.
template <float (*Value)(std::uint16_t)> void k16_floats(void* const* operands, unsigned active) {
  require_whole_warp(active);
  const Bytes bytes = gather(operands);
  double a[16][16], b[8][16];
  const auto decode = [](const unsigned char* from, double(&to)[16]) {
    for (unsigned k = 0; k < 16; ++k) {
      std::uint16_t bits;
      std::memcpy(&bits, from + 2 * k, 2);
      to[k] = static_cast<double>(Value(bits));
    }
  };
  for (unsigned row = 0; row < 16; ++row) decode(bytes.a[row], a[row]);
  for (unsigned column = 0; column < 8; ++column) decode(bytes.b[column], b[column]);
  scatter<float>(operands, [&](float& d, unsigned row, unsigned column) {
    double sum = d;
    for (unsigned k = 0; k < 16; ++k) sum += a[row][k] * b[column][k];
    d = static_cast<float>(sum);
  });
}

float bf16_value(std::uint16_t bits) { return std::bit_cast<float>(static_cast<unsigned>(bits) << 16); }

constexpr unsigned all_lanes = 0xffffffffu;

}  // namespace

void mma_k32(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], bool a_signed, const Site& at) {
  Fragments fragments{d, a, b};
  warp_operation(all_lanes, a_signed ? k32<std::int8_t> : k32<std::uint8_t>, &fragments, at);
}

void mma_k16(int (&d)[2], unsigned a, unsigned b, bool a_signed, const Site& at) {
  Fragments fragments{d, &a, &b};
  warp_operation(all_lanes, a_signed ? k16<std::int8_t> : k16<std::uint8_t>, &fragments, at);
}

void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const Site& at) {
  Fragments fragments{d, a, b};
  warp_operation(all_lanes, tf32, &fragments, at);
}

void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const Site& at) {
  Fragments fragments{d, a, b};
  warp_operation(all_lanes, k16_floats<bf16_value>, &fragments, at);
}

void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const Site& at) {
  Fragments fragments{d, a, b};
  warp_operation(all_lanes, k16_floats<half_value>, &fragments, at);
}

}  // namespace shrike::cuda::host
