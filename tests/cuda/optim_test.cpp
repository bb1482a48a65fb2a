// SGD on the device beside the CPU.
#include "shrike/nn/optim.hpp"
#include "cuda/pointwise.hpp"

using namespace shrike;

namespace {

std::vector<Tensor> train(Device device, int parameters, float clip, float bad, float loss) {
  std::vector<nn::SgdParameter> list;
  Random random(11, RandomStream::test);
  for (int p = 0; p < parameters; ++p) {
    const std::int64_t n = p == 0 ? 0 : p == 1 ? 9001 : p == 2 ? 4096 : 1 + p % 7;
    const Tensor w = reference::random_tensor({n}, random).to(device);
    w.set_requires_grad(true);
    list.push_back({std::to_string(p), w, p % 2 == 0 ? 1.0f : 2.0f, p % 3 == 0 ? 0.0f : 0.01f, {}});
  }
  nn::Sgd optimizer(list, {0.9f, clip});
  Tensors result;
  for (int step = 0; step < 3; ++step) {
    for (int p = 0; p < parameters; ++p) {
      const Tensor grad = reference::random_tensor(list[static_cast<std::size_t>(p)].tensor.shape(), random);
      if (step == 2 && p == 1) grad.data<float>()[9000] = bad;
      if (!(step == 1 && p == 2)) list[static_cast<std::size_t>(p)].tensor.set_grad(grad.to(device));
    }
    result.push_back(optimizer.update(0.1f, full({}, step == 2 ? loss : 1.0f, device)));
  }
  for (const auto& parameter : list) result.push_back(parameter.tensor);
  for (const auto& [name, momentum] : optimizer.state()) result.push_back(momentum);
  return result;
}

}  // namespace

TEST_CASE("SGD on the device is the CPU's, for few and many parameters") {
  // One table of 64, one of 640, several of these; a block for each parameter.
  for (const int parameters : {5, 64, 65, sanitized ? 642 : 1400}) {
    for (const float clip : {0.0f, 5.0f}) {
      if (sanitized && parameters > 5 && clip == 0) continue;
      INFO(parameters << " parameters, clipped at " << clip);
      const Tensors expected = train(Device::cpu, parameters, clip, 1, 1), got = train(Device::cuda, parameters, clip, 1, 1);
      const Tensors again = train(Device::cuda, parameters, clip, 1, 1);
      for (std::size_t i = 0; i < got.size(); ++i) {
        REQUIRE(same_bits(got[i], again[i]));
        REQUIRE(reference::difference(got[i], reference::doubles(expected[i])) < 1e-6);
      }
    }
  }
}

TEST_CASE("moving averages on the device are the CPU's, to the bit") {
  for (const int tensors : {3, 65}) {
    Random random(13, RandomStream::test);
    std::vector<SgdSlice> on_cpu, on_device;
    Tensors averages, held;
    for (int t = 0; t < tensors; ++t) {
      const std::int64_t n = t == 0 ? 9001 : t == 1 ? 0 : 1 + t % 7;
      const Tensor average = reference::random_tensor({n}, random), value = reference::random_tensor({n}, random);
      const Tensor device_average = average.to(Device::cuda), device_value = value.to(Device::cuda);
      on_cpu.push_back({average.data<float>(), value.data<float>(), nullptr, n, 0.25f, 0});
      on_device.push_back({device_average.data<float>(), device_value.data<float>(), nullptr, n, 0.25f, 0});
      averages.insert(averages.end(), {average, device_average});
      held.insert(held.end(), {value, device_value});
    }
    kernels::moving_average_step(Cpu{}, on_cpu.data(), on_cpu.size());
    kernels::moving_average_step(Cuda{}, on_device.data(), on_device.size());
    // A power of two as the rate: rounds alike with and without a fused multiply-add.
    for (std::size_t i = 0; i < averages.size(); i += 2) REQUIRE(same_bits(averages[i], averages[i + 1]));
  }
}

TEST_CASE("on the device a gradient or a loss that is not finite changes nothing") {
  for (const auto& [bad, loss] : {std::pair{NAN, 1.0f}, {INFINITY, 1.0f}, {1.0f, NAN}, {1.0f, INFINITY}}) {
    const Tensors expected = train(Device::cpu, 5, 0, bad, loss), got = train(Device::cuda, 5, 0, bad, loss);
    CHECK_FALSE(std::isfinite(got[2].item()));
    for (std::size_t i = 3; i < got.size(); ++i) REQUIRE(reference::difference(got[i], reference::doubles(expected[i])) < 1e-6);
  }
  const Tensor w = full({3}, 1.0f, Device::cuda);
  w.set_requires_grad(true);
  nn::Sgd optimizer({{"w", w, 1.0f, 0.0f, {}}}, {});
  w.set_grad(tensor<float>({3}, {1.0f, NAN, 2.0f}, Device::cuda));
  CHECK_THROWS_WITH(optimizer.step(0.1f), Catch::Matchers::Contains("not finite"));
  CHECK(w.to_vector<float>() == std::vector<float>(3, 1.0f));
}
