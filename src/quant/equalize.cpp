#include "shrike/quant/equalize.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "shrike/ops/conv.hpp"

namespace shrike::quant {
namespace {

using Value = Graph::Value;

constexpr int most_sweeps = 1000;
constexpr double still = 1e-4;  // of a scale's logarithm

bool is_layer(const Graph::Node& node) {
  const std::string op = node.op->name();
  return op == "conv2d" || op == "linear";
}

// Operations f with f(s x) = s f(x) for s > 0, channel by channel, that leave channels the innermost.
bool lets_scales_pass(const std::string& op) {
  return op == "relu" || op == "max_pool2d" || op == "avg_pool2d" || op == "roi_pool" || op == "roi_align" || op == "flatten";
}

// Of a layer's weights, the greatest magnitude for each output and input channel: rows first, [rows][channels]. An input
// channel is every `channels`-th element of a row. All that is scaled until the end.
struct Weights {
  Value value;
  std::size_t rows, channels;
  std::vector<double> greatest;
};

struct Pair {
  std::size_t first, second;  // nodes
  std::vector<double> scales;
};

class Equalizer {
 public:
  Equalizer(Graph& graph, const std::string& prefix)
      : graph_(graph), prefix_(prefix.empty() ? "" : prefix + "."), uses_(graph.uses()) {
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
      for (const Value value : graph.nodes[i].inputs) readers_[value].push_back(i);
    }
  }

  EqualizeReport run() {
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      if (is_layer(graph_.nodes[i])) look_at(i);
    }
    for (const Pair& pair : pairs_) read(pair.first), read(pair.second);
    std::vector<double> before;
    for (const Pair& pair : pairs_) before.push_back(spread(row_ranges(weights_.at(pair.first))));
    for (bool moved = !pairs_.empty(); moved && report_.sweeps < most_sweeps; ++report_.sweeps) {
      moved = false;
      for (Pair& pair : pairs_) moved |= scale(pair);
    }
    std::size_t at = 0;
    for (auto& line : report_.lines) {
      if (!line.why.empty()) continue;
      const Pair& pair = pairs_[at];
      line.spread_before = before[at++];
      line.spread_after = spread(row_ranges(weights_.at(pair.first)));
      const auto [least, greatest] = std::minmax_element(pair.scales.begin(), pair.scales.end());
      line.least_scale = *least, line.greatest_scale = *greatest;
    }
    write_back();
    return std::move(report_);
  }

 private:
  std::string name(std::size_t node) const { return prefix_ + graph_.node_name(graph_.nodes[node]); }

  // Follows the only reader of the layer's output to the next layer.
  void look_at(std::size_t first) {
    EqualizeReport::Line line{name(first), "", "", 0, 0, 1, 1};
    const auto keep = [&](const std::string& why) {
      line.why = why;
      report_.lines.push_back(line);
    };
    const Graph::Node& node = graph_.nodes[first];
    if (node.inputs.size() > 3 && node.inputs[3] != Graph::none) return keep("it adds a residual");
    if (const std::string why = weights_of(first); !why.empty()) return keep(why);
    Value value = node.outputs[0];
    for (;;) {
      const auto readers = readers_.find(value);
      if (readers == readers_.end()) return keep("its output leaves the graph");
      if (uses_.at(value) > 1) return keep(message("its output is read ", uses_.at(value), " times"));
      const std::size_t next = readers->second.front();
      const Graph::Node& reader = graph_.nodes[next];
      if (is_layer(reader)) {
        line.second = name(next);
        if (reader.inputs[0] != value) return keep("the second adds it as a residual");
        if (const std::string why = weights_of(next); !why.empty()) return keep("of the second: " + why);
        const std::size_t channels = weights_.at(first).rows;
        const Tensor& w = graph_.constants.at(reader.inputs[1]);
        if (static_cast<std::size_t>(w.numel() / w.size(0)) % channels != 0) {
          return keep(message(channels, " channels do not divide the second's inputs"));
        }
        weights_.at(next).channels = channels;
        report_.lines.push_back(line);
        pairs_.push_back({first, next, std::vector<double>(channels, 1.0)});
        return;
      }
      if (!lets_scales_pass(reader.op->name()) || reader.inputs[0] != value) {
        return keep(message(reader.op->name(), " follows"));
      }
      value = reader.outputs[0];
    }
  }

  // Reads a layer's weights; why it cannot be scaled, or empty.
  std::string weights_of(std::size_t i) {
    const Graph::Node& node = graph_.nodes[i];
    for (std::size_t k = 1; k < std::min<std::size_t>(node.inputs.size(), 3); ++k) {
      if (node.inputs[k] == Graph::none) continue;
      if (!graph_.constants.contains(node.inputs[k])) return "its weights are computed";
      if (uses_.at(node.inputs[k]) > 1) return "its weights are shared";
    }
    const auto* conv = dynamic_cast<const Conv2d*>(node.op.get());
    if (conv != nullptr && conv->groups != 1) return message("it has ", conv->groups, " groups");
    const Tensor& w = graph_.constants.at(node.inputs[1]);
    const auto size = [&](int dim) { return static_cast<std::size_t>(w.size(dim)); };
    weights_.try_emplace(i, Weights{node.inputs[1], size(0), size(w.rank() - 1), {}});
    return {};
  }

