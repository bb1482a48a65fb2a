// Plain C++ for any machine, and the choice between the instruction sets.
#include <cstdlib>
#include <string_view>

#include "int8_tiles.hpp"

namespace shrike::int8 {
namespace {

struct Words {
  using Vector = uint32_t;  // wraps, as the vectors do
  static constexpr int width = 1, vectors = 4, rows = 2, kept_rows = 0;
  static constexpr bool pairs = true;
  static Vector load(const void* from) {
    Vector value;
    __builtin_memcpy(&value, from, sizeof(value));
    return value;
  }
  static void store(void* to, Vector value) { __builtin_memcpy(to, &value, sizeof(value)); }
  static Vector broadcast(const char* from) { return load(from); }
  static void keep(Vector& value) { asm volatile("" : "+r"(value)); }
  static Vector add(Vector a, Vector b) { return ((a & 0xFFFF0000u) + (b & 0xFFFF0000u)) | ((a + b) & 0xFFFFu); }
  static Vector dot(Vector sum, Vector a, Vector b) {
    const int32_t low = static_cast<int16_t>(a) * static_cast<int16_t>(b);
    const int32_t high = static_cast<int16_t>(a >> 16) * static_cast<int16_t>(b >> 16);
    return sum + static_cast<uint32_t>(low) + static_cast<uint32_t>(high);
  }
};

}  // namespace

const Kernels& plain_kernels() {
  static constexpr Kernels table{"plain",    Words::width * Words::vectors, nullptr, multiply<Words>, Words::rows, finish,
                                 spin<Words>};
  return table;
}

const Kernels& kernels() {
#if defined(__x86_64__)
  const char* const wish = std::getenv("SHRIKE_CPU_ISA");
  const std::string_view isa = wish != nullptr ? wish : "";
  if (isa == "plain") return plain_kernels();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vnni");
  if (avx512 && isa != "avx2") return avx512_kernels();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2_kernels();
#endif
  return plain_kernels();
}

}  // namespace shrike::int8
