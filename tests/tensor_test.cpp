// Tensors and what they are made of: shapes, memory, halves, random numbers.
#include "shrike/core/tensor.hpp"

#include <set>

#include "catch.hpp"
#include "shrike/core/random.hpp"
#include "shrike/core/threads.hpp"

using namespace shrike;

namespace {

auto says(const char* text) { return Catch::Matchers::Contains(text); }

}  // namespace

TEST_CASE("shapes know their sizes and refuse impossible ones") {
  const Shape shape{2, 3, 4};
  CHECK(shape.numel() == 24);
  CHECK(shape[-1] == 4);
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{0, std::int64_t{1} << 40}.numel() == 0);
  CHECK(message(shape) == "[2, 3, 4]");
  CHECK(shape != Shape{2, 3});
  CHECK_THROWS_WITH(shape[3], says("dimension 3"));
  CHECK_THROWS_WITH(shape[-4], says("dimension -4"));
  CHECK_THROWS_WITH((Shape{1, -2}), says("-2"));
  CHECK_THROWS_WITH((Shape{1, 1, 1, 1, 1, 1, 1}), says("rank 7"));
  CHECK_THROWS_WITH((Shape{std::int64_t{1} << 32, std::int64_t{1} << 32}), says("2^63"));
}

TEST_CASE("copies of a tensor are one tensor, views share elements, clones do not") {
  const Tensor a = tensor<float>({2, 2}, {1, 2, 3, 4});
  const Tensor b = a, view = a.view({4}), clone = a.clone();
  a.data<float>()[0] = 9;
  CHECK(b.same(a));
  CHECK_FALSE(view.same(a));
  CHECK(view.data<float>()[0] == 9);
  CHECK(clone.data<float>()[0] == 1);
  CHECK_FALSE(a.unique());
  CHECK(clone.unique());
  CHECK_FALSE(view.unique());
  b.copy_from(clone);
  CHECK(a.to_vector<float>() == std::vector<float>{1, 2, 3, 4});
  CHECK(a.to(Device::cpu).same(a));
  accumulate(a, clone);
  CHECK(a.to_vector<float>() == std::vector<float>{2, 4, 6, 8});
  a.zero();
  CHECK(view.to_vector<float>() == std::vector<float>(4, 0.0f));
}

TEST_CASE("what a tensor is not is refused by name") {
  const Tensor a = zeros({2, 2});
  CHECK_THROWS_WITH(a.data<std::int32_t>(), says("f32 was read as s32"));
  CHECK_THROWS_WITH(a.view({3}), says("[2, 2] cannot be viewed as [3]"));
  CHECK_THROWS_WITH(a.item(), says("one element"));
  CHECK_THROWS_WITH(a.copy_from(zeros({4})), says("[4]"));
  CHECK_THROWS_WITH(a.copy_from(zeros({2, 2}, Dtype::s32)), says("s32"));
  CHECK_THROWS_WITH(tensor<float>({3}, {1, 2}), says("2 values"));
  CHECK_THROWS_WITH(zeros({1}, Dtype::u8).set_requires_grad(true), says("u8"));
  CHECK_THROWS_WITH(Tensor().shape(), says("undefined"));
  CHECK_THROWS_WITH(Tensor({std::int64_t{1} << 60}), says("out of memory"));
  CHECK(parse_device("cpu") == Device::cpu);
  CHECK_THROWS_WITH(parse_device("gpu"), says("'gpu'"));
#if !SHRIKE_HAS_CUDA
  CHECK_THROWS_WITH(zeros({1}, Dtype::f32, Device::cuda), says("no CUDA backend"));
#endif
}

TEST_CASE("elements of every type are aligned and of the size they say") {
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::s8, Dtype::u8, Dtype::s32, Dtype::s64}) {
    for (const std::int64_t n : {0, 1, 1000}) {
      const Tensor x = zeros({n}, dtype);
      CHECK(x.bytes() == static_cast<std::size_t>(n) * size_of(dtype));
      CHECK(reinterpret_cast<std::uintptr_t>(x.raw()) % 64 == 0);
    }
  }
}

