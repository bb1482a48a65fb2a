// Graphs in safetensors files: the structure as JSON in the metadata, the constants among the tensors.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "shrike/graph/graph.hpp"
#include "shrike/io/safetensors.hpp"

namespace shrike {

inline constexpr int graph_version = 1;

// Adds `graph` to `file`: metadata "graph.PART", and its constants as tensors "PART.name", shared and not copied.
void write_graph(const Graph& graph, const std::string& part, TensorFile& file);

// The graph that write_graph() added, its tensors those of `file`, parameters without requires_grad. Throws Error naming file,
// part and place when there is none, when it was written by a newer version, has an unknown operation or field, reads a value
// that nothing made, lacks a tensor, or when scales, multipliers, weights or biases of quantized layers are missing, of a wrong
// shape or type, or not positive.
std::shared_ptr<Graph> read_graph(const TensorFile& file, const std::string& part);

// The parts that a file has graphs for.
std::vector<std::string> graph_parts(const TensorFile& file);

// The operation of that name, its fields at their defaults: the one place where names become operations. Null when unknown.
std::shared_ptr<Op> make_op(const std::string& name);

}  // namespace shrike
