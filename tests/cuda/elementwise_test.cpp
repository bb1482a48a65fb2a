#include "shrike/ops/elementwise.hpp"

#include <cmath>

#include "reference.hpp"

using namespace shrike;

namespace {

const std::vector<Shape> shapes = {{}, {1}, {0, 3}, {2, 3, 5, 7}, {257}, {3, 1, 1023}};

// The same bytes on both devices.
void check_same(const Tensor& cuda, const Tensor& cpu) {
  REQUIRE(cuda.device() == Device::cuda);
  REQUIRE(cuda.shape() == cpu.shape());
  const Tensor host = cuda.to(Device::cpu);
  CHECK(std::memcmp(host.raw(), cpu.raw(), cpu.bytes()) == 0);
}

}  // namespace

TEST_CASE("elementwise operations and their gradients agree with the CPU to the bit") {
  Random random(1, RandomStream::test);
  for (const Shape& shape : shapes) {
    const Tensor a = reference::random_tensor(shape, random), b = reference::random_tensor(shape, random);
    const Tensor g = reference::random_tensor(shape, random);
    const std::vector<std::function<Tensor(const Tensors&)>> operations = {
        [](const Tensors& in) { return relu(in[0]); }, [](const Tensors& in) { return add(in[0], in[1]); },
        [](const Tensors& in) { return add(in[0], in[1], true); }, [](const Tensors& in) { return scale(in[0], -1.7); }};
    for (std::size_t i = 0; i < operations.size(); ++i) {
      INFO("operation " << i << ", shape " << message(shape));
      std::vector<Tensors> results;
      for (const Device device : {Device::cpu, Device::cuda}) {
        const Tensors in = {a.clone().to(device).set_requires_grad(true), b.clone().to(device).set_requires_grad(true)};
        const Tensor y = operations[i](in);
        backward({y}, {g.to(device)});
        results.push_back({y, in[0].grad()});
        if (in[1].grad().defined()) results.back().push_back(in[1].grad());
      }
      REQUIRE(results[0].size() == results[1].size());
      for (std::size_t k = 0; k < results[0].size(); ++k) check_same(results[1][k], results[0][k]);
    }
  }
}

TEST_CASE("relu on the device keeps NaN and has no gradient at 0") {
  const Tensor x = tensor<float>({4}, {NAN, 0.0f, -0.0f, -HUGE_VALF}, Device::cuda).set_requires_grad(true);
  const Tensor y = relu(x);
  CHECK(std::isnan(y.to_vector<float>()[0]));
  CHECK(y.to_vector<float>()[3] == 0.0f);
  backward({y}, {full({4}, 1.0f, Device::cuda)});
  CHECK(x.grad().to_vector<float>() == std::vector<float>(4, 0.0f));
}