TEST_CASE("freed memory is used again, and a thousand sizes do not grow the cache beyond its bound") {
  auto& memory = allocator(Cpu{});
  memory.release_cache();
  memory.reset_peak();
  const MemoryStats before = memory.stats();
  const void* first = Tensor({1000}).raw();
  CHECK(Tensor({990}).raw() == first);  // of the same size class
  CHECK(memory.stats().in_use == before.in_use);
  for (std::int64_t n = 1; n <= 1000; ++n) Tensor({n * 50'000});  // every size is new
  const std::size_t largest = before.in_use + CachingAllocator::size_class(1000 * 50'000 * 4);
  CHECK(memory.stats().peak <= largest + largest / 4 + (std::size_t{64} << 20));
  memory.release_cache();
  CHECK(memory.stats().cached == 0);
}

TEST_CASE("size classes hold what is asked for and waste at most an eighth") {
  for (std::size_t bytes = 1; bytes < 5'000'000; bytes += bytes / 13 + 1) {
    const std::size_t size = CachingAllocator::size_class(bytes);
    REQUIRE(size >= bytes);
    REQUIRE(size <= bytes + std::max<std::size_t>(63, bytes / 8));
    REQUIRE(CachingAllocator::size_class(size) == size);
  }
}

TEST_CASE("halves round to nearest, ties to even") {
  const auto bits = [](float value) { return Half(value).bits(); };
  CHECK(bits(0.0f) == 0x0000);
  CHECK(bits(-0.0f) == 0x8000);
  CHECK(bits(1.0f) == 0x3c00);
  CHECK(bits(-2.0f) == 0xc000);
  CHECK(bits(65504.0f) == 0x7bff);
  CHECK(bits(65519.99f) == 0x7bff);
  CHECK(bits(65520.0f) == 0x7c00);  // rounds to infinity
  CHECK(bits(1e30f) == 0x7c00);
  CHECK(bits(-HUGE_VALF) == 0xfc00);
  CHECK((bits(NAN) & 0x7fff) > 0x7c00);
  CHECK(bits(0x1p-24f) == 0x0001);
  CHECK(bits(0x1p-25f) == 0x0000);  // a tie, to even
  CHECK(bits(0x1.8p-24f) == 0x0002);
  CHECK(bits(0x1.ff8p-15f) == 0x03ff);  // the greatest subnormal
  CHECK(bits(0x1.ffcp-15f) == 0x0400);  // a tie with the least normal
  CHECK(bits(1.0f + 0x1p-11f) == 0x3c00);
  CHECK(bits(1.0f + 0x1.8p-10f) == 0x3c02);
  CHECK(bits(0x1.ffep0f) == 0x4000);  // the carry reaches the exponent
}

TEST_CASE("every half comes back from float, and every float goes to the nearest half") {
  std::vector<float> values;  // finite and not negative, ascending
  for (std::uint32_t b = 0; b < 0x10000; ++b) {
    const auto half = std::bit_cast<Half>(static_cast<std::uint16_t>(b));
    const auto value = static_cast<float>(half);
    if (std::isnan(value)) {
      CHECK((b & 0x7fff) > 0x7c00);
    } else {
      REQUIRE(Half(value).bits() == b);
      if (b < 0x7c00) values.push_back(value);
    }
  }
  Random random(1, RandomStream::test);
  for (int i = 0; i < 20000; ++i) {
    const float value = std::ldexp(random.uniform(1, 2), static_cast<int>(random.below(40)) - 26);
    if (value > 65504.0f) continue;
    const auto above = std::lower_bound(values.begin(), values.end(), value);
    const double error = std::abs(static_cast<double>(static_cast<float>(Half(value))) - value);
    double best = std::abs(static_cast<double>(*above) - value);
    if (above != values.begin()) best = std::min(best, std::abs(static_cast<double>(above[-1]) - value));
    REQUIRE(error == best);
  }
}

// The vectors published with Random123 (kat_vectors): counter words, key words, result words.
TEST_CASE("philox gives the published answers") {
  using Words = std::array<std::uint32_t, 4>;
  CHECK(philox(0, 0, 0) == Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  constexpr std::uint64_t ones = ~std::uint64_t{0};
  CHECK(philox(ones, ones, ones) == Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  CHECK(philox(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u) ==
        Words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("random numbers are fixed by seed, stream and index, and those differ") {
  std::set<std::uint32_t> seen;
  for (std::uint64_t seed : {0u, 1u}) {
    for (const RandomStream stream : {RandomStream::init, RandomStream::dropout}) {
      for (std::uint64_t index : {0u, 1u}) {
        seen.insert(Random(seed, stream, index).bits());
        CHECK(Random(seed, stream, index).bits() == Random(seed, stream, index).bits());
      }
    }
  }
  CHECK(seen.size() == 8);
}

TEST_CASE("uniform, normal and below have their distributions") {
  Random random(3, RandomStream::test);
  constexpr int n = 100'000;
  double sum = 0, squares = 0, uniform = 0;
  std::array<int, 7> counts{};
  for (int i = 0; i < n; ++i) {
    const double value = random.normal();
    sum += value;
    squares += value * value;
    const float u = random.uniform();
    REQUIRE((u >= 0.0f && u < 1.0f));
    uniform += u;
    ++counts[random.below(7)];
  }
  CHECK(std::abs(sum / n) < 4 / std::sqrt(n));
  CHECK(std::abs(squares / n - 1) < 4 * std::sqrt(2.0 / n));
  CHECK(std::abs(uniform / n - 0.5) < 4 * std::sqrt(1.0 / 12 / n));
  for (const int count : counts) CHECK(std::abs(count - n / 7.0) < 4 * std::sqrt(n / 7.0));
  CHECK_THROWS_AS(random.below(0), Error);
  std::vector<int> values{0, 1, 2, 3, 4, 5, 6, 7};
  random.shuffle(values);
  CHECK(std::set<int>(values.begin(), values.end()).size() == 8);
}

TEST_CASE("parallel_for covers every element once") {
  for (const std::int64_t n : {0, 1, 2, 5, 1000}) {
    for (const std::int64_t grain : {0, 1, 3, 2000}) {
      std::vector<int> hits(static_cast<std::size_t>(n));
      parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
      });
      CHECK(hits == std::vector<int>(static_cast<std::size_t>(n), 1));
    }
  }
}
