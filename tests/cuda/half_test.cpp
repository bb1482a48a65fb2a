// Halves on the device: layers beside the double reference and, where sums are exact, beside the CPU to the bit, whatever
// multiplies them; pooling, conversions; a whole detector.
#include "kernels/half.hpp"

#include "cuda/small_detector.hpp"
#include "halves.hpp"
#include "models/quantized.hpp"
#include "shrike/ops/pool.hpp"
#include "shrike/ops/roi.hpp"

using namespace shrike;
using kernels::half::Choice;
using kernels::half::Path;

namespace {

const Choice choices[] = {{Path::automatic},        {Path::naive},          {Path::tensor8, 64},    {Path::tensor8, 128},
                          {Path::tensor16, 64},     {Path::tensor16, 128},  {Path::tensor8, 64, 2}, {Path::tensor16, 64, 5},
                          {Path::tensor16, 128, 2}, {Path::tensor8, 128, 3}};

// Calls f with the result of each way to multiply; what is computed twice is the same to the bit.
template <class O, class F> void each_way(const O& op, const Tensors& in, const F& f) {
  Tensors moved;
  for (const Tensor& tensor : in) moved.push_back(tensor.defined() ? tensor.to(Device::cuda) : tensor);
  for (const Choice& choice : choices) {
    if (choice.path == Path::tensor16 && cuda::properties().compute_capability < 80) continue;
    INFO("path " << static_cast<int>(choice.path) << ", tile " << choice.tile << ", splits " << choice.splits);
    kernels::half::choice() = choice;
    const Tensor y = call(op, moved)[0].to(Device::cpu);
    f(y);
    if (choice.splits > 1) CHECK(halves::same(call(op, moved)[0].to(Device::cpu), y));
  }
  kernels::half::choice() = {};
}

}  // namespace

TEST_CASE("convolutions of halves on the device are the double reference's, and the CPU's to the bit where sums are exact") {
  std::uint64_t number = 0;
  for (const auto& z : halves::cases) {
    for (const bool integers : {false, true}) {
      INFO("case " << number / 2 << (integers ? ", integers" : ""));
      Random random(1, RandomStream::test, number++);
      const auto op = halves::conv_op(z, number % 4 < 2 ? "f16" : "f32", number % 3 == 0);
      const auto halves_of = [&](const Shape& shape) {
        return integers ? halves::random_integers(shape, random) : halves::random_halves(shape, random);
      };
      Tensors in{halves_of({z.n, z.h, z.w, z.c}), halves_of({z.k, z.r, z.s, z.c / z.options.groups})};
      if (number % 5 != 0)
        in.push_back(integers ? reference::random_integers({z.k}, random) : reference::random_tensor({z.k}, random));
      if (number % 4 == 1 || number % 4 == 2) {
        const Shape shape = call(op, in)[0].shape();
        in.resize(3);
        in.push_back(halves_of(shape));
      }
      const Tensor on_cpu = call(op, in)[0];
      const auto exact = halves::exact(in, z.options, op.relu);
      each_way(op, in, [&](const Tensor& y) {
        halves::check_close(y, exact, z.r * z.s * z.c / z.options.groups);
        if (integers) CHECK(halves::same(y, on_cpu));
      });
    }
  }
}

