// Graph rewriting: what is fused computes the same, and what must not be fused is not.
#include "shrike/graph/fuse.hpp"
#include "catch.hpp"
#include "models/detector.hpp"
#include "reference.hpp"
#include "shrike/ops/softmax.hpp"

using namespace shrike;
using reference::random_tensor;

namespace {

// A module made of a function and its tensors.
struct Net : nn::Module {
  std::function<Tensors(Net&, const Tensors&)> run;
  std::vector<std::pair<std::string, Tensor>> weights;

  Tensor weight(const std::string& name) {
    for (auto& [known, tensor] : weights) {
      if (known == name) return tensor;
    }
    fail("no weight ", name);
  }
  Tensors forward(const Tensors& in) override { return run(*this, in); }
  void visit(nn::Members& members) override {
    for (auto& [name, tensor] : weights) members.parameter(name, tensor);
  }
};

std::size_t count(const Graph& graph, const std::string& op) {
  std::size_t n = 0;
  for (const auto& node : graph.nodes) n += node.op->name() == op;
  return n;
}

Conv2dOptions padded() {
  Conv2dOptions options;
  options.padding = 1;
  return options;
}

void randomize_norms(nn::Module& model, Random& random) {
  for (auto& [name, tensor] : nn::named_state(model)) {
    const bool var = name.ends_with("running_var");
    if (var || name.ends_with("running_mean") || name.find("bn") != std::string::npos) {
      tensor.copy_from(random_tensor(tensor.shape(), random, var ? 0.3f : -0.5f, 1.5f));
    }
  }
}

}  // namespace

TEST_CASE("whole backbones are fused to convolutions and pools, and compute the same at other sizes") {
  Random random(1, RandomStream::test);
  for (const std::string name : {"vgg11", "resnet18", "resnet34"}) {
    INFO(name);
    models::DetectorConfig config;
    config.backbone = name;
    config.width = 4;
    config.batch_norm = true;
    config.head_width = 8;
    config.classes = {"a"};
    const auto model = models::make_detector(config);
    nn::initialize(*model, 3);
    randomize_norms(*model, random);
    nn::train(*model, false);
    const auto graph = trace(*model->backbone(), {random_tensor({1, 48, 64, 3}, random)});
    const std::size_t convs = count(*graph, "conv2d");
    const RewriteReport report = fuse(*graph);
    INFO(report.to_string());
    CHECK(count(*graph, "conv2d") == convs);
    CHECK(count(*graph, "max_pool2d") == graph->nodes.size() - convs);
    CHECK(report.to_string().find("fused") != std::string::npos);
    for (const Shape& shape : {Shape{1, 48, 64, 3}, Shape{2, 33, 51, 3}, Shape{1, 80, 32, 3}}) {
      const Tensor x = random_tensor(shape, random);
      CHECK(reference::difference(graph->forward({x})[0], reference::doubles(model->backbone()->forward({x})[0])) < 2e-5);
    }
  }
}

TEST_CASE("traced heads run with any number of regions, none included") {
  Random random(2, RandomStream::test);
  models::BoxHead head(6 * 2 * 2, 10, 3, 0.5);
  nn::initialize(head, 1);
  const auto graph = trace(head, {random_tensor({5, 2, 2, 6}, random)});
  fuse(*graph);
  nn::train(head, false);
  for (const std::int64_t regions : {0, 1, 5, 17}) {
    const Tensor x = random_tensor({regions, 2, 2, 6}, random);
    const Tensors found = graph->forward({x}), expected = head.forward({x});
    for (std::size_t i = 0; i < 2; ++i) CHECK(found[i].to_vector<float>() == expected[i].to_vector<float>());
  }
  Net reshaper;
  reshaper.run = [](Net&, const Tensors& in) { return Tensors{reshape(in[0], {in[0].size(0), 12})}; };
  const auto general = trace(reshaper, {random_tensor({3, 2, 6}, random)});
  CHECK(general->forward({random_tensor({7, 3, 4}, random)})[0].shape() == Shape{7, 12});
}

TEST_CASE("conv2d with a residual: value and gradients") {
  Random random(3, RandomStream::test);
  for (const bool relu : {false, true}) {
    const Tensor x = random_tensor({2, 4, 3, 2}, random), w = random_tensor({3, 3, 3, 2}, random);
    const Tensor b = random_tensor({3}, random), r = random_tensor({2, 4, 3, 3}, random);
    Conv2d op;
    op.padding = 1;
    op.relu = relu;
    const Tensors inputs = {x, w, b, r};
    std::vector<std::vector<float>> grads[2];
    std::vector<float> outputs[2];
    const Tensor g = random_tensor({2, 4, 3, 3}, random);
    for (int fused = 0; fused < 2; ++fused) {
      for (const Tensor& t : inputs) t.clear_grad(), t.set_requires_grad(true);
      const Tensor y = fused ? call(op, inputs)[0] : add(conv2d(x, w, b, padded()), r, relu);
      outputs[fused] = y.to_vector<float>();
      backward({y}, {g});
      for (const Tensor& t : inputs) grads[fused].push_back(t.grad().to_vector<float>());
    }
    CHECK(outputs[0] == outputs[1]);
    CHECK(grads[0] == grads[1]);
    CHECK_THROWS_WITH(call(op, {x, w, b, random_tensor({2, 4, 3, 2}, random)}),
                      "conv2d: the residual has shape [2, 4, 3, 2]: expected the output's, [2, 4, 3, 3]");
  }
}

