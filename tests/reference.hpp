// Comparisons with plain double-precision references, and a numeric check of gradients.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "catch.hpp"
#include "shrike/core/autograd.hpp"
#include "shrike/core/random.hpp"

namespace reference {

using shrike::Shape;
using shrike::Tensor;
using shrike::Tensors;
using Doubles = std::vector<double>;

inline Doubles doubles(const Tensor& tensor) {
  const std::vector<float> values = tensor.to_vector<float>();
  return {values.begin(), values.end()};
}

// Uniform in [low, high).
inline Tensor random_tensor(const Shape& shape, shrike::Random& random, float low = -1.0f, float high = 1.0f) {
  const Tensor result(shape);
  for (std::int64_t i = 0; i < result.numel(); ++i) result.data<float>()[i] = random.uniform(low, high);
  return result;
}

// Small integers in [-limit, limit]: sums of their products are exact in float, so results can be compared with ==.
inline Tensor random_integers(const Shape& shape, shrike::Random& random, int limit = 4) {
  const Tensor result(shape);
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    result.data<float>()[i] =
        static_cast<float>(static_cast<int>(random.below(static_cast<std::uint32_t>(2 * limit + 1))) - limit);
  }
  return result;
}

// The greatest |got - expected| / max(1, |expected|); infinite when sizes differ or a value is not a number.
inline double difference(const Doubles& got, const Doubles& expected) {
  if (got.size() != expected.size()) return HUGE_VAL;
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - expected[i]) / std::max(1.0, std::abs(expected[i]));
    if (std::isnan(error)) return HUGE_VAL;
    worst = std::max(worst, error);
  }
  return worst;
}

inline double difference(const Tensor& got, const Doubles& expected) { return difference(doubles(got), expected); }

// d f / d x by central differences.
inline Doubles numeric_gradient(const std::function<double(const Doubles&)>& f, Doubles x, double step = 1e-6) {
  Doubles gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double before = x[i];
    x[i] = before + step;
    const double above = f(x);
    x[i] = before - step;
    const double below = f(x);
    x[i] = before;
    gradient[i] = (above - below) / (2 * step);
  }
  return gradient;
}

// The operation under test, and the same in double: inputs' elements -> output's elements.
using Operation = std::function<Tensor(const Tensors&)>;
using Reference = std::function<Doubles(const std::vector<Doubles>&)>;

struct GradientOptions {
  double tolerance = 1e-4;     // of value and gradients, relative where greater than 1
  double step = 1e-6;          // of the central differences
  std::vector<bool> wanted{};  // per input; empty: all of dtype f32
};

// Checks operation(inputs) against reference(inputs), and the gradients of sum(g * output), g random, that backward() computes
// in float against central differences of the reference in double. Inputs should stay away from kinks, and be few: the
// reference runs twice for every element. Inputs that are not f32 are handed to the reference as doubles too, and have no
// gradient.
inline void check_gradients(const Operation& operation, const Reference& reference, const Tensors& inputs,
                            shrike::Random& random, const GradientOptions& options = {}) {
  std::vector<Doubles> values;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool is_float = inputs[i].dtype() == shrike::Dtype::f32;
    const bool wanted = is_float && (options.wanted.empty() || options.wanted[i]);
    inputs[i].clear_grad();
    inputs[i].set_requires_grad(wanted);
    if (is_float) {
      values.push_back(doubles(inputs[i]));
    } else {
      const auto integers = inputs[i].to_vector<std::int32_t>();
      values.emplace_back(integers.begin(), integers.end());
    }
  }
  const Tensor output = operation(inputs);
  const Doubles expected = reference(values);
  INFO("output of shape " << shrike::message(output.shape()));
  CHECK(difference(output, expected) <= options.tolerance);
  const Tensor g = random_tensor(output.shape(), random);
  const Doubles weights = doubles(g);
  shrike::backward({output}, {g});
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].requires_grad()) {
      CHECK_FALSE(inputs[i].grad().defined());
      continue;
    }
    const auto loss = [&](const Doubles& x) {
      std::vector<Doubles> moved = values;
      moved[i] = x;
      const Doubles y = reference(moved);
      double sum = 0;
      for (std::size_t k = 0; k < y.size(); ++k) sum += weights[k] * y[k];
      return sum;
    };
    INFO("gradient of input " << i << " of shape " << shrike::message(inputs[i].shape()));
    REQUIRE(inputs[i].grad().defined());
    CHECK(difference(inputs[i].grad(), numeric_gradient(loss, values[i], options.step)) <= options.tolerance);
    inputs[i].clear_grad();
  }
}

}  // namespace reference