  void read(std::size_t i) {
    Weights& w = weights_.at(i);
    if (!w.greatest.empty()) return;
    const auto values = graph_.constants.at(w.value).to_vector<float>();
    const std::size_t inner = values.size() / w.rows;
    w.greatest.resize(w.rows * w.channels);
    for (std::size_t k = 0; k < values.size(); ++k) {
      SHRIKE_CHECK(std::isfinite(values[k]), name(i), ".weight holds ", values[k], ": it cannot be equalised");
      double& most = w.greatest[k / inner * w.channels + k % w.channels];
      most = std::max(most, std::abs(static_cast<double>(values[k])));
    }
  }

  static std::vector<double> row_ranges(const Weights& w) {
    std::vector<double> ranges(w.rows);
    for (std::size_t i = 0; i < w.greatest.size(); ++i)
      ranges[i / w.channels] = std::max(ranges[i / w.channels], w.greatest[i]);
    return ranges;
  }
  static std::vector<double> column_ranges(const Weights& w) {
    std::vector<double> ranges(w.channels);
    for (std::size_t i = 0; i < w.greatest.size(); ++i)
      ranges[i % w.channels] = std::max(ranges[i % w.channels], w.greatest[i]);
    return ranges;
  }
  static double spread(const std::vector<double>& ranges) {
    double least = HUGE_VAL, greatest = 0;
    for (const double r : ranges) {
      if (r > 0) least = std::min(least, r), greatest = std::max(greatest, r);
    }
    return greatest > 0 ? greatest / least : 1;
  }

  // One step of a pair; whether a scale was not 1.
  bool scale(Pair& pair) {
    Weights& first = weights_.at(pair.first);
    Weights& second = weights_.at(pair.second);
    const auto r1 = row_ranges(first), r2 = column_ranges(second);
    std::vector<double> scales(first.rows, 1.0);
    bool moved = false;
    for (std::size_t i = 0; i < scales.size(); ++i) {
      if (r1[i] > 0 && r2[i] > 0) scales[i] = std::sqrt(r1[i] * r2[i]) / r2[i];
      moved |= std::abs(std::log(scales[i])) > still;
      pair.scales[i] *= scales[i];
    }
    for (std::size_t i = 0; i < first.greatest.size(); ++i) first.greatest[i] /= scales[i / first.channels];
    for (std::size_t i = 0; i < second.greatest.size(); ++i) second.greatest[i] *= scales[i % second.channels];
    return moved;
  }

  // value[i] *= factor(i)
  template <class F> void replace(Value value, const F& factor) {
    Tensor& old = graph_.constants.at(value);
    std::vector<float> data = old.to_vector<float>();
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(data[i] * factor(i));
    const Tensor scaled = tensor(old.shape(), data, old.device());
    scaled.set_requires_grad(old.requires_grad());
    old = scaled;
  }

  void write_back() {
    for (const auto& [node, w] : weights_) {
      if (w.greatest.empty()) continue;
      std::vector<double> rows(w.rows, 1.0), columns(w.channels, 1.0);
      for (const Pair& pair : pairs_) {
        if (pair.first == node)
          std::transform(pair.scales.begin(), pair.scales.end(), rows.begin(), [](double s) { return 1 / s; });
        if (pair.second == node) columns = pair.scales;
      }
      const std::size_t inner = static_cast<std::size_t>(graph_.constants.at(w.value).numel()) / w.rows;
      replace(w.value, [&](std::size_t i) { return rows[i / inner] * columns[i % w.channels]; });
      const auto& inputs = graph_.nodes[node].inputs;
      if (inputs.size() > 2 && inputs[2] != Graph::none) replace(inputs[2], [&](std::size_t i) { return rows[i]; });
    }
  }

  Graph& graph_;
  const std::string prefix_;
  const std::map<Value, int> uses_;
  std::map<Value, std::vector<std::size_t>> readers_;
  std::map<std::size_t, Weights> weights_;  // by node
  std::vector<Pair> pairs_;
  EqualizeReport report_;
};

}  // namespace

std::size_t EqualizeReport::equalized() const {
  return static_cast<std::size_t>(std::count_if(lines.begin(), lines.end(), [](const Line& line) { return line.why.empty(); }));
}

std::string EqualizeReport::to_string() const {
  const auto pair = [](const Line& line) { return line.first + (line.second.empty() ? "" : " -> " + line.second); };
  std::size_t width = 0;
  for (const Line& line : lines) width = std::max(width, pair(line).size());
  std::string text;
  for (const Line& line : lines) {
    char what[128];
    std::snprintf(what, sizeof what, "equalised, scales %.3g to %.3g, spread of ranges %.3g, was %.3g", line.least_scale,
                  line.greatest_scale, line.spread_after, line.spread_before);
    text +=
        pair(line) + std::string(width + 2 - pair(line).size(), ' ') + (line.why.empty() ? what : "kept: " + line.why) + '\n';
  }
  return text;
}

EqualizeReport equalize(Graph& graph, const std::string& prefix) { return Equalizer(graph, prefix).run(); }

}  // namespace shrike::quant
