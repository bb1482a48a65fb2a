// Plain C++ for any machine, and the choice between the instruction sets.

#include "int8_tiles.hpp"
#include "isa.hpp"

namespace shrike::int8 {
namespace {

struct Bytes {
  using Vector = uint32_t;  // wraps, as the vectors do
  static constexpr int width = 1, vectors = 4, rows = 2, together = 1, products = 4;
  static constexpr bool ordered = false;
  struct Columns {
    Vector of[4];
  };
  static Vector load(const void* from) {
    Vector value;
    __builtin_memcpy(&value, from, sizeof(value));
    return value;
  }
  static void store(void* to, Vector value) { __builtin_memcpy(to, &value, sizeof(value)); }
  static Vector broadcast(const char* from) { return load(from); }
  static void keep(Vector& value) { asm volatile("" : "+r"(value)); }
  static Columns columns(const char* b) { return {{load(b), load(b + 4), load(b + 8), load(b + 12)}}; }
  static Vector spin(Vector sum, Vector a, Vector b) {
    for (int i = 0; i < 32; i += 8) sum += static_cast<uint8_t>(a >> i) * static_cast<uint32_t>(static_cast<int8_t>(b >> i));
    return sum;
  }
  static void add(Vector* sums, const char* a, const Columns& columns) {
    const Vector left = load(a);
    for (int v = 0; v < vectors; ++v) sums[v] = spin(sums[v], left, columns.of[v]);
  }
};

}  // namespace

const Kernels& plain_kernels() {
  static constexpr Kernels table{
      "plain", Bytes::width * Bytes::vectors, multiply<Bytes>, nullptr, nullptr, 0, finish, spin<Bytes>, encode};
  return table;
}

const Kernels& kernels(int64_t columns) {
#if defined(__x86_64__)
  using cpu::Isa;
  const Isa isa = cpu::isa();
  const bool vnni = cpu::has_avx512_vnni();
  if (isa == Isa::avx512 && vnni) return columns > 16 ? avx512_kernels() : avx512_short_kernels();
  if (isa >= Isa::avxvnni && cpu::has_avx_vnni()) return avxvnni_kernels();
  if (isa == Isa::avxvnni && vnni) return avx512_short_kernels();
  if (isa >= Isa::avx2) return avx2_kernels();
#endif
  return plain_kernels();
}

}  // namespace shrike::int8
