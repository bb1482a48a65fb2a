// Devices, and the one switch between their kernels.
#pragma once

#include <string>
#include <utility>

#include "shrike/core/check.hpp"

// Defined to 1 by the build when the CUDA backend (by nvcc, or on the host) is linked in.
#ifndef SHRIKE_HAS_CUDA
#define SHRIKE_HAS_CUDA 0
#endif

// Marks a function that kernels call as well as the host: the same words on every device.
#ifdef __CUDACC__
#define SHRIKE_HOST_DEVICE __host__ __device__
#else
#define SHRIKE_HOST_DEVICE
#endif

namespace shrike {

enum class Device : unsigned char { cpu, cuda };

// Tags that choose a kernel at compile time, by overload.
struct Cpu {};
struct Cuda {};

inline const char* name(Device device) { return device == Device::cuda ? "cuda" : "cpu"; }

// "cpu" or "cuda"; throws Error on anything else.
inline Device parse_device(const std::string& text) {
  if (text == "cpu") return Device::cpu;
  if (text == "cuda") return Device::cuda;
  fail("device '", text, "': expected cpu or cuda");
}

// Calls f(Cpu{}) or f(Cuda{}). Throws Error for Device::cuda in a build without CUDA.
template <class F> decltype(auto) dispatch(Device device, F&& f) {
  if (device == Device::cuda) {
#if SHRIKE_HAS_CUDA
    return std::forward<F>(f)(Cuda{});
#else
    fail("device cuda: this build of Shrike has no CUDA backend (configure with SHRIKE_CUDA=ON or HOST)");
#endif
  }
  return std::forward<F>(f)(Cpu{});
}

}  // namespace shrike

// Declares a kernel for every device:
//   SHRIKE_KERNEL(relu_forward, std::int64_t n, const float* x, float* y);
// Each backend defines its own, void relu_forward(Cpu, std::int64_t n, ...); one that is missing is a link error.
#define SHRIKE_KERNEL(name, ...)         \
  void name(::shrike::Cpu, __VA_ARGS__); \
  void name(::shrike::Cuda, __VA_ARGS__)
