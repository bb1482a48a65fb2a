// Layers: the operations with their parameters.
#pragma once

#include "shrike/nn/module.hpp"
#include "shrike/ops/batch_norm.hpp"
#include "shrike/ops/conv.hpp"
#include "shrike/ops/dropout.hpp"
#include "shrike/ops/elementwise.hpp"
#include "shrike/ops/linear.hpp"
#include "shrike/ops/pool.hpp"

namespace shrike::nn {

// How a layer's weights start; biases start at 0.
struct Init {
  enum class Kind {
    uniform,  // in [-1, 1] / sqrt(fan_in): PyTorch's default. Before batch norm the scale only sets how fast the layer learns
    he,       // normal with variance 2 / fan_in (He et al. 2015): for deep stacks of ReLU layers without batch norm
    normal,   // normal with standard deviation `std`
  } kind = Kind::uniform;
  float std = 0.01f;
  bool biases = false;  // uniform in [-1, 1] / sqrt(fan_in) as well, as in PyTorch; else they begin at zero
  float gain = 1;       // he: the standard deviation is multiplied by it

  static Init he(float gain = 1) { return {Kind::he, 0, false, gain}; }
  static Init normal(float std) { return {Kind::normal, std}; }
  static Init pytorch() { return {Kind::uniform, 0, true}; }
  // Of a layer whose units add up fan_in inputs. bias may be undefined.
  void fill(const Tensor& weight, const Tensor& bias, std::int64_t fan_in, Random& random) const;
};

// x [N, H, W, in] -> [N, H', W', out]. Weight [out, kernel, kernel, in / groups], bias [out].
class Conv2d : public Module {
 public:
  Conv2d(std::int64_t in, std::int64_t out, int kernel, const Conv2dOptions& options = {}, bool with_bias = true,
         Init init = {});
  Tensors forward(const Tensors& in) override { return {conv2d(in[0], weight, bias, options)}; }
  void visit(Members& members) override;
  void reset(Random& random) override;

  Conv2dOptions options;
  Tensor weight;
  Tensor bias;

 private:
  Init init_;
};

// x [N, in] -> [N, out]. Weight [out, in], bias [out].
class Linear : public Module {
 public:
  Linear(std::int64_t in, std::int64_t out, bool relu = false, Init init = {});
  Tensors forward(const Tensors& in) override { return {linear(in[0], weight, bias, relu)}; }
  void visit(Members& members) override;
  void reset(Random& random) override;

  bool relu;
  Tensor weight;
  Tensor bias;

 private:
  Init init_;
};

// Batch normalisation over all but the last dimension. Frozen: always by the running statistics, without training its
// parameters.
class BatchNorm : public Module {
 public:
  explicit BatchNorm(std::int64_t channels, bool relu = false, bool frozen = false);
  Tensors forward(const Tensors& in) override;
  void visit(Members& members) override;
  void reset(Random& random) override;

  bool relu;
  bool frozen;
  double momentum = 0.1;
  double eps = 1e-5;
  Tensor weight;
  Tensor bias;
  Tensor running_mean;
  Tensor running_var;
};

class MaxPool2d : public Module {
 public:
  explicit MaxPool2d(const PoolOptions& pool_options) : options(pool_options) {}
  Tensors forward(const Tensors& in) override { return {max_pool2d(in[0], options)}; }

  PoolOptions options;
};

// In training, zeroes each element with probability p and scales the others by 1 / (1 - p); see set_step().
class Dropout : public Module {
 public:
  explicit Dropout(double probability) : p(probability) {}
  Tensors forward(const Tensors& in) override { return training() && p > 0 ? Tensors{dropout(in[0], p, seed, step)} : in; }

  double p;
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
};

// One module after another, each with a name.
class Sequential : public Module {
 public:
  Sequential& add(std::string name, ModulePtr module) {
    modules_.emplace_back(std::move(name), std::move(module));
    return *this;
  }
  Tensors forward(const Tensors& in) override {
    Tensors x = in;
    for (auto& [name, module] : modules_) x = module->forward(x);
    return x;
  }
  void visit(Members& members) override {
    for (auto& [name, module] : modules_) members.child(name, *module);
  }
  std::vector<std::pair<std::string, ModulePtr>>& modules() { return modules_; }

 private:
  std::vector<std::pair<std::string, ModulePtr>> modules_;
};

}  // namespace shrike::nn
