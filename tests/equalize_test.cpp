// Cross-layer equalisation: the function stays, ranges of channels meet, and what must not be scaled is not.
#include "shrike/quant/equalize.hpp"

#include "catch.hpp"
#include "quantized_detector.hpp"
#include "shrike/ops/elementwise.hpp"
#include "shrike/ops/layout.hpp"
#include "shrike/ops/pool.hpp"
#include "shrike/ops/softmax.hpp"

using namespace shrike;
using namespace shrike::quant;
using reference::random_tensor;

namespace {

using Value = Graph::Value;

// Weights whose rows differ in range by powers of ten.
Tensor uneven(const Shape& shape, Random& random) {
  const Tensor w = random_tensor(shape, random);
  const std::int64_t inner = w.numel() / w.size(0);
  std::vector<float> factors;
  for (std::int64_t k = 0; k < w.size(0); ++k) factors.push_back(std::pow(10.0f, random.uniform(-2.0f, 1.0f)));
  for (std::int64_t i = 0; i < w.numel(); ++i) w.data<float>()[i] *= factors[static_cast<std::size_t>(i / inner)];
  return w;
}

struct Builder {
  Graph graph;
  Random random{1, RandomStream::test};

  Builder() { graph.inputs = {graph.next_value++}; }
  Value add(OpPtr op, std::vector<Value> inputs) {
    const Value y = graph.next_value++;
    graph.nodes.push_back({std::move(op), std::move(inputs), {y}});
    return y;
  }
  template <class Layer> Value layer(const std::string& name, Value x, const Shape& shape, bool relu, bool bias = true) {
    Layer op;
    op.relu = relu;
    const Value w = graph.add_constant(uneven(shape, random), name + ".weight");
    return add(std::make_shared<const Layer>(op),
               {x, w, bias ? graph.add_constant(random_tensor({shape[0]}, random), name + ".bias") : Graph::none});
  }
};

double greatest(const std::vector<double>& values) {
  double most = 0;
  for (const double v : values) most = std::max(most, std::abs(v));
  return most;
}

// Greatest |weight| of each row, and of each of `channels` input channels.
std::pair<std::vector<double>, std::vector<double>> ranges(const Tensor& w, std::size_t channels) {
  const auto values = reference::doubles(w);
  const auto rows = static_cast<std::size_t>(w.size(0));
  std::pair<std::vector<double>, std::vector<double>> result{std::vector<double>(rows), std::vector<double>(channels)};
  for (std::size_t i = 0; i < values.size(); ++i) {
    double& row = result.first[i / (values.size() / rows)];
    double& column = result.second[i % channels];
    row = std::max(row, std::abs(values[i]));
    column = std::max(column, std::abs(values[i]));
  }
  return result;
}

std::string why(const EqualizeReport& report, const std::string& first) {
  for (const auto& line : report.lines) {
    if (line.first == first) return line.why;
  }
  return "not listed";
}

}  // namespace

TEST_CASE("a chain through ReLU, pooling and flattening keeps its function, and ranges on both sides of it meet") {
  const NoGrad no_grad;
  Builder b;
  Value x = b.layer<Conv2d>("a", 0, {7, 3, 3, 3}, true);
  MaxPool2d pool;
  pool.kernel = pool.stride = 2;
  x = b.add(std::make_shared<const MaxPool2d>(pool), {x});
  x = b.add(std::make_shared<const Relu>(), {b.layer<Conv2d>("b", x, {5, 1, 3, 7}, false, false)});
  x = b.add(std::make_shared<const Flatten>(), {x});
  x = b.layer<Linear>("c", x, {11, 4 * 2 * 5}, true);
  b.graph.outputs = {b.layer<Linear>("d", x, {3, 11}, false)};
  const Tensor image = random_tensor({2, 10, 11, 3}, b.random);
  // Dead channels: one that nothing reads, one that is never anything but its bias.
  const Tensor wb = b.graph.constants.at(b.graph.nodes[2].inputs[1]), wa = b.graph.constants.at(b.graph.nodes[0].inputs[1]);
  for (std::int64_t i = 0; i < wb.numel(); ++i) wb.data<float>()[i] *= i % 7 == 2 ? 0.0f : 1.0f;
  for (std::int64_t i = 27; i < 54; ++i) wa.data<float>()[i] = 0;

  const auto before = reference::doubles(b.graph.forward({image})[0]);
  const auto old = b.graph.constants;
  std::vector<std::vector<float>> values;
  for (const auto& [value, tensor] : old) values.push_back(tensor.to_vector<float>());
  const EqualizeReport report = equalize(b.graph, "part");
  INFO(report.to_string());
  REQUIRE(report.lines.size() == 4);
  CHECK(report.equalized() == 3);
  CHECK(report.sweeps > 2);
  CHECK(report.sweeps < 100);
  CHECK(report.to_string().find("part.a -> part.b  equalised, scales ") != std::string::npos);
  CHECK(report.to_string().find("part.d            kept: its output leaves the graph") != std::string::npos);
  CHECK(report.lines[0].spread_before > 5 * report.lines[0].spread_after);

  const auto after = reference::doubles(b.graph.forward({image})[0]);
  REQUIRE(after.size() == before.size());
  for (std::size_t i = 0; i < after.size(); ++i) CHECK(std::abs(after[i] - before[i]) < 1e-5 * greatest(before));

  const auto weight = [&](std::size_t node) { return b.graph.constants.at(b.graph.nodes[node].inputs[1]); };
  const std::size_t layers[] = {0, 2, 5, 6};
  for (std::size_t i = 0; i + 1 < 4; ++i) {
    const auto channels = static_cast<std::size_t>(weight(layers[i]).size(0));
    const auto rows = ranges(weight(layers[i]), 1).first, columns = ranges(weight(layers[i + 1]), channels).second;
    for (std::size_t k = 0; k < channels; ++k) {
      INFO(i << " channel " << k);
      if (rows[k] > 0 && columns[k] > 0) CHECK(rows[k] / columns[k] == Approx(1).epsilon(1e-3));
    }
  }
  std::size_t at = 0;  // the tensors of before are another's still
  for (const auto& [value, tensor] : old) CHECK((tensor.to_vector<float>() == values[at++]));
}

