#include "shrike/ops/quantize.hpp"

#include <cstring>
#include <limits>

#include "reference.hpp"
#include "shrike/quant/observer.hpp"

using namespace shrike;

namespace {

void check_same(const Tensor& cuda, const Tensor& cpu) {
  REQUIRE(cuda.device() == Device::cuda);
  REQUIRE(cuda.dtype() == cpu.dtype());
  REQUIRE(cuda.shape() == cpu.shape());
  const Tensor host = cuda.to(Device::cpu);
  CHECK(std::memcmp(host.raw(), cpu.raw(), cpu.bytes()) == 0);
}

}  // namespace

TEST_CASE("values, codes and straight-through gradients agree with the CPU to the bit, learned scales' to rounding") {
  Random random(1, RandomStream::test);
  for (const Shape& shape : {Shape{1}, Shape{3, 5}, Shape{2, 3, 3, 5}, Shape{2, 9000}}) {
    for (const Dtype dtype : {Dtype::u8, Dtype::s8}) {
      for (const bool per_channel : {false, true}) {
        INFO(name(dtype) << message(shape) << per_channel);
        const Tensor x = reference::random_tensor(shape, random, -2.0f, 2.0f);
        const Tensor scale = reference::random_tensor({per_channel ? shape[0] : 1}, random, 0.004f, 0.01f);
        const Tensor g = reference::random_tensor(shape, random);
        FakeQuantize op;
        op.dtype = name(dtype);
        op.per_channel = per_channel;
        op.learned = true;
        Quantize to_codes;
        to_codes.dtype = op.dtype;
        to_codes.per_channel = per_channel;
        Dequantize back;
        back.per_channel = per_channel;
        std::vector<Tensors> found;
        for (const Device device : {Device::cpu, Device::cuda}) {
          const Tensor xd = x.clone().to(device).set_requires_grad(true);
          const Tensor sd = scale.clone().to(device).set_requires_grad(true);
          const Tensor y = call(op, {xd, sd})[0];
          backward({y}, {g.to(device)});
          const Tensor q = to_codes.forward({xd, sd})[0];
          found.push_back({y, xd.grad(), q, back.forward({q, sd})[0], sd.grad()});
        }
        for (std::size_t i = 0; i < 4; ++i) check_same(found[1][i], found[0][i]);
        CHECK(reference::difference(found[1][4], reference::doubles(found[0][4])) < 1e-5);
      }
    }
  }
}

TEST_CASE("scales of 0, NaN and infinities") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const Tensor x = tensor<float>({6}, {0.5f, -2.5f, nan, inf, -inf, 1e30f});
  for (const float s : {0.0f, 1.0f, -1.0f}) {
    FakeQuantize op;
    const Tensor scale = full({1}, s);
    check_same(op.forward({x.to(Device::cuda), scale.to(Device::cuda)})[0], op.forward({x, scale})[0]);
  }
  for (const Dtype dtype : {Dtype::u8, Dtype::s8}) {
    const Tensor one = full({1}, 1.0f);
    check_same(quantize(x.to(Device::cuda), one.to(Device::cuda), dtype), quantize(x, one, dtype));
  }
}

TEST_CASE("observers see the same on both devices") {
  Random random(2, RandomStream::test);
  for (const auto choice : {quant::RangeChoice::min_max, quant::RangeChoice::moving_average, quant::RangeChoice::mse}) {
    quant::ObserverOptions options;
    options.choice = choice;
    quant::Observer cpu("x", Dtype::s8, options), cuda("x", Dtype::s8, options);
    for (const std::int64_t n : {1, 300, 9000}) {
      const Tensor x = reference::random_tensor({n}, random, -static_cast<float>(n), 5.0f);
      cpu.update(x);
      cuda.update(x.to(Device::cuda));
      CHECK(cuda.scale() == cpu.scale());
      CHECK(cuda.histogram() == cpu.histogram());
    }
    const Tensor odd = tensor<float>({3}, {1, std::numeric_limits<float>::quiet_NaN(), 2});
    CHECK_THROWS_WITH(cpu.update(odd), "x: 1 of 3 values are not finite");
    // On the device a mistake shows when something is read: at once for a histogram, else with the scale.
    if (choice == quant::RangeChoice::mse) {
      CHECK_THROWS_WITH(cuda.update(odd.to(Device::cuda)), "x: 1 of 3 values are not finite");
    } else {
      cuda.update(odd.to(Device::cuda));
      CHECK_THROWS_WITH(cuda.scale(), "x: 1 of 9304 values are not finite");
      CHECK_THROWS_WITH(cuda.constant(), "x: 1 of 9304 values are not finite");
    }
  }
  for (const Shape& shape : {Shape{1, 1}, Shape{5, 3, 3, 7}, Shape{2, 9001}}) {
    const Tensor w = reference::random_tensor(shape, random);
    const Tensor scales = quant::weight_scales(w, "w"), unread = zeros(scales.shape(), Dtype::f32, Device::cuda);
    check_same(quant::weight_scales(w.to(Device::cuda), "w"), scales);
    quant::write_weight_scales(w.to(Device::cuda), unread);
    check_same(unread, scales);
  }
}
