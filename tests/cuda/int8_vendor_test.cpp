// Int8 layers by a product or convolution of s8 codes that is not ours: the CPU's codes to the bit. Plain loops on the
// processor stand in for cuBLAS and cuDNN, which are tested too where they are.
#include "kernels/int8_vendor.hpp"

#include "quantized.hpp"
#include "shrike/core/cuda.hpp"

using namespace shrike;
using kernels::Conv2dSizes;
using kernels::int8::Product;
using Provider = CudaSettings::Provider;

namespace {

template <class T> std::vector<T> from_device(const T* data, std::int64_t count) {
  std::vector<T> result(static_cast<std::size_t>(count));
  kernels::copy_bytes(Cuda{}, result.data(), Device::cpu, data, Device::cuda, result.size() * sizeof(T));
  return result;
}

template <class T> void to_device(T* data, const std::vector<T>& values) {
  kernels::copy_bytes(Cuda{}, data, Device::cuda, values.data(), Device::cpu, values.size() * sizeof(T));
}

std::int32_t narrow(std::int64_t sum) {
  REQUIRE(std::abs(sum) < std::int64_t{1} << 31);
  return static_cast<std::int32_t>(sum);
}

int calls = 0;  // of the two that follow

void plain_product(std::int64_t m, std::int64_t n, std::int64_t k, const std::int8_t* a, const std::int8_t* b,
                   std::int32_t* c) {
  ++calls;
  const auto rows = from_device(a, m * k), columns = from_device(b, n * k);
  std::vector<std::int32_t> sums;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      std::int64_t sum = 0;
      for (std::int64_t l = 0; l < k; ++l) {
        sum += rows[static_cast<std::size_t>(i * k + l)] * columns[static_cast<std::size_t>(j * k + l)];
      }
      sums.push_back(narrow(sum));
    }
  }
  to_device(c, sums);
}

void plain_convolution(const Conv2dSizes& z, const std::int8_t* x, const std::int8_t* weight, std::int32_t* y) {
  ++calls;
  const auto map = from_device(x, z.n * z.h * z.w * z.c), filters = from_device(weight, z.k * z.r * z.s * z.c);
  std::vector<std::int32_t> sums;
  for (std::int64_t i = 0; i < z.n * z.p * z.q * z.k; ++i) {
    const std::int64_t k = i % z.k, q = i / z.k % z.q, p = i / z.k / z.q % z.p, n = i / z.k / z.q / z.p;
    std::int64_t sum = 0;
    for (std::int64_t tap = 0; tap < z.r * z.s; ++tap) {
      const std::int64_t h = p * z.stride - z.padding + tap / z.s * z.dilation;
      const std::int64_t w = q * z.stride - z.padding + tap % z.s * z.dilation;
      if (h < 0 || h >= z.h || w < 0 || w >= z.w) continue;
      for (std::int64_t c = 0; c < z.c; ++c) {
        sum += map[static_cast<std::size_t>(((n * z.h + h) * z.w + w) * z.c + c)] *
               filters[static_cast<std::size_t>((k * z.r * z.s + tap) * z.c + c)];
      }
    }
    sums.push_back(narrow(sum));
  }
  to_device(y, sums);
}

struct Layer {
  QuantizedConv2d op;
  Tensors in;  // on the CPU
};

// The layer's output by f(product), on the CPU.
template <class F> Tensor output(const Layer& layer, const F& f) {
  Tensors in;
  for (const Tensor& tensor : layer.in) in.push_back(tensor.to(Device::cuda));
  const auto sizes = layer.op.sizes(in[0].shape(), in[1].shape());
  const Shape shape{sizes.n, sizes.p, sizes.q, sizes.k};
  const auto to = detail::requantize("test", in, layer.op.output, layer.op.relu, layer.op.residual_multiplier,
                                     sizes.r * sizes.s * sizes.c, sizes.k, shape);
  const Tensor y(shape, to.y, Device::cuda);
  kernels::fill_bytes(Cuda{}, y.raw(), 0x5a, y.bytes());
  f(kernels::int8::product(sizes, to, detail::quantized_operands(in, y)));
  return y.to(Device::cpu);
}

