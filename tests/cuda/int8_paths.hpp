// Every way in which the device multiplies int8 codes.
#pragma once

#include "kernels/int8.hpp"
#include "quantized.hpp"

namespace int8_paths {

using namespace shrike;
using kernels::int8::Choice;
using kernels::int8::Path;

inline const Choice choices[] = {{Path::automatic, 0},    {Path::naive, 0},        {Path::dp4a, 64},
                                 {Path::dp4a, 128},       {Path::tensor16, 64},    {Path::tensor16, 128},
                                 {Path::tensor32, 64},    {Path::tensor32, 128},   {Path::dp4a, 64, 3},
                                 {Path::tensor16, 64, 2}, {Path::tensor32, 64, 5}, {Path::tensor32, 128, 2}};

inline Tensors on(Device device, const Tensors& tensors) {
  Tensors result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.defined() ? tensor.to(device) : tensor);
  return result;
}

// Every way to multiply against the CPU; without large tiles where they would only take longer.
template <class Op> void check(const Op& op, const Tensors& in, bool large = true) {
  const Tensor expected = call(op, in)[0];
  const Tensors moved = on(Device::cuda, in);
  for (const Choice& choice : choices) {
    if (choice.tile == 128 && !large) continue;
    INFO("path " << static_cast<int>(choice.path) << ", tile " << choice.tile << ", splits " << choice.splits);
    kernels::int8::choice() = choice;
    CHECK(quantized::same(call(op, moved)[0].to(Device::cpu), expected));
  }
  kernels::int8::choice() = {};
}

}  // namespace int8_paths
