// OpenBLAS, opened when the program runs: a peer that nobody needs to build Shrike.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace shrike::bench {

class OpenBlas {
 public:
  // Null where the library or one of its functions is missing; `why` then says what.
  // It stays open until the process ends: its threads run its code.
  static std::unique_ptr<OpenBlas> open(const std::string& library, std::string& why);

  void set_threads(int threads) const { set_threads_(threads); }
  std::string core() const { return core_(); }      // the processor whose kernels it uses
  std::string config() const { return config_(); }  // its version and how it was built

  // c [m, n] = a * b, a being [m, k], or with transpose_a kept as [k, m], and b [k, n], or with transpose_b kept as [n, k].
  void multiply(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                const float* b, float* c) const;

 private:
  using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);

  OpenBlas() = default;

  Sgemm sgemm_ = nullptr;
  void (*set_threads_)(int) = nullptr;
  char* (*core_)() = nullptr;
  char* (*config_)() = nullptr;
};

}  // namespace shrike::bench
