// Rewriting graphs by rules: a chain of operations, a check, a replacement.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "shrike/graph/graph.hpp"

namespace shrike {

// The nodes that a rule's chain was found at, first to last: each reads the output of the one before.
struct Match {
  std::vector<std::size_t> nodes;  // indices into Graph::nodes
  std::size_t operand = 0;         // which input of the last node the chain before it came in by

  const Graph::Node& first(const Graph& graph) const { return graph.nodes[nodes.front()]; }
  const Graph::Node& last(const Graph& graph) const { return graph.nodes[nodes.back()]; }
};

struct Rule {
  std::string name;
  std::vector<std::string> chain;  // names of operations
  // Why the rule does not apply to this match; empty when it does.
  std::function<std::string(const Graph&, const Match&)> refuse;
  // The node that stands for the whole chain. It takes the last node's place and its outputs.
  std::function<Graph::Node(Graph&, const Match&)> replace;
};

// What rewriting did, and what it left and why.
struct RewriteReport {
  struct Line {
    std::string rule;
    std::string where;  // the chain's first node
    std::string why;    // empty: it was applied
  };
  std::vector<Line> lines;

  std::size_t applied() const;
  // A table, one line each: conv2d+relu    features.0    fused
  std::string to_string() const;
};

// Applies the rules, first to last, until none fits. All outputs of a chain's inner nodes must have no reader but the chain: a
// graph output is a reader. Dead nodes are removed at the end.
RewriteReport rewrite(Graph& graph, const std::vector<Rule>& rules);

}  // namespace shrike
