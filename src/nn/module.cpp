#include "shrike/nn/module.hpp"

#include "shrike/nn/layers.hpp"

namespace shrike::nn {
namespace {

std::string join(const std::string& prefix, const std::string& name) { return prefix.empty() ? name : prefix + "." + name; }

// Walks a module and everything below it; subclasses look at what they came for.
struct Walk : Members {
  std::string prefix;

  virtual void on_module(Module&) {}
  void parameter(const std::string&, Tensor&) override {}
  void buffer(const std::string&, Tensor&) override {}
  void child(const std::string& name, Module& module) override {
    const std::string before = std::exchange(prefix, join(prefix, name));
    walk(module);
    prefix = before;
  }
  void walk(Module& module) {
    on_module(module);
    module.visit(*this);
  }
};

struct Collect : Walk {
  bool parameters = false;
  bool buffers = false;
  NamedTensors found;

  void parameter(const std::string& name, Tensor& tensor) override {
    if (parameters && tensor.defined()) found.emplace_back(join(prefix, name), tensor);
  }
  void buffer(const std::string& name, Tensor& tensor) override {
    if (buffers && tensor.defined()) found.emplace_back(join(prefix, name), tensor);
  }
};

NamedTensors collect(Module& root, bool parameters, bool buffers) {
  Collect walk;
  walk.parameters = parameters;
  walk.buffers = buffers;
  walk.walk(root);
  return std::move(walk.found);
}

}  // namespace

void for_each_module(Module& root, const std::function<void(const std::string&, Module&)>& f) {
  struct Each : Walk {
    const std::function<void(const std::string&, Module&)>* f = nullptr;
    void on_module(Module& module) override { (*f)(prefix, module); }
  } walk;
  walk.f = &f;
  walk.walk(root);
}

NamedTensors named_parameters(Module& root) { return collect(root, true, false); }
NamedTensors named_buffers(Module& root) { return collect(root, false, true); }
NamedTensors named_state(Module& root) { return collect(root, true, true); }

std::size_t bytes_of(Module& root) {
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : named_state(root)) bytes += tensor.bytes();
  return bytes;
}

std::optional<Tensors> replayable_state(Module& root) {
  struct State : Members {  // no names: this is done for every image
    Tensors found;
    bool replayable = true;

    void parameter(const std::string&, Tensor& tensor) override {
      if (tensor.defined()) found.push_back(tensor);
    }
    void buffer(const std::string& name, Tensor& tensor) override { parameter(name, tensor); }
    void child(const std::string&, Module& module) override {
      replayable &= module.replayable() && !module.training();
      if (replayable) module.visit(*this);
    }
  } state;
  state.child("", root);
  if (!state.replayable) return std::nullopt;
  return std::move(state.found);
}

void train(Module& root, bool on) {
  for_each_module(root, [&](const std::string&, Module& module) { module.training_ = on; });
}

void set_requires_grad(Module& root, bool on) {
  for (auto& [name, tensor] : named_parameters(root)) tensor.set_requires_grad(on);
}

void to(Module& root, Device device) {
  struct Move : Walk {
    Device device = Device::cpu;
    void parameter(const std::string& name, Tensor& tensor) override { buffer(name, tensor); }
    void buffer(const std::string&, Tensor& tensor) override {
      if (!tensor.defined() || tensor.device() == device) return;
      const bool wanted = tensor.requires_grad();
      tensor = tensor.to(device);
      tensor.set_requires_grad(wanted);
    }
  } walk;
  walk.device = device;
  walk.walk(root);
}

void initialize(Module& root, std::uint64_t seed) {
  for_each_module(root, [&](const std::string& name, Module& module) {
    Random random(seed, RandomStream::init, hash_name(name));
    module.reset(random);
  });
}

void set_step(Module& root, std::uint64_t seed, std::uint64_t step) {
  for_each_module(root, [&](const std::string& name, Module& module) {
    if (auto* dropout = dynamic_cast<Dropout*>(&module)) {
      dropout->seed = seed ^ hash_name(name);
      dropout->step = step;
    }
  });
}

std::uint64_t hash_name(const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace shrike::nn
