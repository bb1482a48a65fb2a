#include "error_of.hpp"
#include "kernels/cuda.hpp"
#include "reference.hpp"

using namespace shrike;

TEST_CASE("tensors go to the device and back, and are copied, filled and added there") {
  Random random(1, RandomStream::test);
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{0, 3}, Shape{1000, 7}}) {
    const Tensor a = reference::random_integers(shape, random), b = reference::random_integers(shape, random);
    const Tensor there = a.to(Device::cuda);
    CHECK(there.device() == Device::cuda);
    CHECK(there.to_vector<float>() == a.to_vector<float>());
    const Tensor copy = there.clone();
    accumulate(copy, b.to(Device::cuda));
    const Tensor sum = a.clone();
    accumulate(sum, b);
    CHECK(copy.to_vector<float>() == sum.to_vector<float>());
    CHECK(there.to_vector<float>() == a.to_vector<float>());
    copy.copy_from(a);
    CHECK(copy.to_vector<float>() == a.to_vector<float>());
    copy.zero();
    CHECK(copy.to_vector<float>() == zeros(shape).to_vector<float>());
    CHECK(full(shape, 2.5f, Device::cuda).to_vector<float>() == full(shape, 2.5f).to_vector<float>());
  }
}

TEST_CASE("a thousand image shapes do not grow the device's cache") {
  CachingAllocator& memory = allocator(Cuda{});
  memory.release_cache();
  memory.reset_peak();
  Random random(2, RandomStream::test);
  const auto use = [](std::int64_t height, std::int64_t width) {
    const Tensor image({1, height, width, 3}, Dtype::f32, Device::cuda);
    const Tensor features({1, height / 2, width / 2, 64}, Dtype::f32, Device::cuda);
    const Tensor proposals({height / 16 * (width / 16), 4}, Dtype::f32, Device::cuda);
    return image.bytes() + features.bytes() + proposals.bytes();
  };
  const std::size_t largest = use(608, 1000);
  for (int i = 0; i < 1000; ++i) {
    use(320 + static_cast<std::int64_t>(random.below(289)), 480 + static_cast<std::int64_t>(random.below(521)));
  }
  // The allocator's promise: 5/4 of the greatest need, rounded up to size classes, and 64 MiB.
  const MemoryStats stats = memory.stats();
  CHECK(stats.in_use == 0);
  CHECK(stats.peak <= (largest + largest / 8) * 5 / 4 + (std::size_t{64} << 20));
  memory.release_cache();
  CHECK(memory.stats().cached == 0);
}

TEST_CASE("memory that is not there is refused with what was asked for and what is free") {
  const std::string text = error_of([] { allocator(Cuda{}).allocate(std::size_t{1} << 50); });
  CHECK_THAT(text, Catch::Matchers::Contains("1125899906842624 bytes asked for"));
  CHECK_THAT(text, Catch::Matchers::Contains(" free"));
  CHECK(full({3}, 1.0f, Device::cuda).to_vector<float>() == std::vector<float>(3, 1.0f));  // and all goes on
}

TEST_CASE("scratch memory is usable and goes back") {
  const std::size_t before = allocator(Cuda{}).stats().in_use;
  {
    const cuda::Scratch scratch(1000);
    CHECK(allocator(Cuda{}).stats().in_use >= before + 1000);
    kernels::fill_f32(Cuda{}, 250, 1.5f, scratch.data<float>());
    std::vector<float> values(250);
    kernels::copy_bytes(Cuda{}, values.data(), Device::cpu, scratch.data<float>(), Device::cuda, 1000);
    CHECK(values == std::vector<float>(250, 1.5f));
  }
  CHECK(allocator(Cuda{}).stats().in_use == before);
}

TEST_CASE("the device is usable and says what it is") {
  CHECK(cuda_status().usable);
  CHECK_FALSE(cuda_status().text.empty());
  CHECK(usable_device(Device::cuda) == Device::cuda);
  CHECK(usable_device(Device::cpu) == Device::cpu);
  CHECK_FALSE(cuda::properties().name.empty());
  CHECK(cuda::properties().compute_capability >= 75);
  CHECK(cuda::properties().shared_per_block_optin >= 48 * 1024);
  CHECK(cuda::blocks_for(0, 256) == 1);
  CHECK(cuda::blocks_for(257, 256) == 2);
  CHECK(cuda::blocks_for(std::int64_t{1} << 50, 256) == 2147483647u);
}
