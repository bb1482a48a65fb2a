// Linear layers on the device: every candidate, and the operation beside the CPU's.
#include "shrike/ops/linear.hpp"

#include "kernels/conv.hpp"
#include "reference.hpp"

using namespace shrike;
using namespace shrike::kernels;
using reference::Doubles;

TEST_CASE("cuda linear: every candidate is exact on small integers, with K long enough to turn every stage four times") {
  std::uint64_t number = 0;
  for (const auto& [rows, in, out] :
       std::vector<std::array<std::int64_t, 3>>{{5, 420, 68}, {1, 33, 21}, {130, 36, 4}, {3, 1500, 8}}) {
    Random random(1, RandomStream::test, number++);
    const Tensor x = reference::random_integers({rows, in}, random), weight = reference::random_integers({out, in}, random);
    const Tensor dy = reference::random_integers({rows, out}, random);
    Doubles y(static_cast<std::size_t>(rows * out)), dx(static_cast<std::size_t>(rows * in)),
        dweight(static_cast<std::size_t>(out * in));
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < out; ++j) {
        for (std::int64_t k = 0; k < in; ++k) {
          const double a = x.data<float>()[i * in + k], b = weight.data<float>()[j * in + k], g = dy.data<float>()[i * out + j];
          y[static_cast<std::size_t>(i * out + j)] += a * b;
          dx[static_cast<std::size_t>(i * in + k)] += g * b;
          dweight[static_cast<std::size_t>(j * in + k)] += g * a;
        }
      }
    }
    const Tensor x_device = x.to(Device::cuda), weight_device = weight.to(Device::cuda), dy_device = dy.to(Device::cuda);
    const Conv2dSizes sizes = as_conv({rows, in, out, false});
    for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad}) {
      const Doubles& expected = pass == ConvPass::fprop ? y : pass == ConvPass::dgrad ? dx : dweight;
      for (const ConvCandidate& candidate : conv_candidates(pass)) {
        if (!candidate.supported(sizes, cuda::properties())) continue;
        INFO(rows << " rows, " << in << " to " << out << ", pass " << static_cast<int>(pass) << " by " << candidate.name);
        const Tensor result = full({static_cast<std::int64_t>(expected.size())}, 777.0f).to(Device::cuda);
        candidate.run(sizes, {.x = x_device.data<float>(),
                              .weight = weight_device.data<float>(),
                              .dy = dy_device.data<float>(),
                              .out = result.data<float>()});
        CHECK(reference::doubles(result.to(Device::cpu)) == expected);
      }
    }
  }
}

TEST_CASE("cuda linear's operation agrees with the CPU's, gradients included") {
  std::uint64_t number = 10;
  for (const auto& [rows, in, out] :
       std::vector<std::array<std::int64_t, 3>>{{1, 1, 1}, {3, 5, 7}, {70, 49, 33}, {17, 64, 20}, {0, 4, 3}}) {
    for (const bool relu : {false, true}) {
      Random random(2, RandomStream::test, number++);
      const Tensors on_cpu{reference::random_integers({rows, in}, random), reference::random_integers({out, in}, random),
                           reference::random_integers({out}, random)};
      const Tensor dy = reference::random_integers({rows, out}, random);
      Tensors results[2];
      for (const Device device : {Device::cpu, Device::cuda}) {
        Tensors leaves;
        for (const Tensor& tensor : on_cpu) {
          leaves.push_back(device == Device::cuda ? tensor.to(device) : tensor);
          leaves.back().set_requires_grad(true);
        }
        const Tensor y = linear(leaves[0], leaves[1], leaves[2], relu);
        backward({y}, {dy.to(device)});
        auto& to = results[device == Device::cuda];
        for (const Tensor& tensor : {y, leaves[0].grad(), leaves[1].grad(), leaves[2].grad()})
          to.push_back(tensor.to(Device::cpu));
      }
      for (std::size_t i = 0; i < 4; ++i) {
        INFO(rows << " rows, " << in << " to " << out << " relu " << relu << " result " << i);
        CHECK(results[1][i].to_vector<float>() == results[0][i].to_vector<float>());
      }
    }
  }
}
