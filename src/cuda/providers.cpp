#include "providers.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <set>

#include "graph.hpp"
#include "kernels/cuda.hpp"
#include "shrike/core/cuda.hpp"
#include "shrike/core/last_kernel.hpp"

#ifndef SHRIKE_HAS_CUDNN
#define SHRIKE_HAS_CUDNN 0
#endif
#if !SHRIKE_CUDA_HOST
#include "cublas.hpp"
#endif
#if SHRIKE_HAS_CUDNN
#include "cudnn.hpp"
#include "cudnn_int8.hpp"
#endif

namespace shrike::cuda {
namespace {

#if SHRIKE_CUDA_HOST
double time_on_device(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool time_means_something() {
  const char* path = std::getenv("SHRIKE_TUNE_CACHE");
  return path != nullptr && *path != '\0';
}
#else
// Two points of the stream, between which the device tells the time.
class Events {
 public:
  Events() {
    check(cudaEventCreate(&start_), "cudaEventCreate");
    check(cudaEventCreate(&stop_), "cudaEventCreate");
  }
  ~Events() {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  double seconds(const std::function<void()>& f) const {
    check(cudaEventRecord(start_, stream()), "cudaEventRecord");
    f();
    check(cudaEventRecord(stop_, stream()), "cudaEventRecord");
    check(cudaEventSynchronize(stop_), "a kernel that was being timed");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, start_, stop_), "cudaEventElapsedTime");
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

double time_on_device(const std::function<void()>& f) { return Events().seconds(f); }

bool time_means_something() { return true; }
#endif

}  // namespace

#if SHRIKE_CUDA_HOST
std::string tune_environment() { return "host"; }

void add_vendor_product(std::vector<Way>&, bool, bool, std::int64_t, std::int64_t, std::int64_t, const float*, const float*,
                        const float*, bool, float*) {}

void add_vendor_code_product(std::vector<Way>&, std::int64_t, std::int64_t, const std::function<void(const CodeProduct&)>&) {}
#else
std::string cudnn_version() {
#if SHRIKE_HAS_CUDNN
  return cudnn::version();
#else
  return "no cuDNN";
#endif
}

// Raised when our kernels change, or what they are compared with: choices of before are made anew.
constexpr int kernels_revision = 1;

std::string tune_environment() {
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  return message(properties().name, ", kernels ", kernels_revision, ", driver for CUDA ", driver / 1000, '.',
                 driver % 1000 / 10, ", CUDA ", runtime / 1000, '.', runtime % 1000 / 10, ", ", cublas::version(), ", ",
                 cudnn_version());
}

void add_vendor_product(std::vector<Way>& ways, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                        std::int64_t k, const float* a, const float* b, const float* bias, bool relu, float* c) {
  const cublas::Product product{transpose_a, transpose_b, m, n, k, bias != nullptr, relu, cuda_settings().tf32};
  ways.push_back({"cublas", [=] { cublas::multiply(product, a, b, bias, c); }, true});
}

void add_vendor_code_product(std::vector<Way>& ways, std::int64_t n, std::int64_t k,
                             const std::function<void(const CodeProduct&)>& layer) {
  if (n % 4 == 0 && k % 4 == 0) ways.push_back({"cublas", [=] { layer(cublas::multiply_codes); }, true});
}
#endif

#if SHRIKE_HAS_CUDNN
namespace {

// `add` lists ways; where cuDNN fails at that, there are none. Not so while the stream is captured: see run_best().
template <class Add> void list_or_none(const Add& add) {
  try {
    add();
  } catch (const Error& error) {
    if (capturing()) throw;
    note_failure("cuDNN", error.what());
  }
}

}  // namespace

void add_vendor_forward(std::vector<Way>& ways, const kernels::Conv2dSizes& z, const float* x, const float* weight,
                        const float* bias, float* y) {
  list_or_none([&] {
    for (const cudnn::Algorithm& algorithm : cudnn::algorithms(cudnn::Pass::forward, z, cuda_settings().tf32)) {
      ways.push_back({algorithm.name(), [=] { cudnn::forward(z, algorithm, x, weight, bias, y); }, true});
    }
  });
}

void add_vendor_backward_data(std::vector<Way>& ways, const kernels::Conv2dSizes& z, const float* weight, const float* dy,
                              float* dx) {
  list_or_none([&] {
    for (const cudnn::Algorithm& algorithm : cudnn::algorithms(cudnn::Pass::backward_data, z, cuda_settings().tf32)) {
      ways.push_back({algorithm.name(), [=] { cudnn::backward_data(z, algorithm, weight, dy, dx); }, true});
    }
  });
}

void add_vendor_backward_weight(std::vector<Way>& ways, const kernels::Conv2dSizes& z, const float* x, const float* dy,
                                float* dweight) {
  list_or_none([&] {
    for (const cudnn::Algorithm& algorithm : cudnn::algorithms(cudnn::Pass::backward_weight, z, cuda_settings().tf32)) {
      ways.push_back({algorithm.name(), [=] { cudnn::backward_weight(z, algorithm, x, dy, dweight); }, true});
    }
  });
}

void add_vendor_code_convolution(std::vector<Way>& ways, const kernels::Conv2dSizes& z,
                                 const std::function<void(const CodeConvolution&)>& layer) {
  if (z.c % 4 != 0 || z.k % 4 != 0 || z.groups != 1) return;
  for (int choice = 0; choice < cudnn::code_choices; ++choice) {
    const CodeConvolution convolve = [choice](const kernels::Conv2dSizes& sizes, const std::int8_t* x,
                                              const std::int8_t* weight,
                                              std::int32_t* y) { cudnn::convolve_codes(sizes, choice, x, weight, y); };
    ways.push_back({message("cudnn int8 ", choice), [=] { layer(convolve); }, true});
  }
}
#else
void add_vendor_forward(std::vector<Way>&, const kernels::Conv2dSizes&, const float*, const float*, const float*, float*) {}
void add_vendor_backward_data(std::vector<Way>&, const kernels::Conv2dSizes&, const float*, const float*, float*) {}
void add_vendor_backward_weight(std::vector<Way>&, const kernels::Conv2dSizes&, const float*, const float*, float*) {}
void add_vendor_code_convolution(std::vector<Way>&, const kernels::Conv2dSizes&,
                                 const std::function<void(const CodeConvolution&)>&) {}
#endif

TuneKey conv_key(const char* pass, const kernels::Conv2dSizes& z, bool bias, bool residual) {
  return {pass,
          {z.n, z.c, z.k, z.r, z.s, z.stride, z.padding, z.dilation, z.groups, z.relu, bias, residual, cuda_settings().tf32},
          {z.h, z.w}};
}

TuneKey product_key(const char* pass, std::int64_t m, std::int64_t n, std::int64_t k, bool bias, bool residual, bool relu) {
  return {pass, {n, k, relu, bias, residual, cuda_settings().tf32}, {m, 1}};
}

Autotuner& autotuner() {
  static Autotuner tuner(tune_cache_path(), tune_environment(), time_on_device);
  return tuner;
}

namespace {

// Runs the way and leaves its name.
void take(const Way& way) {
  last_kernel() = way.name;
  way.run();
}

// The vendor's ways that failed, which are not tried again for the same sizes. When they are very many, sizes come and go.
class Failed {
 public:
  bool has(const TuneKey& key, const std::string& name) {
    const std::lock_guard lock(mutex_);
    return !ways_.empty() && ways_.contains({key, name});
  }
  void add(const TuneKey& key, const std::string& name) {
    constexpr std::size_t most = 4096;
    const std::lock_guard lock(mutex_);
    if (ways_.size() == most) ways_.clear();
    ways_.emplace(key, name);
  }

 private:
  std::mutex mutex_;
  std::set<std::pair<TuneKey, std::string>> ways_;
};

// False when the way, the vendor's, has failed now or before.
bool try_to_take(const TuneKey& key, const Way& way) {
  static Failed failed;
  if (failed.has(key, way.name)) return false;
  try {
    take(way);
    return true;
  } catch (const Error& error) {
    if (capturing()) throw;
    failed.add(key, way.name);
    note_failure(way.name, error.what());
    return false;
  }
}

}  // namespace

bool looks_further() {
  using Provider = CudaSettings::Provider;
  const Provider provider = cuda_settings().provider;
  return provider == Provider::vendor || (provider == Provider::automatic && time_means_something());
}

void run_best(const TuneKey& key, const std::vector<Way>& ways) {
  using Provider = CudaSettings::Provider;
  SHRIKE_CHECK(!ways.empty(), key.pass, ": no kernel can compute this");
  const Provider provider = cuda_settings().provider;
  std::vector<const Way*> turns;  // one after another, while they fail
  if (provider == Provider::vendor) {
    for (const Way& way : ways) {
      if (way.vendor) turns.push_back(&way);
    }
  } else if (ways.size() > 1 && looks_further()) {
    std::vector<std::string> names;
    for (const Way& way : ways) names.push_back(way.name);
    turns.push_back(&ways[autotuner().choose(
        key, names, [&](std::size_t i) { ways[i].run(); }, !capturing())]);
  }
  const auto ours = std::find_if(ways.begin(), ways.end(), [](const Way& way) { return !way.vendor; });
  if (ours != ways.end()) turns.push_back(&*ours);
  if (turns.empty()) turns.push_back(&ways[0]);
  for (const Way* way : turns) {
    if (!way->vendor || way == turns.back()) return take(*way);
    if (try_to_take(key, *way)) return;
  }
}

}  // namespace shrike::cuda
