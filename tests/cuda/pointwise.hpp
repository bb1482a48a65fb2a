// Runs an operation, and its gradients, on the CPU and on the device, for comparison.
#pragma once

#include <functional>

#include "compare.hpp"
#include "reference.hpp"

namespace pointwise {

using namespace shrike;

// y, then the gradients of the inputs that have one, under the output gradient `dy`.
inline Tensors run(const reference::Operation& operation, const Tensors& inputs, const Tensor& dy, Device device) {
  Tensors there;
  for (const Tensor& input : inputs) {
    there.push_back(input.defined() ? input.clone().to(device) : Tensor());
    if (input.defined() && input.requires_grad()) there.back().set_requires_grad(true);
  }
  const Tensor y = operation(there);
  Tensors result = {y};
  if (dy.defined()) {
    backward({y}, {dy.to(device)});
    for (const Tensor& input : there) {
      if (input.defined() && input.requires_grad()) result.push_back(input.grad());
    }
  }
  return result;
}

// Value and gradients agree with the CPU's to `tolerance`, where 0 means equal (NaN to NaN), and two runs agree to the bit.
inline void check(const reference::Operation& operation, const Tensors& inputs, const Tensor& dy, double tolerance = 0) {
  const Tensors expected = run(operation, inputs, dy, Device::cpu);
  const Tensors got = run(operation, inputs, dy, Device::cuda);
  const Tensors again = run(operation, inputs, dy, Device::cuda);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO((i == 0 ? "output" : "gradient ") << i << " of shape " << message(expected[i].shape()));
    REQUIRE(got[i].shape() == expected[i].shape());
    CHECK(same_bits(got[i], again[i]));
    if (expected[i].dtype() != Dtype::f32) {
      CHECK(same_bits(got[i], expected[i]));
      continue;
    }
    const auto a = got[i].to_vector<float>(), b = expected[i].to_vector<float>();
    for (std::size_t k = 0; k < a.size(); ++k) {
      const double x = static_cast<double>(a[k]), y = static_cast<double>(b[k]);
      const bool equal =
          x == y || (std::isnan(x) && std::isnan(y)) || std::abs(x - y) <= tolerance * std::max(1.0, std::abs(y));
      if (!equal) FAIL("element " << k << ": " << x << ", the CPU has " << y);
    }
  }
}

}  // namespace pointwise
