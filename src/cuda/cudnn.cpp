#include "kernels/cuda.hpp"

#if !SHRIKE_CUDA_HOST
#include <array>
#include <map>
#include <tuple>

#include "cudnn.hpp"
#include "cudnn_call.hpp"

namespace shrike::cuda::cudnn {

void check(cudnnStatus_t status, const char* call, const Conv2dSizes& z) {
  SHRIKE_CHECK(status == CUDNN_STATUS_SUCCESS, "cuDNN: ", call, ": ", cudnnGetErrorString(status), ", for x [", z.n, ", ", z.h,
               ", ", z.w, ", ", z.c, "], weight [", z.k, ", ", z.r, ", ", z.s, ", ", z.c / z.groups, "], stride ", z.stride,
               ", padding ", z.padding, ", dilation ", z.dilation, ", groups ", z.groups);
}

cudnnHandle_t handle(const Conv2dSizes& z) {
  thread_local Owned<cudnnHandle_t, cudnnDestroy> owned;
  if (owned == nullptr) {
    cudnnHandle_t made = nullptr;
    check(cudnnCreate(&made), "cudnnCreate", z);
    owned.reset(made);
  }
  check(cudnnSetStream(owned.get(), stream()), "cudnnSetStream", z);
  return owned.get();
}

namespace {

int narrow(std::int64_t size, const Conv2dSizes& z) {
  check(size <= INT_MAX ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED, "a size above 2147483647", z);
  return static_cast<int>(size);
}

// What a shape is to cuDNN. Made once for each shape, with the algorithms that fit it.
struct Shape {
  Owned<cudnnTensorDescriptor_t, cudnnDestroyTensorDescriptor> x, y, bias;
  Owned<cudnnFilterDescriptor_t, cudnnDestroyFilterDescriptor> weight;
  Owned<cudnnConvolutionDescriptor_t, cudnnDestroyConvolutionDescriptor> convolution;
  Owned<cudnnActivationDescriptor_t, cudnnDestroyActivationDescriptor> relu, identity;
  std::map<std::pair<Pass, bool>, std::vector<Algorithm>> algorithms;