TEST_CASE("linear layers of halves on the device") {
  for (const auto& [rows, depth, out] : {std::tuple{1, 1, 1}, {3, 49, 84}, {70, 128, 21}, {5, 640, 66}, {0, 8, 4}}) {
    for (const bool integers : {false, true}) {
      INFO(rows << " rows, " << depth << " to " << out << (integers ? ", integers" : ""));
      Random random(2, RandomStream::test);
      HalfLinear op;
      op.relu = rows == 3;
      op.output = rows == 5 ? "f32" : "f16";
      const auto halves_of = [&](const Shape& shape) {
        return integers ? halves::random_integers(shape, random) : halves::random_halves(shape, random);
      };
      Tensors in{halves_of({rows, depth}), halves_of({out, depth}), reference::random_integers({out}, random)};
      if (rows == 70) in.push_back(halves_of({rows, out}));
      Tensors as_maps = in;
      as_maps[0] = in[0].view({rows, 1, 1, depth});
      as_maps[1] = in[1].view({out, 1, 1, depth});
      const auto exact = halves::exact(as_maps, {}, op.relu);
      const Tensor on_cpu = call(op, in)[0];
      each_way(op, in, [&](const Tensor& y) {
        halves::check_close(y, exact, depth);
        if (integers) CHECK(halves::same(y, on_cpu));
      });
    }
  }
}

TEST_CASE("sums of halves saturate on the device, and NaN stays") {
  HalfLinear op;
  const Tensor weight = narrow(tensor<float>({3, 2}, {1, 1, -1, -1, 1, -1}));
  const Tensor x = narrow(tensor<float>({3, 2}, {60000, 6000, 1, std::nanf(""), 65504, 65504}));
  each_way(op, {x, weight}, [](const Tensor& result) {
    const auto y = widen(result).to_vector<float>();
    CHECK((y[0] == 65504 && y[1] == -65504 && y[6] == 65504 && y[7] == -65504 && y[8] == 0));
    CHECK((std::isnan(y[3]) && std::isnan(y[4]) && std::isnan(y[5])));
  });
}

TEST_CASE("K of halves is split where tiles alone would leave multiprocessors idle, and nowhere else") {
  const cuda::Properties h100{"H100 SXM", 90, 132, 227 * 1024};
  using kernels::half::plan_of;
  const auto conv3 = plan_of({30000, 256, 2304}, h100), fc6 = plan_of({300, 4096, 25088}, h100);
  CHECK((conv3.tile == 128 && conv3.splits == 1));
  CHECK((fc6.splits > 1 && fc6.splits <= 25088 / 32 / 8));
  CHECK(plan_of({1, 1, 64}, h100).splits == 1);
}

TEST_CASE("halves become floats and floats halves as on the CPU") {
  std::vector<Half> all;
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7fff) <= 0x7c00) all.push_back(std::bit_cast<Half>(static_cast<std::uint16_t>(bits)));
  }
  const Tensor x = tensor({static_cast<std::int64_t>(all.size())}, all);
  CHECK(halves::same(widen(x.to(Device::cuda)).to(Device::cpu), widen(x)));
  std::vector<float> values;
  Random random(3, RandomStream::test);
  for (int i = 0; i < 20000; ++i) {
    values.push_back(std::ldexp(random.uniform(-1, 1), static_cast<int>(random.below(50)) - 30));
    values.push_back(std::bit_cast<float>(std::bit_cast<std::uint32_t>(values.back()) & 0xfffff000u));  // ties
  }
  values.insert(values.end(), {65519.996f, 65520, -1e30f, std::numeric_limits<float>::infinity(), -0.0f});
  const Tensor y = tensor({static_cast<std::int64_t>(values.size())}, values);
  CHECK(halves::same(narrow(y.to(Device::cuda)).to(Device::cpu), narrow(y)));
  CHECK(std::isnan(widen(narrow(full({1}, std::nanf(""), Device::cuda))).to(Device::cpu).item()));
}

