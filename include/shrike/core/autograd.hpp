// The gate through which every operation passes, and the tape behind it.
#pragma once

#include <concepts>
#include <memory>
#include <utility>

#include "shrike/core/op.hpp"

namespace shrike {

// One recorded operation. Edges lead to the tape entries of its inputs, or to leaves whose gradient is wanted.
struct TapeNode {
  struct Edge {
    std::shared_ptr<TapeNode> node;  // the input's maker, if it is not a leaf
    int output = 0;                  // which of the maker's outputs
    Tensor leaf;                     // else the leaf to accumulate into; undefined when no gradient is wanted
  };

  ~TapeNode();

  OpPtr op;
  std::vector<Edge> edges;
  std::vector<bool> needed;
  Tensors inputs;   // without history; undefined where the operation does not save them
  Tensors outputs;  // likewise
};

// Runs `op`: records it on the tape if some input requires a gradient and gradients are enabled on this thread, and hands it to
// this thread's tracer if there is one. Every operation enters here.
Tensors call(OpPtr op, const Tensors& inputs);

// The usual spelling: call<Relu>({}, {x}).
template <std::derived_from<Op> O> Tensors call(O op, const Tensors& inputs) {
  return call(OpPtr(std::make_shared<const O>(std::move(op))), inputs);
}

// Accumulates d(root)/d(leaf) into the grad() of every leaf that requires one; `root` has one element. The tape below root is
// consumed: saved tensors are freed as soon as they were used. Gradients are summed in a fixed order.
void backward(const Tensor& root);
// The same from given output gradients.
void backward(const Tensors& roots, const Tensors& grads);

bool grad_enabled();

// No operation is recorded on the tape in this scope, on this thread.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

// Sees every operation that passes the gate on this thread while it is installed.
struct Tracer {
  virtual ~Tracer() = default;
  virtual void record(const OpPtr& op, const Tensors& inputs, const Tensors& outputs) = 0;
};

class TraceScope {
 public:
  explicit TraceScope(Tracer& tracer);
  ~TraceScope();
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

 private:
  Tracer* before_;
};

}  // namespace shrike
