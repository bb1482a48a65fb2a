#include "shrike/quant/sensitivity.hpp"

#include <algorithm>
#include <numeric>

#include "shrike/ops/quantize.hpp"

namespace shrike::quant {
namespace {

using Value = Graph::Value;

const FakeQuantize* rounder(const Graph::Node& node) { return dynamic_cast<const FakeQuantize*>(node.op.get()); }

// The fake-quantize node that rounds `value`, itself or before operations that pass codes.
const Graph::Node& rounder_before(const Graph& graph, const std::map<Value, std::size_t>& makers, Value value) {
  for (auto maker = makers.find(value); maker != makers.end(); maker = makers.find(value)) {
    const Graph::Node& node = graph.nodes[maker->second];
    if (rounder(node) != nullptr) return node;
    if (!passes_codes(node.op->name())) break;
    value = node.inputs[0];
  }
  fail("nothing rounds ", graph.value_name(value), ", which a quantized layer reads");
}

}  // namespace

std::vector<QuantizedLayer> quantized_layers(const Prepared& prepared) {
  const auto makers = prepared.makers();
  std::vector<QuantizedLayer> layers;
  for (const Graph::Node& node : prepared.nodes) {
    const std::string op = node.op->name();
    if (op != "conv2d" && op != "linear") continue;
    const auto maker = makers.find(node.inputs[1]);
    if (maker == makers.end() || rounder(prepared.nodes[maker->second]) == nullptr) continue;
    Graph::Node named = node;
    named.inputs[1] = prepared.nodes[maker->second].inputs[0];
    layers.push_back({node.outputs[0], prepared.prefix + prepared.node_name(named)});
  }
  return layers;
}

std::shared_ptr<Graph> quantize_only(const Prepared& prepared, Value layer) {
  const auto makers = prepared.makers();
  const auto found = makers.find(layer);
  SHRIKE_CHECK(found != makers.end(), "no layer makes %", layer);
  const Graph::Node chosen = prepared.nodes[found->second];
  auto graph = std::make_shared<Graph>();
  graph->share(prepared);
  graph->nodes.clear();
  std::map<Value, Value> plain;  // what a fake-quantize node made -> what it read
  const auto unrounded = [&](Value value) {
    const auto before = plain.find(value);
    return before == plain.end() ? value : before->second;
  };
  for (const Graph::Node& node : prepared.nodes) {
    Graph::Node copy = node;
    if (rounder(node) != nullptr && node.outputs[0] != chosen.inputs[1]) {
      plain[node.outputs[0]] = node.inputs[0];
      continue;
    }
    for (Value& value : copy.inputs) value = unrounded(value);
    if (node.outputs[0] == layer) {
      for (const std::size_t i : {std::size_t{0}, std::size_t{3}}) {
        if (copy.inputs.size() <= i || copy.inputs[i] == Graph::none) continue;
        const Graph::Node& before = rounder_before(prepared, makers, node.inputs[i]);
        const Value rounded = graph->next_value++;
        graph->nodes.push_back({before.op, {copy.inputs[i], before.inputs[1]}, {rounded}});
        copy.inputs[i] = rounded;
      }
    }
    graph->nodes.push_back(std::move(copy));
  }
  for (Value& value : graph->outputs) value = unrounded(value);
  graph->remove_dead();
  return graph;
}

void Sqnr::add(const Tensor& x, const Tensor& y, double weight) {
  SHRIKE_CHECK(x.shape() == y.shape(), "SQNR of tensors of shapes ", x.shape(), " and ", y.shape());
  const Tensor a = x.to(Device::cpu), b = y.to(Device::cpu);
  const float *p = a.data<float>(), *q = b.data<float>();
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const double signal = static_cast<double>(p[i]), noise = signal - static_cast<double>(q[i]);
    signal_ += weight * signal * signal;
    noise_ += weight * noise * noise;
  }
}

FloatChoice choose_float(const std::vector<Candidate>& layers, double goal,
                         const std::function<double(const std::vector<std::size_t>&)>& score) {
  const auto macs = [&](std::size_t i) { return std::max(layers[i].macs, 1.0); };
  std::vector<std::size_t> order(layers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const auto loses = [&](std::size_t i) { return layers[i].loss > std::max(layers[i].loss_error, 0.0); };
    const bool a_loses = loses(a), b_loses = loses(b);
    if (a_loses != b_loses) return a_loses;
    if (a_loses) return layers[a].loss / macs(a) > layers[b].loss / macs(b);
    return layers[a].noise_share / macs(a) > layers[b].noise_share / macs(b);
  });
  FloatChoice now{{}, score({}), false};
  FloatChoice best = now;
  for (const std::size_t next : order) {
    if (now.score >= goal) break;
    now.kept.push_back(next);
    now.score = score(now.kept);
    if (now.score > best.score) best = now;
  }
  if (now.score < goal) return best;
  now.met = true;
  std::vector<std::size_t> dearest = now.kept;
  std::stable_sort(dearest.begin(), dearest.end(), [&](std::size_t a, std::size_t b) { return macs(a) > macs(b); });
  for (const std::size_t layer : dearest) {
    if (now.kept.size() == 1) break;  // none in float was not enough
    std::vector<std::size_t> fewer = now.kept;
    std::erase(fewer, layer);
    if (const double without = score(fewer); without >= goal) now.kept = fewer, now.score = without;
  }
  return now;
}

}  // namespace shrike::quant
