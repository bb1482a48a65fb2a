// Plain C++ for any machine, and the choice between the instruction sets.
#include <cstdlib>
#include <string_view>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "int8_tiles.hpp"

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
#if defined(__x86_64__)
// Not every compiler's __builtin_cpu_supports knows it: bit 4 of EAX of leaf 7, subleaf 1 (Intel's manual, volume 2, CPUID).
bool has_avxvnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
}
#endif

}  // namespace

const Kernels& plain_kernels() {
  static constexpr Kernels table{"plain",    Bytes::width * Bytes::vectors, multiply<Bytes>, nullptr, nullptr, 0, finish,
                                 spin<Bytes>};
  return table;
}

const Kernels& kernels(int64_t columns) {
#if defined(__x86_64__)
  const char* const wish = std::getenv("SHRIKE_CPU_ISA");
  const std::string_view isa = wish != nullptr ? wish : "";
  if (isa == "plain") return plain_kernels();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vnni");
  static const bool avxvnni = avx2 && has_avxvnni();  // asked once: to a virtual machine this instruction is dear
  if (avx512 && isa == "avxvnni" && !avxvnni) return avx512_short_kernels();
  if (avx512 && isa != "avx2" && isa != "avxvnni") return columns > 16 ? avx512_kernels() : avx512_short_kernels();
  if (avxvnni && isa != "avx2") return avxvnni_kernels();
  if (avx2) return avx2_kernels();
#endif
  return plain_kernels();
}

}  // namespace shrike::int8
