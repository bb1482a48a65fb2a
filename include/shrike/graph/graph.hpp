// Graph: a recorded forward pass that can be run, trained, printed and rewritten.
#pragma once

#include <map>
#include <string>

#include "shrike/nn/module.hpp"

namespace shrike {

// Nodes in the order they ran. Values are numbered; constants are the very tensors of the module it was traced from, so
// training one trains the other.
class Graph : public nn::Module {
 public:
  using Value = std::int64_t;

  struct Node {
    OpPtr op;
    std::vector<Value> inputs;  // `none` stands for an undefined tensor
    std::vector<Value> outputs;
  };
  static constexpr Value none = -1;

  std::vector<Node> nodes;
  std::vector<Value> inputs;
  std::vector<Value> outputs;
  std::map<Value, Tensor> constants;
  std::map<Value, std::string> names;  // of constants, where they are known
  Value next_value = 0;

  // Runs every node through the gate, freeing each value after its last use. Throws Error when the number of inputs differs.
  Tensors forward(const Tensors& in) override;
  void visit(nn::Members& members) override;

  // How many nodes and graph outputs read each value.
  std::map<Value, int> uses() const;

  // One node a line: %5, %6 = conv2d stride=[1, 1] (%0, features.0.weight, features.0.bias).
  std::string to_string() const;
  // The same for Graphviz.
  std::string to_dot() const;
};

// Runs `module` in inference on example inputs and records what it did. Tensors met for the first time as an operand become
// constants, named after the module's parameters. Sizes that depend on the example become part of the graph.
std::shared_ptr<Graph> trace(nn::Module& module, const Tensors& example);

}  // namespace shrike
