#include "kernels/cuda.hpp"

#if !SHRIKE_CUDA_HOST
#include <cublasLt.h>

#include <array>
#include <map>
#include <memory>

#include "cublas.hpp"

namespace shrike::cuda::cublas {
namespace {

// The most that an algorithm may ask for; NVIDIA's own libraries use 32 MiB on Hopper.
constexpr std::uint64_t workspace_limit = std::uint64_t{32} << 20;

// Programs are long, and so is the time between a call and its failure: the message names the call and what was multiplied.
void check(cublasStatus_t status, const char* call, const Product& p) {
  SHRIKE_CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLAS: ", call, ": ", cublasLtGetStatusString(status), ", for a product of [",
               p.m, ", ", p.k, "] and [", p.k, ", ", p.n, "]",
               p.s8     ? " of s8"
               : p.tf32 ? " in TF32"
                        : " in float32");
}

template <auto destroy> struct Destroy {
  template <class T> void operator()(T* object) const { destroy(object); }
};
using Handle = std::unique_ptr<cublasLtContext, Destroy<cublasLtDestroy>>;
using Description = std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy<cublasLtMatmulDescDestroy>>;
using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy<cublasLtMatrixLayoutDestroy>>;
using Preference = std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, Destroy<cublasLtMatmulPreferenceDestroy>>;

// The power of two, up to 256, that an address is a multiple of: which algorithms there are depends on it.
std::uint32_t alignment(const void* address) {
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | 256;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}
using Alignments = std::array<std::uint32_t, 4>;  // of a, b, bias and c

// A product with the algorithm that cuBLAS's heuristics choose for it.
//
// cuBLAS counts columns first. A row-major [m, n] is to it an [n, m], so it computes c' = op(b)' op(a)': b is its first
// operand, c' has n rows, and its epilogue's bias, one value per row of the result, is ours, one per column.
struct Plan {
  Description description;
  Layout first, second, result;
  cublasLtMatmulAlgo_t algorithm{};
  std::size_t workspace = 0;

  Plan(cublasLtHandle_t handle, const Product& p, const Alignments& aligned, const float* bias);
};

template <class T> void set(const Plan& plan, cublasLtMatmulDescAttributes_t attribute, const T& value, const Product& p) {
  check(cublasLtMatmulDescSetAttribute(plan.description.get(), attribute, &value, sizeof value),
        "cublasLtMatmulDescSetAttribute", p);
}

template <class T>
void prefer(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value, const Product& p) {
  check(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
        "cublasLtMatmulPreferenceSetAttribute", p);
}

Layout layout(std::int64_t rows, std::int64_t columns, cudaDataType type, const Product& p) {
  cublasLtMatrixLayout_t made = nullptr;
  check(cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), rows),
        "cublasLtMatrixLayoutCreate", p);
  return Layout(made);
}

Plan::Plan(cublasLtHandle_t handle, const Product& p, const Alignments& aligned, const float* bias) {
  cublasLtMatmulDesc_t made = nullptr;
  const cublasComputeType_t compute = p.s8 ? CUBLAS_COMPUTE_32I : p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  check(cublasLtMatmulDescCreate(&made, compute, p.s8 ? CUDA_R_32I : CUDA_R_32F), "cublasLtMatmulDescCreate", p);
  description.reset(made);
  set(*this, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, p);
  set(*this, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, p);
  if (p.bias || p.relu) {
    const cublasLtEpilogue_t epilogue = !p.relu  ? CUBLASLT_EPILOGUE_BIAS
                                        : p.bias ? CUBLASLT_EPILOGUE_RELU_BIAS
                                                 : CUBLASLT_EPILOGUE_RELU;
    set(*this, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue, p);
  }
  if (p.bias) set(*this, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias, p);
  const cudaDataType in = p.s8 ? CUDA_R_8I : CUDA_R_32F;
  first = p.transpose_b ? layout(p.k, p.n, in, p) : layout(p.n, p.k, in, p);
  second = p.transpose_a ? layout(p.m, p.k, in, p) : layout(p.k, p.m, in, p);
  result = layout(p.n, p.m, p.s8 ? CUDA_R_32I : CUDA_R_32F, p);

  cublasLtMatmulPreference_t wanted = nullptr;
  check(cublasLtMatmulPreferenceCreate(&wanted), "cublasLtMatmulPreferenceCreate", p);
  const Preference preference(wanted);
  prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_limit, p);
  // Not in place, where the order of additions is the order of arrival.
  prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE}, p);
  prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, aligned[1], p);
  prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, aligned[0], p);
  prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, aligned[3], p);
  prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, aligned[3], p);
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, description.get(), first.get(), second.get(),
                                                               result.get(), result.get(), preference.get(), 1, &found, &count);
  check(status, "cublasLtMatmulAlgoGetHeuristic", p);
  check(count > 0 ? found.state : CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulAlgoGetHeuristic", p);
  algorithm = found.algo;
  workspace = found.workspaceSize;
}

// One per thread, so that no lock is needed. Plans are few: layers times passes times classes of image sizes; when there are
// very many, image sizes come and go, and the old ones are forgotten.
struct Library {
  static constexpr std::size_t most_plans = 4096;
  Handle handle;
  std::map<std::pair<Product, Alignments>, Plan> plans;
};

Library& library(const Product& p) {
  thread_local Library library;
  if (library.handle == nullptr) {
    cublasLtHandle_t made = nullptr;
    check(cublasLtCreate(&made), "cublasLtCreate", p);
    library.handle.reset(made);
  }
  return library;
}

// The factors and the result are of Product's types; so are one and zero.
template <class Number> void multiply(const Product& p, const void* a, const void* b, const float* bias, Number* c) {
  Library& cublas = library(p);
  const Alignments aligned{alignment(a), alignment(b), p.bias ? alignment(bias) : 0, alignment(c)};
  auto found = cublas.plans.find({p, aligned});
  if (found == cublas.plans.end()) {
    if (cublas.plans.size() == Library::most_plans) cublas.plans.clear();
    found = cublas.plans.try_emplace({p, aligned}, cublas.handle.get(), p, aligned, bias).first;
  }
  const Plan& plan = found->second;
  if (p.bias) set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias, p);
  const Scratch workspace(plan.workspace);
  const Number one = 1, zero = 0;
  check(cublasLtMatmul(cublas.handle.get(), plan.description.get(), &one, b, plan.first.get(), a, plan.second.get(), &zero, c,
                       plan.result.get(), c, plan.result.get(), &plan.algorithm, workspace.data<void>(), plan.workspace,
                       stream()),
        "cublasLtMatmul", p);
}

}  // namespace

void multiply(const Product& p, const float* a, const float* b, const float* bias, float* c) {
  multiply<float>(p, a, b, bias, c);
}

void multiply_codes(std::int64_t m, std::int64_t n, std::int64_t k, const std::int8_t* a, const std::int8_t* b,
                    std::int32_t* c) {
  Product p{false, true, m, n, k};
  p.s8 = true;
  multiply<std::int32_t>(p, a, b, nullptr, c);
}

std::string version() {
  const std::size_t number = cublasLtGetVersion();  // major * 10000 + minor * 100 + patch
  return message("cuBLAS ", number / 10000, '.', number / 100 % 100, '.', number % 100);
}

}  // namespace shrike::cuda::cublas
#endif
