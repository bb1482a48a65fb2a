#include "providers.hpp"

#include <chrono>
#include <cstdlib>

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

void add_vendor_product(std::vector<Way>&, std::int64_t, std::int64_t, std::int64_t, const std::int8_t*, const std::int8_t*,
                        std::int32_t*, const std::function<void()>&) {}
#else
std::string cudnn_version() {
#if SHRIKE_HAS_CUDNN
  return cudnn::version();
#else
  return "no cuDNN";
#endif
}

std::string tune_environment() {
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  return message(properties().name, ", driver for CUDA ", driver / 1000, '.', driver % 1000 / 10, ", CUDA ", runtime / 1000,
                 '.', runtime % 1000 / 10, ", ", cublas::version(), ", ", cudnn_version());
}

void add_vendor_product(std::vector<Way>& ways, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                        std::int64_t k, const float* a, const float* b, const float* bias, bool relu, float* c) {
  const cublas::Product product{transpose_a, transpose_b, m, n, k, bias != nullptr, relu, cuda_settings().tf32};
  ways.push_back({"cublas", [=] { cublas::multiply(product, a, b, bias, c); }, true});
}

void add_vendor_product(std::vector<Way>& ways, std::int64_t m, std::int64_t n, std::int64_t k, const std::int8_t* a,
                        const std::int8_t* b, std::int32_t* c, const std::function<void()>& rest) {
  if (n % 4 != 0 || k % 4 != 0) return;
  ways.push_back({"cublas",
                  [=] {
                    cublas::multiply(m, n, k, a, b, c);
                    rest();
                  },
                  true});
}
#endif

#if SHRIKE_HAS_CUDNN
void add_vendor_forward(std::vector<Way>& ways, const kernels::Conv2dSizes& z, const float* x, const float* weight,
                        const float* bias, float* y) {
  for (const cudnn::Algorithm& algorithm : cudnn::algorithms(cudnn::Pass::forward, z, cuda_settings().tf32)) {
    ways.push_back({algorithm.name(), [=] { cudnn::forward(z, algorithm, x, weight, bias, y); }, true});
  }
}

void add_vendor_backward_data(std::vector<Way>& ways, const kernels::Conv2dSizes& z, const float* weight, const float* dy,
                              float* dx) {
  for (const cudnn::Algorithm& algorithm : cudnn::algorithms(cudnn::Pass::backward_data, z, cuda_settings().tf32)) {
    ways.push_back({algorithm.name(), [=] { cudnn::backward_data(z, algorithm, weight, dy, dx); }, true});
  }
}

void add_vendor_backward_weight(std::vector<Way>& ways, const kernels::Conv2dSizes& z, const float* x, const float* dy,
                                float* dweight) {
  for (const cudnn::Algorithm& algorithm : cudnn::algorithms(cudnn::Pass::backward_weight, z, cuda_settings().tf32)) {
    ways.push_back({algorithm.name(), [=] { cudnn::backward_weight(z, algorithm, x, dy, dweight); }, true});
  }
}
#else
void add_vendor_forward(std::vector<Way>&, const kernels::Conv2dSizes&, const float*, const float*, const float*, float*) {}
void add_vendor_backward_data(std::vector<Way>&, const kernels::Conv2dSizes&, const float*, const float*, float*) {}
void add_vendor_backward_weight(std::vector<Way>&, const kernels::Conv2dSizes&, const float*, const float*, float*) {}
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

// Runs the way and leaves its name.
static void take(const Way& way) {
  last_kernel() = way.name;
  way.run();
}

void run_best(const TuneKey& key, const std::vector<Way>& ways) {
  using Provider = CudaSettings::Provider;
  SHRIKE_CHECK(!ways.empty(), key.pass, ": no kernel can compute this");
  const Provider provider = cuda_settings().provider;
  if (ways.size() == 1 || (provider == Provider::automatic && !time_means_something())) return take(ways[0]);
  if (provider != Provider::automatic) {
    for (const Way& way : ways) {
      if (way.vendor == (provider == Provider::vendor)) return take(way);
    }
    return take(ways[0]);
  }
  std::vector<std::string> names;
  for (const Way& way : ways) names.push_back(way.name);
  take(ways[autotuner().choose(
      key, names, [&](std::size_t i) { ways[i].run(); }, !capturing())]);
}

}  // namespace shrike::cuda