  explicit Shape(const Conv2dSizes& z);
};

auto tensor(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w, const Conv2dSizes& z) {
  cudnnTensorDescriptor_t made = nullptr;
  check(cudnnCreateTensorDescriptor(&made), "cudnnCreateTensorDescriptor", z);
  Owned<cudnnTensorDescriptor_t, cudnnDestroyTensorDescriptor> owned(made);
  // Sizes are named in the order NCHW whatever the layout is.
  check(cudnnSetTensor4dDescriptor(made, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, narrow(n, z), narrow(c, z), narrow(h, z),
                                   narrow(w, z)),
        "cudnnSetTensor4dDescriptor", z);
  return owned;
}

auto activation(cudnnActivationMode_t mode, const Conv2dSizes& z) {
  cudnnActivationDescriptor_t made = nullptr;
  check(cudnnCreateActivationDescriptor(&made), "cudnnCreateActivationDescriptor", z);
  Owned<cudnnActivationDescriptor_t, cudnnDestroyActivationDescriptor> owned(made);
  check(cudnnSetActivationDescriptor(made, mode, CUDNN_PROPAGATE_NAN, 0.0), "cudnnSetActivationDescriptor", z);
  return owned;
}

Shape::Shape(const Conv2dSizes& z)
    : x(tensor(z.n, z.c, z.h, z.w, z)),
      y(tensor(z.n, z.k, z.p, z.q, z)),
      bias(tensor(1, z.k, 1, 1, z)),
      relu(activation(CUDNN_ACTIVATION_RELU, z)),
      identity(activation(CUDNN_ACTIVATION_IDENTITY, z)) {
  cudnnFilterDescriptor_t filter = nullptr;
  check(cudnnCreateFilterDescriptor(&filter), "cudnnCreateFilterDescriptor", z);
  weight.reset(filter);
  // For a filter, NHWC means KRSC; the sizes are named in the order KCRS.
  check(cudnnSetFilter4dDescriptor(filter, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NHWC, narrow(z.k, z), narrow(z.c / z.groups, z),
                                   narrow(z.r, z), narrow(z.s, z)),
        "cudnnSetFilter4dDescriptor", z);
  cudnnConvolutionDescriptor_t made = nullptr;
  check(cudnnCreateConvolutionDescriptor(&made), "cudnnCreateConvolutionDescriptor", z);
  convolution.reset(made);
  const int padding = narrow(z.padding, z), stride = narrow(z.stride, z), dilation = narrow(z.dilation, z);
  // Cross-correlation is what deep learning calls convolution: the filter is not mirrored.
  check(cudnnSetConvolution2dDescriptor(made, padding, padding, stride, stride, dilation, dilation, CUDNN_CROSS_CORRELATION,
                                        CUDNN_DATA_FLOAT),
        "cudnnSetConvolution2dDescriptor", z);
  check(cudnnSetConvolutionGroupCount(made, narrow(z.groups, z)), "cudnnSetConvolutionGroupCount", z);
}

// A thread keeps the shapes it met; when they are very many, image sizes come and go, and all are made anew.
Shape& shape(const Conv2dSizes& z) {
  using Key = std::array<std::int64_t, 13>;
  constexpr std::size_t most_shapes = 4096;
  thread_local std::map<Key, Shape> shapes;
  const Key key{z.n, z.h, z.w, z.c, z.k, z.r, z.s, z.p, z.q, z.stride, z.padding, z.dilation, z.groups};
  const auto found = shapes.find(key);
  if (found != shapes.end()) return found->second;
  if (shapes.size() == most_shapes) shapes.clear();
  return shapes.try_emplace(key, z).first->second;
}

void set_math(const Shape& s, int math, const Conv2dSizes& z) {
  check(cudnnSetConvolutionMathType(s.convolution.get(), static_cast<cudnnMathType_t>(math)), "cudnnSetConvolutionMathType", z);
}

template <class Performance> std::vector<Algorithm> usable(const std::vector<Performance>& found, int count, bool tf32) {
  std::vector<Algorithm> result;
  for (int i = 0; i < count; ++i) {
    const Performance& p = found[static_cast<std::size_t>(i)];
    if (p.status != CUDNN_STATUS_SUCCESS || p.determinism != CUDNN_DETERMINISTIC || p.memory > workspace_limit) continue;
    if (!tf32 && p.mathType != CUDNN_FMA_MATH) continue;
    const Algorithm algorithm{static_cast<int>(p.algo), static_cast<int>(p.mathType), p.memory};
    // Two kinds of permission to use tensor cores are one kind of arithmetic.
    const auto same = [&](const Algorithm& other) { return other.name() == algorithm.name(); };
    if (std::none_of(result.begin(), result.end(), same)) result.push_back(algorithm);
  }
  return result;
}

std::vector<Algorithm> list(Pass pass, const Conv2dSizes& z, const Shape& s, bool tf32) {
  // The default permits TF32 on the devices that have it; FMA forbids tensor cores.
  set_math(s, tf32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH, z);
  int count = 0;
  constexpr int most = 32;  // algorithms, each perhaps with several kinds of arithmetic
  if (pass == Pass::forward) {
    std::vector<cudnnConvolutionFwdAlgoPerf_t> found(most);
    check(cudnnGetConvolutionForwardAlgorithm_v7(handle(z), s.x.get(), s.weight.get(), s.convolution.get(), s.y.get(), most,
                                                 &count, found.data()),
          "cudnnGetConvolutionForwardAlgorithm_v7", z);
    return usable(found, count, tf32);
  }
  if (pass == Pass::backward_data) {
    std::vector<cudnnConvolutionBwdDataAlgoPerf_t> found(most);
    check(cudnnGetConvolutionBackwardDataAlgorithm_v7(handle(z), s.weight.get(), s.y.get(), s.convolution.get(), s.x.get(),
                                                      most, &count, found.data()),
          "cudnnGetConvolutionBackwardDataAlgorithm_v7", z);
    return usable(found, count, tf32);
  }
  std::vector<cudnnConvolutionBwdFilterAlgoPerf_t> found(most);
  check(cudnnGetConvolutionBackwardFilterAlgorithm_v7(handle(z), s.x.get(), s.y.get(), s.convolution.get(), s.weight.get(),
                                                      most, &count, found.data()),
        "cudnnGetConvolutionBackwardFilterAlgorithm_v7", z);
  return usable(found, count, tf32);
}

constexpr float one = 1, zero = 0;

}  // namespace

std::string Algorithm::name() const { return message("cudnn ", number, math == CUDNN_FMA_MATH ? "" : " tf32"); }

const std::vector<Algorithm>& algorithms(Pass pass, const Conv2dSizes& z, bool tf32) {
  Shape& s = shape(z);
  const auto found = s.algorithms.find({pass, tf32});
  if (found != s.algorithms.end()) return found->second;
  return s.algorithms.emplace(std::pair(pass, tf32), list(pass, z, s, tf32)).first->second;
}

void forward(const Conv2dSizes& z, const Algorithm& algorithm, const float* x, const float* weight, const float* bias,
             float* y) {
  const Shape& s = shape(z);
  const cudnnHandle_t cudnn = handle(z);
  set_math(s, algorithm.math, z);
  const Scratch workspace(algorithm.workspace);
  const auto number = static_cast<cudnnConvolutionFwdAlgo_t>(algorithm.number);
  // Bias and ReLU in the same call; without ReLU cuDNN does that in one of its algorithms only. The added z is y, times 0.
  if (bias != nullptr && (z.relu || number == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM)) {
    const cudnnStatus_t status = cudnnConvolutionBiasActivationForward(
        cudnn, &one, s.x.get(), x, s.weight.get(), weight, s.convolution.get(), number, workspace.data<void>(),
        algorithm.workspace, &zero, s.y.get(), y, s.bias.get(), bias, z.relu ? s.relu.get() : s.identity.get(), s.y.get(), y);
    return check(status, "cudnnConvolutionBiasActivationForward", z);
  }
  check(cudnnConvolutionForward(cudnn, &one, s.x.get(), x, s.weight.get(), weight, s.convolution.get(), number,
                                workspace.data<void>(), algorithm.workspace, &zero, s.y.get(), y),
        "cudnnConvolutionForward", z);
  if (bias != nullptr) check(cudnnAddTensor(cudnn, &one, s.bias.get(), bias, &one, s.y.get(), y), "cudnnAddTensor", z);
  if (z.relu) {
    check(cudnnActivationForward(cudnn, s.relu.get(), &one, s.y.get(), y, &zero, s.y.get(), y), "cudnnActivationForward", z);
  }
}

void backward_data(const Conv2dSizes& z, const Algorithm& algorithm, const float* weight, const float* dy, float* dx) {
  const Shape& s = shape(z);
  const cudnnHandle_t cudnn = handle(z);
  set_math(s, algorithm.math, z);
  const Scratch workspace(algorithm.workspace);
  check(cudnnConvolutionBackwardData(cudnn, &one, s.weight.get(), weight, s.y.get(), dy, s.convolution.get(),
                                     static_cast<cudnnConvolutionBwdDataAlgo_t>(algorithm.number), workspace.data<void>(),
                                     algorithm.workspace, &zero, s.x.get(), dx),
        "cudnnConvolutionBackwardData", z);
}

void backward_weight(const Conv2dSizes& z, const Algorithm& algorithm, const float* x, const float* dy, float* dweight) {
  const Shape& s = shape(z);
  const cudnnHandle_t cudnn = handle(z);
  set_math(s, algorithm.math, z);
  const Scratch workspace(algorithm.workspace);
  check(cudnnConvolutionBackwardFilter(cudnn, &one, s.x.get(), x, s.y.get(), dy, s.convolution.get(),
                                       static_cast<cudnnConvolutionBwdFilterAlgo_t>(algorithm.number), workspace.data<void>(),
                                       algorithm.workspace, &zero, s.weight.get(), dweight),
        "cudnnConvolutionBackwardFilter", z);
}

std::string version() {
  const std::size_t number = cudnnGetVersion();  // major * 10000 + minor * 100 + patch
  return message("cuDNN ", number / 10000, '.', number / 100 % 100, '.', number % 100);
}

}  // namespace shrike::cuda::cudnn
#endif
