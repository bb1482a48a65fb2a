#include "shrike/core/autograd.hpp"

#include <unordered_map>
#include <unordered_set>

namespace shrike {
namespace {

thread_local bool grad_mode = true;
thread_local Tracer* tracer = nullptr;

std::shared_ptr<TapeNode> record(OpPtr op, const Tensors& inputs, const Tensors& outputs) {
  auto node = std::make_shared<TapeNode>();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    TapeNode::Edge edge;
    const bool needed = inputs[i].defined() && inputs[i].requires_grad();
    if (needed && inputs[i].node()) {
      edge.node = inputs[i].node();
      edge.output = inputs[i].node_output();
    } else if (needed) {
      edge.leaf = inputs[i];
    }
    node->edges.push_back(std::move(edge));
    node->needed.push_back(needed);
    node->inputs.push_back(inputs[i].defined() && op->saves_input(i) ? inputs[i].detach() : Tensor());
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    node->outputs.push_back(op->saves_output(i) ? outputs[i].detach() : Tensor());
  }
  node->op = std::move(op);
  return node;
}

// sum += grad; the first gradient is kept as it is, and overwritten later only if nobody else holds it.
void add_gradient(Tensor& sum, Tensor grad) {
  if (!sum.defined()) {
    sum = std::move(grad);
  } else {
    if (!sum.unique()) sum = sum.clone();
    accumulate(sum, grad);
  }
}

void add_leaf_gradient(const Tensor& leaf, Tensor grad) {
  SHRIKE_CHECK(grad.shape() == leaf.shape(), "a gradient of shape ", grad.shape(), " for a tensor of shape ", leaf.shape());
  if (!leaf.grad().defined()) {
    leaf.set_grad(grad);
  } else {
    Tensor sum = leaf.grad();
    leaf.clear_grad();
    add_gradient(sum, std::move(grad));
    leaf.set_grad(sum);
  }
}

// The entries below `roots`, every entry before those that it depends on.
std::vector<std::shared_ptr<TapeNode>> topological_order(const Tensors& roots) {
  struct Visit {
    std::shared_ptr<TapeNode> node;
    std::size_t next_edge = 0;
  };
  std::vector<std::shared_ptr<TapeNode>> finished;
  std::unordered_set<const TapeNode*> seen;
  std::vector<Visit> stack;  // explicit: tapes are deep
  for (const Tensor& root : roots) {
    if (root.node() && seen.insert(root.node().get()).second) stack.push_back({root.node()});
    while (!stack.empty()) {
      Visit& top = stack.back();
      if (top.next_edge == top.node->edges.size()) {
        finished.push_back(std::move(top.node));
        stack.pop_back();
      } else {
        const auto& below = top.node->edges[top.next_edge++].node;
        if (below && seen.insert(below.get()).second) stack.push_back({below});
      }
    }
  }
  return {finished.rbegin(), finished.rend()};
}

}  // namespace

// Long tapes are taken apart in a loop: the default would recurse once for every operation.
TapeNode::~TapeNode() {
  std::vector<std::shared_ptr<TapeNode>> pending;
  const auto take = [&](TapeNode& node) {
    for (Edge& edge : node.edges) {
      if (edge.node && edge.node.use_count() == 1) pending.push_back(std::move(edge.node));
    }
  };
  take(*this);
  while (!pending.empty()) {
    const auto node = std::move(pending.back());
    pending.pop_back();
    take(*node);
  }
}

Tensors call(OpPtr op, const Tensors& inputs) {
  Tensors outputs = op->forward(inputs);
  if (tracer != nullptr) tracer->record(op, inputs, outputs);
  bool wanted = false;
  for (const Tensor& input : inputs) wanted |= input.defined() && input.requires_grad();
  if (grad_mode && wanted) {
    const auto node = record(std::move(op), inputs, outputs);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i].dtype() == Dtype::f32) outputs[i].set_node(node, static_cast<int>(i));
    }
  }
  return outputs;
}

void backward(const Tensor& root) {
  SHRIKE_CHECK(root.numel() == 1, "backward() from a tensor of shape ", root.shape(), ": expected one element");
  backward({root}, {full(root.shape(), 1.0f, root.device())});
}

void backward(const Tensors& roots, const Tensors& root_grads) {
  SHRIKE_CHECK(roots.size() == root_grads.size(), roots.size(), " roots with ", root_grads.size(), " gradients");
  const NoGrad no_grad;
  auto order = topological_order(roots);
  std::unordered_map<const TapeNode*, Tensors> grads;  // of each entry's outputs, summed so far
  const auto add = [&](const std::shared_ptr<TapeNode>& node, int output, Tensor grad) {
    Tensors& sums = grads[node.get()];
    if (sums.empty()) sums.resize(node->outputs.size());
    add_gradient(sums[static_cast<std::size_t>(output)], std::move(grad));
  };
  for (std::size_t i = 0; i < roots.size(); ++i) {
    SHRIKE_CHECK(roots[i].requires_grad(), "backward() from a tensor that does not depend on any that requires a gradient");
    if (roots[i].node()) {
      add(roots[i].node(), roots[i].node_output(), root_grads[i]);
    } else {
      add_leaf_gradient(roots[i], root_grads[i]);
    }
  }
  for (auto& node : order) {
    const auto found = grads.find(node.get());
    if (found == grads.end()) continue;  // nothing that counts depends on it
    SHRIKE_CHECK(node->op, "backward() a second time through the same operations: their saved tensors are gone");
    Tensors in_grads = node->op->backward({node->inputs, node->outputs, found->second, node->needed});
    grads.erase(found);
    node->inputs.clear();
    node->outputs.assign(node->outputs.size(), Tensor());
    node->op.reset();
    for (std::size_t i = 0; i < in_grads.size(); ++i) {
      const TapeNode::Edge& edge = node->edges[i];
      if (!in_grads[i].defined() || !node->needed[i]) continue;
      if (edge.node) {
        add(edge.node, edge.output, std::move(in_grads[i]));
      } else {
        add_leaf_gradient(edge.leaf, std::move(in_grads[i]));
      }
    }
    node.reset();
  }
}

bool grad_enabled() { return grad_mode; }

NoGrad::NoGrad() : before_(std::exchange(grad_mode, false)) {}
NoGrad::~NoGrad() { grad_mode = before_; }

TraceScope::TraceScope(Tracer& scope_tracer) : before_(std::exchange(tracer, &scope_tracer)) {}
TraceScope::~TraceScope() { tracer = before_; }

}  // namespace shrike
