// Module: a part of a model, with named parameters, buffers and children.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shrike/core/autograd.hpp"
#include "shrike/core/random.hpp"

namespace shrike::nn {

class Module;

// Receives each member of a module by name.
struct Members {
  virtual ~Members() = default;
  virtual void parameter(const std::string& name, Tensor& tensor) = 0;
  virtual void buffer(const std::string& name, Tensor& tensor) = 0;
  virtual void child(const std::string& name, Module& module) = 0;
};

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  virtual Tensors forward(const Tensors& inputs) = 0;
  // The first output, for the many modules that have one input and one output.
  Tensor operator()(const Tensor& x) { return forward({x})[0]; }

  // Names every parameter, buffer and child. Undefined tensors (a convolution without bias) are passed over.
  virtual void visit(Members&) {}

  // Fills this module's own parameters, not its children's. See initialize().
  virtual void reset(Random&) {}

  bool training() const { return training_; }

  // Whether forward(), in inference, only runs operations that shapes decide, on its input and this module's tensors, reads
  // nothing back to the host and leaves nothing behind in the module: so that running those operations again is all there is to
  // another call (core/replay.hpp).
  virtual bool replayable() const { return true; }

 private:
  friend void train(Module& root, bool on);
  bool training_ = true;
};

using ModulePtr = std::shared_ptr<Module>;

// Calls f(name, module) for `root` (named "") and everything below it, parents first.
void for_each_module(Module& root, const std::function<void(const std::string& name, Module&)>& f);

// Parameters (trained) and buffers (running statistics), in visiting order, under names such as "features.0.weight".
NamedTensors named_parameters(Module& root);
NamedTensors named_buffers(Module& root);
// Both: all that makes the module what it is.
NamedTensors named_state(Module& root);
std::size_t bytes_of(Module& root);  // of named_state()

// All tensors of named_state(), if `root` and everything below it is in inference and replayable().
std::optional<Tensors> replayable_state(Module& root);

// Training mode: dropout drops, batch norm uses the batch's statistics.
void train(Module& root, bool on = true);

// Whether the parameters of `root` take part in training.
void set_requires_grad(Module& root, bool on);

// Moves every tensor to `device`, keeping requires_grad.
void to(Module& root, Device device);

// Fills every parameter from random numbers that depend on the seed and the module's name alone.
void initialize(Module& root, std::uint64_t seed);

// Fixes the random numbers of the next step: those of each Dropout depend on (seed, its name, step) alone.
void set_step(Module& root, std::uint64_t seed, std::uint64_t step);

// Stable hash of a name (FNV-1a, 64 bit).
std::uint64_t hash_name(const std::string& name);

}  // namespace shrike::nn
