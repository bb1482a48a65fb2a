// The choice of instruction set, by cpuid and SHRIKE_CPU_ISA.
#include "isa.hpp"

#include <cstdlib>
#include <string_view>

#include "shrike/core/check.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace shrike::cpu {
namespace {

constexpr const char* names[] = {"plain", "avx2", "avxvnni", "avx512"};

Isa best() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return Isa::avx512;
  }
  if (has_avx_vnni()) return Isa::avxvnni;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::plain;
}

}  // namespace

bool has_avx512_vnni() {
#if defined(__x86_64__)
  return best() == Isa::avx512 && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

// AVX-VNNI is bit 4 of eax of leaf 7.1 (Intel's Software Developer's Manual, CPUID); GCC 12's names do not have it.
bool has_avx_vnni() {
#if defined(__x86_64__)
  static const bool result = [] {  // asked once: to a virtual machine this instruction is dear
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 &&
           (a & 16) != 0;
  }();
  return result;
#else
  return false;
#endif
}

Isa isa() {
  static const Isa most = best();
  const char* const wish = std::getenv("SHRIKE_CPU_ISA");
  if (wish == nullptr || *wish == '\0') return most;
  for (int i = 0; i < 4; ++i) {
    if (std::string_view(wish) != names[i]) continue;
    SHRIKE_CHECK(i <= static_cast<int>(most), "SHRIKE_CPU_ISA is '", wish, "': this processor has ",
                 names[static_cast<int>(most)], " at most");
    return static_cast<Isa>(i);
  }
  fail("SHRIKE_CPU_ISA is '", wish, "': expected plain, avx2, avxvnni or avx512");
}

const FloatKernels& float_kernels() {
#if defined(__x86_64__)
  switch (isa()) {
    case Isa::avx512: return avx512_float_kernels();
    case Isa::avxvnni:
    case Isa::avx2: return avx2_float_kernels();
    case Isa::plain: break;
  }
#endif
  return plain_float_kernels();
}

}  // namespace shrike::cpu
