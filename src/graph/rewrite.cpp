#include "shrike/graph/rewrite.hpp"

#include <algorithm>
#include <iomanip>

namespace shrike {
namespace {

// The chain that ends at node `last`, walked up through its operands; every way is tried for the last step only, since the
// operations in the middle of a chain have one input of their own kind.
std::vector<Match> matches(const Graph& graph, const std::map<Graph::Value, std::size_t>& makers, const Rule& rule,
                           std::size_t last) {
  std::vector<Match> found;
  if (graph.nodes[last].op->name() != rule.chain.back()) return found;
  for (std::size_t operand = 0; operand < graph.nodes[last].inputs.size(); ++operand) {
    Match match;
    match.operand = operand;
    match.nodes = {last};
    std::size_t input = operand;
    for (std::size_t i = rule.chain.size() - 1; i-- > 0; input = 0) {
      const auto maker = makers.find(graph.nodes[match.nodes.front()].inputs[input]);
      if (maker == makers.end() || graph.nodes[maker->second].op->name() != rule.chain[i]) break;
      if (graph.nodes[maker->second].outputs[0] != maker->first) break;
      match.nodes.insert(match.nodes.begin(), maker->second);
    }
    if (match.nodes.size() == rule.chain.size()) found.push_back(std::move(match));
  }
  return found;
}

// Why a match may not be replaced by one node.
std::string other_readers(const Graph& graph, const std::map<Graph::Value, int>& uses, const Match& match) {
  for (std::size_t i = 0; i + 1 < match.nodes.size(); ++i) {
    const Graph::Node& node = graph.nodes[match.nodes[i]];
    int readers = 0;
    for (const Graph::Value value : node.outputs) readers += uses.contains(value) ? uses.at(value) : 0;
    if (readers > 1) return message(node.op->name(), " has ", readers, " readers");
  }
  const Graph::Node& last = match.last(graph);
  for (std::size_t i = 1; i < last.outputs.size(); ++i) {
    if (uses.contains(last.outputs[i])) return message(last.op->name(), "'s further outputs are read");
  }
  return {};
}

}  // namespace

std::size_t RewriteReport::applied() const {
  return static_cast<std::size_t>(std::count_if(lines.begin(), lines.end(), [](const Line& line) { return line.why.empty(); }));
}

std::string RewriteReport::to_string() const {
  std::size_t rule_width = 0, where_width = 0;
  for (const Line& line : lines) {
    rule_width = std::max(rule_width, line.rule.size());
    where_width = std::max(where_width, line.where.size());
  }
  std::ostringstream out;
  for (const Line& line : lines) {
    out << std::left << std::setw(static_cast<int>(rule_width) + 2) << line.rule << std::setw(static_cast<int>(where_width) + 2)
        << line.where << (line.why.empty() ? "fused" : "kept: " + line.why) << '\n';
  }
  return out.str();
}

RewriteReport rewrite(Graph& graph, const std::vector<Rule>& rules) {
  RewriteReport report;
  std::vector<RewriteReport::Line> kept;
  for (bool changed = true; changed;) {
    changed = false;
    kept.clear();  // what the last, idle round refused is what remains
    for (const Rule& rule : rules) {
      auto makers = graph.makers();
      auto uses = graph.uses();
      for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
        for (const Match& match : matches(graph, makers, rule, i)) {
          const std::string where = graph.node_name(match.first(graph));
          std::string why = other_readers(graph, uses, match);
          if (why.empty()) why = rule.refuse(graph, match);
          if (!why.empty()) {
            kept.push_back({rule.name, where, why});
            continue;
          }
          Graph::Node node = rule.replace(graph, match);
          node.outputs = {match.last(graph).outputs[0]};
          const std::size_t last = match.nodes.back();
          graph.nodes[last] = std::move(node);
          for (auto n = match.nodes.rbegin() + 1; n != match.nodes.rend(); ++n) {
            graph.nodes.erase(graph.nodes.begin() + static_cast<std::ptrdiff_t>(*n));
          }
          report.lines.push_back({rule.name, where, ""});
          makers = graph.makers();
          uses = graph.uses();
          i -= match.nodes.size() - 1;
          changed = true;
          break;
        }
      }
    }
  }
  // A chain that both operands refuse is listed for each: it may be one that the other operand fused after all.
  report.lines.insert(report.lines.end(), kept.begin(), kept.end());
  graph.remove_dead();
  return report;
}

}  // namespace shrike
