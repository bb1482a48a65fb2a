// The CBLAS interface by dlsym, with int for sizes (not OpenBLAS's variant of 64 bits). The library of the Python package
// scipy-openblas32 is taken, too: its functions' names begin with scipy_.
#include "benchmarks/support/openblas.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <type_traits>
#include <utility>

namespace shrike::bench {

std::unique_ptr<OpenBlas> OpenBlas::open(const std::string& library, std::string& why) {
  // Its threads spin for more than a second after their work by default, on the processors of whoever computes next in this
  // process. 2^22 clocks, some milliseconds, still find them awake at its own next call.
  setenv("OPENBLAS_THREAD_TIMEOUT", "22", 0);
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* error = dlerror();
    why = error != nullptr ? error : library + ": cannot be opened";
    return nullptr;
  }
  std::unique_ptr<OpenBlas> blas(new OpenBlas);
  const auto find = [&](const std::string& name, auto& function) {
    void* found = dlsym(handle, name.c_str());
    if (found == nullptr) found = dlsym(handle, ("scipy_" + name).c_str());
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
    if (function == nullptr) why = library + ": has no " + name;
  };
  find("cblas_sgemm", blas->sgemm_);
  find("openblas_set_num_threads", blas->set_threads_);
  find("openblas_get_corename", blas->core_);
  find("openblas_get_config", blas->config_);
  return why.empty() ? std::move(blas) : nullptr;
}

void OpenBlas::multiply(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                        const float* b, float* c) const {
  constexpr int row_major = 101, plain = 111, transposed = 112;
  const auto size = [](std::int64_t value) { return static_cast<int>(value); };
  sgemm_(row_major, transpose_a ? transposed : plain, transpose_b ? transposed : plain, size(m), size(n), size(k), 1.0f, a,
         size(transpose_a ? m : k), b, size(transpose_b ? k : n), 0.0f, c, size(n));
}

}  // namespace shrike::bench
