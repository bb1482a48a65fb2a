// SGD against its definition in double, and the learning-rate schedules.
#include <cmath>
#include <map>

#include "catch.hpp"
#include "shrike/nn/ema.hpp"
#include "shrike/nn/layers.hpp"
#include "shrike/nn/optim.hpp"

using namespace shrike;
using namespace shrike::nn;

TEST_CASE("SGD with momentum, decay and clipping is its definition") {
  Random random(21, RandomStream::test);
  const std::vector<std::int64_t> sizes = {1, 7, 1000, 70001};
  std::vector<SgdParameter> parameters;
  std::vector<std::vector<double>> weights, momenta;
  for (std::size_t p = 0; p < sizes.size(); ++p) {
    const Tensor tensor({sizes[p]});
    for (int i = 0; i < tensor.numel(); ++i) tensor.data<float>()[i] = random.normal();
    tensor.set_requires_grad(true);
    weights.emplace_back(tensor.data<float>(), tensor.data<float>() + tensor.numel());
    momenta.emplace_back(weights.back().size(), 0.0);
    parameters.push_back({"p" + std::to_string(p), tensor, p == 1 ? 2.0f : 1.0f, p == 2 ? 0.0f : 0.01f, {}});
  }
  const double clip = GENERATE(0.0, 50.0, 1e6);
  Sgd optimizer(parameters, {0.9f, static_cast<float>(clip)});
  for (int step = 0; step < 4; ++step) {
    double squares = 0;
    std::vector<std::vector<float>> grads;
    for (std::size_t p = 0; p < sizes.size(); ++p) {
      const Tensor grad({sizes[p]});
      for (int i = 0; i < grad.numel(); ++i) grad.data<float>()[i] = random.normal();
      grads.push_back(grad.to_vector<float>());
      const bool skipped = p == 3 && step == 2;  // a parameter that nothing depended on
      if (!skipped) parameters[p].tensor.set_grad(grad);
      if (skipped) grads.back().clear();
      for (const float g : grads.back()) squares += static_cast<double>(g) * g;
    }
    CHECK(optimizer.step(0.1f) == Approx(std::sqrt(squares)).epsilon(1e-6));
    const double scale = clip > 0 && std::sqrt(squares) > clip ? clip / std::sqrt(squares) : 1.0;
    for (std::size_t p = 0; p < sizes.size(); ++p) {
      for (std::size_t i = 0; i < grads[p].size(); ++i) {
        double& m = momenta[p][i];
        m = 0.9f * m + scale * grads[p][i] + static_cast<double>(parameters[p].weight_decay) * weights[p][i];
        weights[p][i] -= 0.1f * static_cast<double>(parameters[p].lr_scale) * m;
      }
    }
  }
  for (std::size_t p = 0; p < sizes.size(); ++p) {
    CHECK_FALSE(parameters[p].tensor.grad().defined());
    for (std::size_t i = 0; i < weights[p].size(); ++i) {
      REQUIRE(parameters[p].tensor.data<float>()[i] == Approx(weights[p][i]).epsilon(1e-5).margin(1e-5));
    }
  }
}

TEST_CASE("a gradient that is not finite changes nothing") {
  const Tensor w = full({3}, 1.0f);
  w.set_requires_grad(true);
  Sgd optimizer({{"w", w, 1.0f, 0.0f, {}}}, {});
  w.set_grad(tensor<float>({3}, {1.0f, NAN, 2.0f}));
  CHECK_THROWS_WITH(optimizer.step(0.1f), Catch::Matchers::Contains("not finite"));
  CHECK(w.to_vector<float>() == std::vector<float>{1.0f, 1.0f, 1.0f});
}

TEST_CASE("an update guarded by a loss that is not finite changes nothing and says so in its norm") {
  const Tensor w = full({3}, 1.0f);
  w.set_requires_grad(true);
  Sgd optimizer({{"w", w, 1.0f, 0.0f, {}}}, {});
  for (const float loss : {NAN, INFINITY, -INFINITY}) {
    w.set_grad(full({3}, 2.0f));
    CHECK(std::isnan(optimizer.update(0.1f, full({}, loss)).item()));
    CHECK_FALSE(w.grad().defined());
    CHECK(w.to_vector<float>() == std::vector<float>{1.0f, 1.0f, 1.0f});
    CHECK(optimizer.state()[0].second.to_vector<float>() == std::vector<float>(3, 0.0f));
  }
  w.set_grad(full({3}, 2.0f));
  CHECK(optimizer.update(0.25f, full({}, 7.0f)).item() == Approx(std::sqrt(12.0)));
  CHECK(w.to_vector<float>() == std::vector<float>(3, 0.5f));
  CHECK_THROWS_WITH(optimizer.update(0.1f, full({2}, 1.0f)), Catch::Matchers::Contains("expected one element"));
}