TEST_CASE("chains with other readers, residuals, groups, shared weights or other operations are left alone and listed") {
  Builder b;
  const Value a = b.layer<Conv2d>("two_readers", 0, {4, 1, 1, 4}, true);
  const Value left = b.layer<Conv2d>("before_residual", a, {4, 1, 1, 4}, false);
  const Value sum = b.layer<Conv2d>("adds_residual", a, {4, 1, 1, 4}, true);
  b.graph.nodes.back().inputs.push_back(left);
  const Value soft = b.add(std::make_shared<const Softmax>(), {b.layer<Conv2d>("before_softmax", sum, {4, 1, 1, 4}, true)});
  const Value plain = b.layer<Conv2d>("before_groups", soft, {4, 1, 1, 4}, true);
  const Value grouped = b.layer<Conv2d>("grouped", plain, {4, 1, 1, 2}, true);
  Conv2d two;
  two.groups = 2;
  b.graph.nodes.back().op = std::make_shared<const Conv2d>(two);
  const Value shared = b.layer<Conv2d>("shared", grouped, {4, 1, 1, 4}, true);
  const Value again = b.add(std::make_shared<const Conv2d>(), {shared, b.graph.nodes.back().inputs[1], Graph::none});
  b.graph.outputs = {again};
  const auto before = b.graph.constants;
  const EqualizeReport report = equalize(b.graph);
  INFO(report.to_string());
  CHECK(report.equalized() == 0);
  CHECK(report.sweeps == 0);
  CHECK(why(report, "two_readers") == "its output is read 2 times");
  CHECK(why(report, "before_residual") == "the second adds it as a residual");
  CHECK(why(report, "adds_residual") == "it adds a residual");
  CHECK(why(report, "before_softmax") == "softmax follows");
  CHECK(why(report, "before_groups") == "of the second: it has 2 groups");
  CHECK(why(report, "grouped") == "it has 2 groups");
  CHECK(why(report, "shared") == "its weights are shared");
  for (const auto& [value, tensor] : before) CHECK(tensor.same(b.graph.constants.at(value)));

  Builder bad;
  const Value x = bad.layer<Conv2d>("first", 0, {4, 1, 1, 4}, true);
  bad.graph.outputs = {bad.layer<Conv2d>("second", x, {4, 1, 1, 4}, true)};
  bad.graph.constants.at(bad.graph.nodes[1].inputs[1]).data<float>()[5] = NAN;
  CHECK_THROWS_WITH(equalize(bad.graph, "rpn"), "rpn.second.weight holds nan: it cannot be equalised");
}

TEST_CASE("an equalised detector makes what it made, is quantized, and its calibration is its own") {
  const NoGrad no_grad;
  const std::string backbone = GENERATE("vgg11", "resnet18");
  INFO(backbone);
  const auto model = models::make_detector(quantized::small_detector(backbone));
  nn::initialize(*model, 5);
  Random random(2, RandomStream::test);
  for (auto& [name, tensor] : nn::named_parameters(*model)) {  // norms of random gain, as training makes them
    if (tensor.rank() == 1 && name.ends_with("weight")) tensor.copy_from(random_tensor(tensor.shape(), random, 0.05f, 2.0f));
  }
  models::FusedDetector fused = models::fuse_detector(*model);
  const Tensor image = random_tensor({1, 65, 90, 3}, random), regions = random_tensor({7, 3, 3, 64}, random);
  const auto outputs = [&] {
    Tensors all = fused.parts[0]->forward({image});
    for (const Tensor& out : fused.parts[1]->forward({all[0]})) all.push_back(out);
    for (const Tensor& out : fused.parts[2]->forward({slice(regions, 3, 0, all[0].size(3))})) all.push_back(out);
    return all;
  };
  const Tensors before = outputs();
  const models::PreparedDetector plain = models::prepare_detector(fused, {});
  const EqualizeReport report = models::equalize_detector(fused);
  INFO(report.to_string());
  CHECK(report.equalized() == (backbone == "vgg11" ? 8u : 7u));  // 7 pairs of the backbone, or conv1+conv2 of 6 blocks; fc6+fc7
  const Tensors after = outputs();
  for (std::size_t i = 0; i < before.size(); ++i) {
    const auto a = reference::doubles(before[i]), b = reference::doubles(after[i]);
    for (std::size_t k = 0; k < a.size(); ++k) REQUIRE(std::abs(a[k] - b[k]) <= 1e-5 * greatest(a));
  }
  const models::PreparedDetector prepared = models::prepare_detector(fused, {});
  CHECK(prepared.weights != plain.weights);
  CHECK(prepared.weights.starts_with(plain.weights));
}