void by_plain_loops(const Product& p) {
  REQUIRE(kernels::int8::can_hand_over(p));
  if (kernels::int8::is_matrix(p)) {
    kernels::int8::multiply_by(plain_product, p);
  } else {
    kernels::int8::convolve_by(plain_convolution, p);
  }
}

// By plain loops, by every way of the vendor's that there is and that it does not refuse, and by whoever is asked for.
void check(const Layer& layer) {
  const Tensor expected = call(layer.op, layer.in)[0];
  calls = 0;
  CHECK(quantized::same(output(layer, by_plain_loops), expected));
  CHECK(calls == 1);

  std::vector<std::string> names;
  output(layer, [&](const Product& p) {
    std::vector<cuda::Way> ways;
    kernels::int8::add_vendor_ways(ways, p);
    for (const cuda::Way& way : ways) names.push_back(way.name);
  });
  CHECK((!SHRIKE_CUDA_HOST || names.empty()));  // no stand-in among the candidates
  for (std::size_t i = 0; i < names.size(); ++i) {
    INFO(names[i]);
    std::string refusal;
    const Tensor got = output(layer, [&](const Product& p) {
      std::vector<cuda::Way> ways;
      kernels::int8::add_vendor_ways(ways, p);
      try {
        ways[i].run();
      } catch (const Error& error) {
        refusal = error.what();
      }
    });
    if (!refusal.empty()) WARN(names[i] << " refuses: " << refusal);
    CHECK((!refusal.empty() || quantized::same(got, expected)));
  }
  for (const Provider provider : {Provider::vendor, Provider::native}) {
    cuda_settings().provider = provider;
    CHECK(quantized::same(output(layer, [](const Product& p) { kernels::int8::multiply(p); }), expected));
  }
  cuda_settings().provider = Provider::automatic;
}

struct Case {
  std::int64_t n, h, w, c, k, r, s;
  Conv2dOptions options;
};
const Case cases[] = {
    {1, 5, 7, 8, 16, 3, 3, {.padding = 1}},
    {2, 9, 6, 16, 36, 3, 3, {.padding = 1}},
    {3, 6, 5, 20, 12, 3, 3, {}},
    {1, 5, 4, 32, 4, 7, 5, {.padding = 3}},  // more padding than map on every side
    {1, 9, 8, 12, 20, 3, 2, {.stride = 2, .padding = 1}},
    {2, 8, 8, 4, 8, 3, 3, {.stride = 2}},  // the last row and column are not reached
    {1, 12, 11, 16, 8, 3, 3, {.stride = 3, .padding = 2, .dilation = 2}},
    {1, 7, 9, 48, 24, 1, 1, {.stride = 2}},
    {1, 3, 5, 16, 8, 1, 1, {.padding = 1}},
    {2, 7, 5, 16, 12, 1, 1, {}},  // products
    {1, 3, 3, 20, 4, 1, 1, {}},
    {1, 1, 1, 4, 4, 1, 1, {}},
    {37, 1, 1, 196, 84, 1, 1, {}},
};

Layer random_layer(const Case& z, Dtype x, Dtype y, bool relu, int residual, Random& random, bool extremes = false) {
  Layer layer;
  layer.op.set(z.options);
  layer.op.relu = relu;
  layer.op.output = name(y);
  layer.op.residual_multiplier = residual > 0 ? 0.37 : 0.0;
  const auto [bias, multiplier] = quantized::random_epilogue(z.k, z.r * z.s * z.c, random);
  layer.in = {quantized::random_codes({z.n, z.h, z.w, z.c}, x, random, extremes),
              quantized::random_codes({z.k, z.r, z.s, z.c}, Dtype::s8, random, extremes), bias, multiplier};
  if (residual > 0) {
    const Shape shape = call(layer.op, layer.in)[0].shape();
    layer.in.push_back(quantized::random_codes(shape, residual == 1 ? Dtype::u8 : Dtype::s8, random));
  }
  return layer;
}

}  // namespace