TEST_CASE("an update without gradients has norm 0") {
  const Tensor w = full({3}, 1.0f);
  Sgd optimizer({{"w", w, 1.0f, 0.5f, {}}}, {});
  CHECK(optimizer.step(0.1f) == 0.0);
  CHECK(w.to_vector<float>() == std::vector<float>(3, 1.0f));
}

TEST_CASE("learning-rate schedules") {
  Schedule schedule;
  schedule.lr = 0.8f;
  schedule.milestones = {10, 20};
  schedule.gamma = 0.5f;
  CHECK(schedule.at(0) == 0.8f);
  CHECK(schedule.at(9) == 0.8f);
  CHECK(schedule.at(10) == Approx(0.4f));
  CHECK(schedule.at(20) == Approx(0.2f));
  schedule.warmup_steps = 4;
  schedule.warmup_factor = 0.5f;
  CHECK(schedule.at(0) == Approx(0.4f));
  CHECK(schedule.at(2) == Approx(0.6f));
  CHECK(schedule.at(4) == Approx(0.8f));
  schedule.kind = Schedule::Kind::cosine;
  schedule.total_steps = 100;
  CHECK(schedule.at(50) == Approx(0.4f));
  CHECK(schedule.at(100) == Approx(0.0f).margin(1e-7));
  schedule.kind = Schedule::Kind::constant;
  CHECK(schedule.at(99) == 0.8f);
}

TEST_CASE("averages of weights and buffers follow their definition, and change places with the model's") {
  Sequential model;
  model.add("fc", std::make_shared<nn::Linear>(70, 501));  // more than one chunk of 2^15
  model.add("norm", std::make_shared<nn::BatchNorm>(501));
  model.add("frozen", std::make_shared<nn::Linear>(501, 3));
  initialize(model, 5);
  for (auto& [name, tensor] : named_parameters(model)) {
    if (name.starts_with("frozen")) tensor.set_requires_grad(false);
  }
  constexpr double decay = 0.6;  // reached by (1 + step) / (10 + step) at step 13
  Ema ema(model, decay);
  REQUIRE(ema.averages().size() == 6);
  std::vector<std::vector<double>> expected;
  for (const auto& [name, average] : ema.averages()) {
    CHECK_FALSE(name.starts_with("frozen"));
    const auto values = average.to_vector<float>();
    expected.emplace_back(values.begin(), values.end());
  }
  Random random(31, RandomStream::test);
  std::map<std::string, std::vector<float>> weights;
  for (int step = 1; step <= 20; ++step) {
    for (auto& [name, tensor] : named_state(model)) {
      for (std::int64_t i = 0; i < tensor.numel() && !name.starts_with("frozen"); ++i)
        tensor.data<float>()[i] = random.normal();
      weights[name] = tensor.to_vector<float>();
    }
    ema.update(step);
    const double keep = std::min(decay, (1.0 + step) / (10.0 + step));
    for (std::size_t k = 0; k < expected.size(); ++k) {
      const auto& values = weights.at(ema.averages()[k].first);
      for (std::size_t i = 0; i < values.size(); ++i)
        expected[k][i] = keep * expected[k][i] + (1 - keep) * static_cast<double>(values[i]);
    }
  }
  const auto check = [&](const Tensor& tensor, std::size_t k) {
    const auto values = tensor.to_vector<float>();
    REQUIRE(values.size() == expected[k].size());
    for (std::size_t i = 0; i < values.size(); ++i) REQUIRE(values[i] == Approx(expected[k][i]).margin(2e-6));
  };
  for (std::size_t k = 0; k < expected.size(); ++k) check(ema.averages()[k].second, k);
  {
    const Averaged averaged(&ema);
    std::map<std::string, Tensor> state;
    for (const auto& [name, tensor] : named_state(model)) state[name] = tensor;
    for (std::size_t k = 0; k < expected.size(); ++k) check(state.at(ema.averages()[k].first), k);
  }
  for (const auto& [name, tensor] : named_state(model)) CHECK(tensor.to_vector<float>() == weights.at(name));
  CHECK_THROWS_WITH(Ema(model, 1.0), Catch::Matchers::Contains("expected 0 or more and less than 1"));
  CHECK_THROWS_WITH(Ema(model, -0.1), Catch::Matchers::Contains("expected 0 or more and less than 1"));
}
