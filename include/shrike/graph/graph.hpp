// Graph: a recorded forward pass that can be run, trained, printed and rewritten.
#pragma once

#include <map>
#include <set>
#include <string>

#include "shrike/nn/module.hpp"

namespace shrike {

// What the elements of a quantized tensor stand for: value = scale * code, zero point 0. Halves are their own codes, at
// scale 1.
struct Code {
  Dtype dtype = Dtype::u8;  // u8, s8 or f16
  float scale = 0;          // greater than 0
};

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
  std::set<Value> buffers;             // constants that are not trained: running statistics, scales
  std::map<Value, Code> codes;         // of values that are quantized
  Value next_value = 0;

  // Runs every node through the gate, freeing each value after its last use. Throws Error when the number of inputs differs.
  Tensors forward(const Tensors& in) override;
  // Constants of f32 are parameters, unless they are buffers; all others are buffers.
  void visit(nn::Members& members) override;

  // How many nodes and graph outputs read each value.
  std::map<Value, int> uses() const;
  // The index of the node that makes each value.
  std::map<Value, std::size_t> makers() const;

  // Becomes the same graph, of the same constants.
  void share(const Graph& other);

  Value add_constant(const Tensor& tensor, const std::string& name, bool buffer = false);
  // Every node and graph output that reads `from` reads `to`.
  void replace_uses(Value from, Value to);
  // Drops nodes that nothing depends on, and constants that nobody reads. Returns how many nodes went.
  std::size_t remove_dead();

  // "features.0.weight" for a constant of that name, else "%7".
  std::string value_name(Value value) const;
  // "features.0": the module that a node came from, by its weight's name; else its operation and output, "add %7".
  std::string node_name(const Node& node) const;

  // One node a line: %5, %6 = conv2d stride=[1, 1] (%0, features.0.weight, features.0.bias). Quantized values with their
  // code: %5:u8*0.0123.
  std::string to_string() const;
  // The same for Graphviz: edges carry dtype and scale of quantized values.
  std::string to_dot() const;

 protected:
  // Called with each graph input and each value that a later node or the output reads, as soon as it is there.
  virtual void computed(Value, const Tensor&) {}
};

// Runs `module` in inference on example inputs and records what it did. Tensors met for the first time as an operand become
// constants, named after the module's parameters. A reshape that keeps the first size keeps it for any batch; other sizes
// that depend on the example become part of the graph.
std::shared_ptr<Graph> trace(nn::Module& module, const Tensors& example);

}  // namespace shrike