TEST_CASE("pooling of halves on the device equals the CPU's to the bit") {
  const PoolOptions options[] = {{}, {.ceil_mode = true}, {.kernel = 3, .stride = 2, .padding = 1}, {.kernel = 3, .stride = 1}};
  Random random(4, RandomStream::test);
  for (const Shape& shape : {Shape{2, 9, 7, 3}, Shape{1, 6, 5, 48}, Shape{0, 4, 4, 2}, Shape{1, 3, 3, 1}}) {
    const Tensor x = halves::random_halves(shape, random), x_cuda = x.to(Device::cuda);
    for (const auto& o : options) CHECK(halves::same(max_pool2d(x_cuda, o).to(Device::cpu), max_pool2d(x, o)));
    const Tensor rois({9, 5});
    for (std::int64_t i = 0; i < 45; ++i) {
      rois.data<float>()[i] = i % 5 == 0 ? static_cast<float>(i / 5 % 3) - 1 : random.uniform(-30, 190);
    }
    rois.data<float>()[38] = 1e9f;
    rois.data<float>()[42] = std::nanf("");
    const Tensor rois_cuda = rois.to(Device::cuda);
    for (const bool aligned : {false, true}) {
      for (const std::int64_t ratio : {0, 2, 3}) {
        const RoiOptions o{.height = 3, .width = 5, .spatial_scale = 1.0 / 16, .sampling_ratio = ratio, .aligned = aligned};
        INFO(message(shape) << " aligned " << aligned << " ratio " << ratio);
        CHECK(halves::same(roi_pool(x_cuda, rois_cuda, o).to(Device::cpu), roi_pool(x, rois, o)));
        CHECK(halves::same(roi_align(x_cuda, rois_cuda, o).to(Device::cpu), roi_align(x, rois, o)));
      }
    }
  }
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  const Tensor odd =
      tensor<Half>({1, 2, 2, 2}, {Half(1), Half(-inf), Half(nan), Half(-inf), Half(inf), Half(-inf), Half(2), Half(-inf)});
  const Tensor all = tensor<float>({1, 5}, {0, 0, 0, 1, 1});
  const RoiOptions one{.height = 1, .width = 1};
  for (const Tensor& y : {max_pool2d(odd.to(Device::cuda)), roi_pool(odd.to(Device::cuda), all.to(Device::cuda), one)}) {
    const auto values = widen(y.to(Device::cpu)).to_vector<float>();
    CHECK((std::isnan(values[0]) && values[1] == -inf));
  }
}

TEST_CASE("a detector in halves finds on the device what it finds on the CPU and in float") {
  for (const char* backbone : {"vgg11", "resnet18"}) {
    for (const char* roi : {"align", "pool"}) {
      auto config = small_detector(backbone);
      config.batch_norm = true;
      config.roi = roi;
      INFO(backbone << ", roi " << roi);
      const auto model = models::make_detector(config);
      nn::initialize(*model, 3);
      nn::train(*model, false);
      Random random(5, RandomStream::test);
      const Tensor image = reference::random_tensor({1, 66, 81, 3}, random, -2.0f, 2.0f);
      std::vector<std::vector<std::vector<Detection>>> found;
      for (const auto& [device, half] : {std::pair(Device::cpu, false), {Device::cpu, true}, {Device::cuda, true}}) {
        nn::to(*model, device);
        const auto fused = models::fuse_detector(*model);
        const auto detector = models::join(half ? models::half_detector(fused).parts : fused.parts, fused.options);
        nn::train(*detector, false);
        found.push_back(detector->detect(image.to(device), {{66, 81}}));
      }
      REQUIRE(!found[0][0].empty());
      for (const auto& other : {found[1][0], found[2][0]}) {
        // What is as good as equal may come in another order, or be suppressed by another one.
        const auto same = [](const Detection& a, const Detection& b) {
          const double apart = std::max({std::abs(a.box.x1 - b.box.x1), std::abs(a.box.y1 - b.box.y1),
                                         std::abs(a.box.x2 - b.box.x2), std::abs(a.box.y2 - b.box.y2)});
          return a.label == b.label && std::abs(a.score - b.score) < 2e-3 && apart < 0.2;
        };
        const auto missing = std::count_if(found[0][0].begin(), found[0][0].end(), [&](const Detection& a) {
          return std::none_of(other.begin(), other.end(), [&](const Detection& b) { return same(a, b); });
        });
        CHECK(10 * missing <= static_cast<std::ptrdiff_t>(found[0][0].size()));
      }
    }
  }
}