TEST_CASE("what another node or the output reads is not fused away, and the table says why") {
  Random random(4, RandomStream::test);
  Net net;
  net.weights = {{"a.weight", random_tensor({4, 3, 3, 4}, random)},
                 {"b.weight", random_tensor({4, 3, 3, 4}, random)},
                 {"c.weight", random_tensor({4, 3, 3, 4}, random)}};
  net.run = [](Net& n, const Tensors& in) {
    const Tensor a = conv2d(in[0], n.weight("a.weight"), {}, padded());    // read twice
    const Tensor b = conv2d(relu(a), n.weight("b.weight"), {}, padded());  // a graph output too
    const Tensor c = relu(conv2d(add(a, relu(b)), n.weight("c.weight"), {}, padded()));
    return Tensors{c, b};
  };
  const Tensor x = random_tensor({1, 5, 6, 4}, random);
  const auto graph = trace(net, {x});
  const Tensors before = graph->forward({x});
  const RewriteReport report = fuse(*graph);
  CHECK(report.applied() == 1);  // c takes its ReLU
  CHECK(count(*graph, "relu") == 2);
  CHECK(count(*graph, "add") == 1);
  const std::string table = report.to_string();
  INFO(table);
  CHECK(table.find("conv2d+relu  c  fused") != std::string::npos);
  CHECK(table.find("conv2d+relu  a  kept: conv2d has 2 readers") != std::string::npos);
  CHECK(table.find("conv2d+relu  b  kept: conv2d has 2 readers") != std::string::npos);
  CHECK(table.find("conv2d+add   a  kept: conv2d has 2 readers") != std::string::npos);
  const Tensors after = graph->forward({x});
  for (std::size_t i = 0; i < 2; ++i) CHECK(after[i].to_vector<float>() == before[i].to_vector<float>());
}

TEST_CASE("either operand of an addition is taken, a ReLU between is respected, x + x is left") {
  Random random(5, RandomStream::test);
  Net net;
  net.weights = {{"a.weight", random_tensor({4, 3, 3, 4}, random)}, {"b.weight", random_tensor({4, 3, 3, 4}, random)}};
  const Tensor x = random_tensor({1, 5, 6, 4}, random);
  const auto check = [&](const std::function<Tensors(Net&, const Tensors&)>& run, std::size_t nodes) {
    net.run = run;
    const auto graph = trace(net, {x});
    const Tensor before = graph->forward({x})[0];
    fuse(*graph);
    CHECK(graph->nodes.size() == nodes);
    CHECK(graph->forward({x})[0].to_vector<float>() == before.to_vector<float>());
  };
  check([](Net& n, const Tensors& in) { return Tensors{relu(add(in[0], conv2d(in[0], n.weight("a.weight"), {}, padded())))}; },
        1);
  check([](Net& n, const Tensors& in) { return Tensors{add(relu(conv2d(in[0], n.weight("a.weight"), {}, padded())), in[0])}; },
        2);
  check(
      [](Net& n, const Tensors& in) {
        const Tensor y = conv2d(in[0], n.weight("a.weight"), {}, padded());
        return Tensors{add(y, y, true)};
      },
      2);
  check(
      [](Net& n, const Tensors& in) {  // both operands are convolutions: the second runs on
        return Tensors{
            add(conv2d(in[0], n.weight("a.weight"), {}, padded()), conv2d(in[0], n.weight("b.weight"), {}, padded()))};
      },
      2);
}

TEST_CASE("fused graphs train: the folded weights are the graph's own") {
  models::ResnetOptions options;
  options.width = 4;
  options.frozen_norm = false;
  models::ResnetC4 net(options);
  nn::initialize(net, 5);
  Random random(6, RandomStream::test);
  const auto graph = trace(net, {random_tensor({1, 32, 32, 3}, random)});
  fuse(*graph);
  const auto before = net.forward({full({1, 32, 32, 3}, 0.5f)})[0].to_vector<float>();
  const Tensor y = graph->forward({random_tensor({2, 32, 48, 3}, random)})[0];
  backward({y}, {full(y.shape(), 1.0f)});
  std::size_t biases = 0;
  for (const auto& [name, tensor] : nn::named_parameters(*graph)) {
    INFO(name);
    CHECK(tensor.grad().defined());
    biases += name.ends_with(".bias");
    tensor.zero();
  }
  CHECK(biases == count(*graph, "conv2d"));
  nn::train(net, false);
  CHECK(net.forward({full({1, 32, 32, 3}, 0.5f)})[0].numel() == static_cast<std::int64_t>(before.size()));
  for (const auto& [name, tensor] : nn::named_parameters(net)) {
    if (name == "conv1.weight")
      CHECK(tensor.to_vector<float>() != std::vector<float>(static_cast<std::size_t>(tensor.numel())));
  }
}
