// What the host layer must refuse or report: kernels with planted mistakes. Those that only a sanitizer sees run in a process
// of their own, this program again with a hidden test case, whose report is read.
#include <array>
#include <cstdio>
#include <filesystem>

#include "error_of.hpp"
#include "kernels/mma.hpp"
#include "shrike/core/tensor.hpp"

using namespace shrike;

namespace {

using Catch::Matchers::Contains;

// Exits before the barrier that the others reach.
__global__ void early_exit_kernel(float* p, int n) {
  SHRIKE_SHARED(float, s, [64]);
  if (static_cast<int>(threadIdx.x) >= n) return;
  s[threadIdx.x] = p[threadIdx.x];
  __syncthreads();
  p[threadIdx.x] = s[n - 1 - static_cast<int>(threadIdx.x)];
}

__global__ void divergent_kernel(float* p) {
  if (threadIdx.x < 32) {
    p[threadIdx.x] = 1;
    __syncthreads();
  } else {
    p[threadIdx.x] = 2;
    __syncthreads();
  }
}

__global__ void half_warp_kernel(int* p) {  // the mask names lanes that never come
  int v = static_cast<int>(threadIdx.x);
  if (threadIdx.x < 16) v = __shfl_down_sync(0xffffffffu, v, 1);
  __syncthreads();
  p[threadIdx.x] = v;
}

__global__ void outside_mask_kernel(int* p) { p[threadIdx.x] = __shfl_sync(0xffffu, 1, 0); }

__global__ void partial_mma_kernel(int* p) {
  int d[4] = {};
  const unsigned a[4] = {}, b[2] = {};
  if (threadIdx.x != 5) cuda::mma_m16n8k32_s8s8(d, a, b);
  p[threadIdx.x] = d[0];
}

__global__ void trap_kernel() { __trap(); }

__global__ void misaligned_copy_kernel(const float* p) {
  SHRIKE_SHARED_ALIGNED(16, float, s, [64]);
  cuda::cp_async_16(&s[1], p);
}

__global__ void misaligned_ldmatrix_kernel(unsigned* p) {
  SHRIKE_SHARED(float, s, [160]);  // no more aligned than a float asks for
  unsigned d[4];
  cuda::ldmatrix_x4(d, &s[4 * threadIdx.x]);
  p[threadIdx.x] = d[0];
}

__global__ void missing_wait_kernel(const float* p, float* q) {
  SHRIKE_SHARED_ALIGNED(16, float, s, [64]);
  cuda::cp_async_16(&s[4 * threadIdx.x], p + 4 * threadIdx.x);
  cuda::cp_async_commit();
  __syncthreads();
  q[threadIdx.x] = s[threadIdx.x];
}

__global__ void stale_shared_kernel(float* p) {  // reads what nobody wrote
  SHRIKE_SHARED(float, s, [32]);
  SHRIKE_DYNAMIC_SHARED(float, d);
  p += 64 * blockIdx.x;
  p[threadIdx.x] = s[threadIdx.x] + 1;
  p[32 + threadIdx.x] = d[threadIdx.x] + 1;
  s[threadIdx.x] = d[threadIdx.x] = 1;  // for the next block to find, were it not for the layer
}

__global__ void large_static_kernel() {
  SHRIKE_SHARED(float, s, [12289]);
  s[0] = 0;
}
__global__ void static_and_dynamic_kernel() {
  SHRIKE_SHARED(float, s, [256]);
  s[0] = 0;
}
__global__ void nothing_kernel() {}

__global__ void race_kernel(float* p) {
  SHRIKE_SHARED(float, s, [64]);
  s[threadIdx.x] = p[threadIdx.x];
  p[threadIdx.x] = s[63 - threadIdx.x];  // no barrier
}
__global__ void warp_race_kernel(float* p) {  // nor do the lanes of a warp run in step
  SHRIKE_SHARED(float, s, [32]);
  s[threadIdx.x] = p[threadIdx.x];
  __shfl_sync(0xffffffffu, 0, 0);
  p[threadIdx.x] = s[31 - threadIdx.x];
}
__global__ void ring_race_kernel(float* p, int turns) {  // every other turn is protected
  SHRIKE_SHARED(float, s, [64]);
  for (int i = 0; i < turns; ++i) {
    s[threadIdx.x] = p[threadIdx.x] + static_cast<float>(i);
    __syncthreads();
    p[threadIdx.x] = s[63 - threadIdx.x];
  }
}
__global__ void global_race_kernel(int* count) { *count += 1; }
__global__ void no_race_kernel(float* p) {
  SHRIKE_SHARED(float, s, [64]);
  for (int i = 0; i < 3; ++i) {
    s[threadIdx.x] = p[blockIdx.x * 64 + threadIdx.x];
    __syncthreads();
    p[blockIdx.x * 64 + threadIdx.x] = s[63 - threadIdx.x];
    __syncthreads();
    s[threadIdx.x / 32 * 32 + threadIdx.x % 32] = 0;
    __syncwarp();
    p[blockIdx.x * 64 + threadIdx.x] += s[threadIdx.x / 32 * 32 + 31 - threadIdx.x % 32];
    __syncthreads();
  }
}

__global__ void static_overrun_kernel(int by) {
  SHRIKE_SHARED(float, s, [33]);
  float* p = s;
  p[static_cast<int>(threadIdx.x) + by] = 1;
}
__global__ void dynamic_overrun_kernel(int by) {
  SHRIKE_DYNAMIC_SHARED(float, s);
  s[static_cast<int>(threadIdx.x) + by] = 1;
}
__global__ void global_overrun_kernel(float* p, int by) { p[static_cast<int>(threadIdx.x) + by] = 1; }
__global__ void async_overrun_kernel(const float* p) {
  SHRIKE_SHARED_ALIGNED(16, float, s, [4]);
  cuda::cp_async_16(s, p);
  cuda::cp_async_commit();
  cuda::cp_async_wait<0>();
}

// The output and exit code of this program when it runs one hidden test case.
struct Run {
  std::string output;
  int status;
};

[[maybe_unused]] Run run_hidden(const std::string& name) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  std::FILE* pipe = popen(("'" + self + "' '" + name + "' 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  Run run;
  std::array<char, 4096> buffer;
  for (std::size_t n; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) run.output.append(buffer.data(), n);
  run.status = pclose(pipe);
  return run;
}

Tensor floats(std::int64_t n) { return full({n}, 1.0f, Device::cuda); }

}  // namespace

TEST_CASE("a barrier that not all threads reach is named") {
  const Tensor p = floats(64);
  CHECK_THAT(error_of([&] { cuda::launch(early_exit_kernel, 1, 64, 0, p.data<float>(), 40); }),
             Contains("deadlock: 24 of 64 threads exited, 40 wait at a block barrier") && Contains("host_errors_test.cu:"));
  CHECK_THAT(error_of([&] { cuda::launch(divergent_kernel, 1, 64, 0, p.data<float>()); }),
             Contains("divergent barrier") && Contains("divergent_kernel") && Contains("host_errors_test.cu:"));
  const Tensor q = floats(64);
  cuda::launch(early_exit_kernel, 1, 64, 0, q.data<float>(), 64);  // and all goes on
  CHECK(q.to_vector<float>() == std::vector<float>(64, 1.0f));
}

TEST_CASE("warp operations that lanes are missing from are named") {
  const Tensor p = zeros({32}, Dtype::s32, Device::cuda);
  CHECK_THAT(error_of([&] { cuda::launch(half_warp_kernel, 1, 32, 0, p.data<std::int32_t>()); }),
             Contains("deadlock") && Contains("16 wait in a warp operation") && Contains("mask 0xffffffff"));
  CHECK_THAT(error_of([&] { cuda::launch(outside_mask_kernel, 1, 32, 0, p.data<std::int32_t>()); }),
             Contains("not in the mask 0x0000ffff"));
  CHECK_THAT(error_of([&] { cuda::launch(partial_mma_kernel, 1, 32, 0, p.data<std::int32_t>()); }),
             Contains("all 32 lanes") || Contains("deadlock"));
  CHECK_THAT(error_of([&] { cuda::launch(trap_kernel, dim3(3, 2), 1, 0); }), Contains("__trap()") && Contains("block ("));
}

TEST_CASE("misaligned copies and matrices are named") {
  const Tensor p = floats(256), q = zeros({32}, Dtype::s32, Device::cuda);
  CHECK_THAT(error_of([&] { cuda::launch(misaligned_copy_kernel, 1, 1, 0, p.data<float>()); }),
             Contains("cp.async") && Contains("not aligned to 16 bytes"));
  CHECK_THAT(error_of([&] {
               cuda::launch(misaligned_ldmatrix_kernel, 1, 32, 0, reinterpret_cast<unsigned*>(q.data<std::int32_t>()));
             }),
             Contains("ldmatrix") && Contains("not aligned to 16 bytes"));
}

TEST_CASE("a copy that nobody waited for, and shared memory that nobody wrote, read as NaN") {
  const Tensor p = floats(64), q = floats(64);
  cuda::launch(missing_wait_kernel, 1, 16, 0, p.data<float>(), q.data<float>());
  for (int i = 0; i < 16; ++i) CHECK(std::isnan(q.to_vector<float>()[static_cast<std::size_t>(i)]));
  const Tensor stale = floats(5 * 64);
  cuda::launch(stale_shared_kernel, 5, 32, 32 * sizeof(float), stale.data<float>());
  for (const float v : stale.to_vector<float>()) CHECK(std::isnan(v));
}

TEST_CASE("limits of a launch are named") {
  CHECK_THAT(error_of([] { cuda::launch(nothing_kernel, 1, 1025, 0); }), Contains("1025 x 1 x 1 threads"));
  CHECK_THAT(error_of([] { cuda::launch(nothing_kernel, 1, dim3(1, 1, 65), 0); }), Contains("1 x 1 x 65 threads"));
  CHECK_THAT(error_of([] { cuda::launch(nothing_kernel, 1, 0, 0); }), Contains("0 x 1 x 1 threads"));
  CHECK_THAT(error_of([] { cuda::launch(nothing_kernel, dim3(1, 65536), 32, 0); }), Contains("1 x 65536 x 1 blocks"));
  CHECK_THAT(error_of([] { cuda::launch(nothing_kernel, 1, 32, 227 * 1024 + 1); }), Contains("232449 bytes of shared memory"));
  CHECK_THAT(error_of([] { cuda::launch(large_static_kernel, 1, 1, 0); }), Contains("49156 bytes of static shared memory"));
  CHECK_THAT(error_of([] { cuda::launch(static_and_dynamic_kernel, 1, 1, 227 * 1024 - 1023); }),
             Contains("1024 bytes of static and 231425 of dynamic shared memory"));
  CHECK(error_of([] { cuda::launch(static_and_dynamic_kernel, 1, 1, 226 * 1024); }) == "no error");
}

// ---- for the sanitizers; hidden, so that only run_hidden runs them
TEST_CASE("planted: shared race", "[.]") { cuda::launch(race_kernel, 1, 64, 0, floats(64).data<float>()); }
TEST_CASE("planted: warp race", "[.]") { cuda::launch(warp_race_kernel, 1, 32, 0, floats(32).data<float>()); }
TEST_CASE("planted: ring race", "[.]") { cuda::launch(ring_race_kernel, 1, 64, 0, floats(64).data<float>(), 3); }
TEST_CASE("planted: global race", "[.]") {
  cuda::launch(global_race_kernel, 8, 1, 0, zeros({1}, Dtype::s32, Device::cuda).data<std::int32_t>());
}
TEST_CASE("planted: no race", "[.]") { cuda::launch(no_race_kernel, 5, 64, 0, floats(5 * 64).data<float>()); }
TEST_CASE("planted: static overrun", "[.]") { cuda::launch(static_overrun_kernel, 1, 1, 0, 33); }
TEST_CASE("planted: static underrun", "[.]") { cuda::launch(static_overrun_kernel, 1, 1, 0, -2); }
TEST_CASE("planted: dynamic overrun", "[.]") { cuda::launch(dynamic_overrun_kernel, 1, 1, 33 * 4, 33); }
TEST_CASE("planted: global overrun", "[.]") { cuda::launch(global_overrun_kernel, 1, 33, 0, floats(33).data<float>(), 1); }
TEST_CASE("planted: global underrun", "[.]") { cuda::launch(global_overrun_kernel, 1, 33, 0, floats(33).data<float>(), -1); }
TEST_CASE("planted: freed memory", "[.]") {
  float* freed = floats(33).data<float>();
  cuda::launch(global_overrun_kernel, 1, 33, 0, freed, 0);
}
TEST_CASE("planted: copy past the end", "[.]") { cuda::launch(async_overrun_kernel, 1, 1, 0, floats(3).data<float>()); }
TEST_CASE("planted: no overrun", "[.]") {
  cuda::launch(static_overrun_kernel, 1, 33, 0, 0);
  cuda::launch(dynamic_overrun_kernel, 1, 33, 33 * 4, 0);
  const Tensor p = floats(33);
  cuda::launch(global_overrun_kernel, 1, 33, 0, p.data<float>(), 0);
}

#if defined(__SANITIZE_THREAD__)
TEST_CASE("the thread sanitizer sees planted races, and none where there is none") {
  for (const char* name : {"planted: shared race", "planted: warp race", "planted: ring race", "planted: global race"}) {
    INFO(name);
    const Run run = run_hidden(name);
    CHECK(run.status != 0);
    CHECK_THAT(run.output, Contains("data race"));
  }
  const Run clean = run_hidden("planted: no race");
  INFO(clean.output);
  CHECK(clean.status == 0);
}
#endif

#if defined(__SANITIZE_ADDRESS__)
TEST_CASE("the address sanitizer sees planted overruns, and none where there is none") {
  for (const char* name :
       {"planted: static overrun", "planted: static underrun", "planted: dynamic overrun", "planted: global overrun",
        "planted: global underrun", "planted: freed memory", "planted: copy past the end"}) {
    INFO(name);
    const Run run = run_hidden(name);
    CHECK(run.status != 0);
    CHECK_THAT(run.output, Contains("AddressSanitizer"));
  }
  const Run clean = run_hidden("planted: no overrun");
  INFO(clean.output);
  CHECK(clean.status == 0);
}
#endif