TEST_CASE("int8 layers by a vendor's products and convolutions equal the CPU's to the bit") {
  std::uint64_t number = 0;
  for (const Case& z : cases) {
    for (const Dtype x : quantized::code_types) {
      for (const Dtype y : quantized::output_types) {
        for (const bool relu : {false, true}) {
          Random random(1, RandomStream::test, number++);
          const int residual = static_cast<int>(number % 3);
          INFO(z.n << " images " << z.h << 'x' << z.w << 'x' << z.c << ", " << z.k << " filters, " << name(x) << " to "
                   << name(y) << ", relu " << relu << ", residual " << residual);
          check(random_layer(z, x, y, relu, residual, random));
        }
      }
    }
  }
}

TEST_CASE("sums at the ends of the range are exact by a vendor's products and convolutions") {
  for (const Dtype x : quantized::code_types) {
    for (const int codes : {x == Dtype::u8 ? 255 : -127, x == Dtype::u8 ? 0 : 127}) {
      for (const int weights : {-127, 127}) {
        for (const Case& z : {Case{2, 1, 1, 25088, 8, 1, 1, {}}, Case{1, 4, 3, 2048, 4, 3, 3, {.padding = 1}}}) {
          INFO(codes << " times " << weights << ", " << z.c << " channels");
          Random random(2, RandomStream::test);
          Layer layer = random_layer(z, x, Dtype::f32, false, 0, random, true);
          std::memset(layer.in[0].raw(), codes, layer.in[0].bytes());
          const std::size_t filter = layer.in[1].bytes() / static_cast<std::size_t>(z.k);
          std::memset(layer.in[1].raw(), weights, 2 * filter);  // the others stay mixed
          layer.in[3] = full({z.k}, 1.0f);
          check(layer);
        }
      }
    }
  }
}

TEST_CASE("nothing of the weights is kept from one call of a vendor's product to the next") {
  for (const Case& z : {Case{3, 1, 1, 64, 8, 1, 1, {}}, Case{1, 5, 6, 16, 8, 3, 3, {.padding = 1}}}) {
    Random random(3, RandomStream::test);
    const Layer layer = random_layer(z, Dtype::u8, Dtype::f32, false, 0, random);
    const Tensor weight = layer.in[1].to(Device::cuda);
    for (int round = 0; round < 3; ++round) {
      const Layer changed{
          layer.op, {layer.in[0], quantized::random_codes(layer.in[1].shape(), Dtype::s8, random), layer.in[2], layer.in[3]}};
      weight.copy_from(changed.in[1]);
      Layer same_memory = layer;
      same_memory.in[1] = weight;
      CHECK(quantized::same(output(same_memory, by_plain_loops), call(changed.op, changed.in)[0]));
    }
  }
}

TEST_CASE("what cuBLAS and cuDNN have no kernels for is not handed over") {
  const auto can = [](const Case& z) {
    Random random(4, RandomStream::test);
    bool result = false;
    output(random_layer(z, Dtype::u8, Dtype::u8, true, 0, random),
           [&](const Product& p) { result = kernels::int8::can_hand_over(p); });
    return result;
  };
  CHECK(can({1, 4, 4, 4, 4, 3, 3, {}}));
  CHECK_FALSE(can({1, 4, 4, 3, 4, 3, 3, {}}));   // the image's channels
  CHECK_FALSE(can({1, 4, 4, 4, 45, 1, 1, {}}));  // the region proposals' outputs
}

TEST_CASE("an address that is not a multiple of 16 is not handed over") {
  Random random(5, RandomStream::test);
  output(random_layer({2, 1, 1, 16, 4, 1, 1, {}}, Dtype::u8, Dtype::u8, true, 0, random), [](Product p) {
    CHECK(kernels::int8::can_hand_over(p));
    p.map.data += 4;
    CHECK_FALSE(kernels::int8::can_hand_over(p));
  });
}
