// Copies to the device beside what it computes: on the host they are made when somebody waits for them, and not before.
#include "shrike/core/staging.hpp"

#include <algorithm>

#include "cuda/compare.hpp"
#include "error_of.hpp"
#include "kernels/cuda.hpp"
#include "reference.hpp"
#include "shrike/core/cuda.hpp"
#include "shrike/data/loader.hpp"
#include "shrike/data/shapes.hpp"
#include "shrike/data/voc.hpp"
#include "src/cuda/graph.hpp"
#include "src/cuda/staging.hpp"
#include "temporary_folder.hpp"

using namespace shrike;

namespace {

Tensor staged(const Tensor& values) {
  const Tensor result = staging_tensor(values.shape(), values.dtype(), Device::cuda);
  result.copy_from(values);
  return result;
}

}  // namespace

TEST_CASE("uploads bring every byte, from staging memory and from elsewhere, and none before somebody waits") {
  Random random(1, RandomStream::test);
  const Tensor a = reference::random_tensor({3, 101, 7}, random), b = reference::random_tensor({4097}, random);
  const Tensor labels = tensor<std::int32_t>({5}, {1, 2, 3, 4, 5}), none({0, 4});
  Upload upload(Device::cuda);
  const Tensor x = upload.add(staged(a)), y = upload.add(b), z = upload.add(labels), empty = upload.add(none);
  for (const Tensor& there : {x, y, z, empty}) CHECK(there.device() == Device::cuda);
  if (SHRIKE_CUDA_HOST) CHECK_FALSE(same_bits(x, a));
  upload.finish();
  CHECK(same_bits(x, a));
  CHECK(same_bits(y, b));
  CHECK(same_bits(z, labels));
  CHECK(empty.shape() == Shape{0, 4});
  upload.finish();  // again is nothing

  const Tensor c = staged(b);
  CHECK(same_bits(c.to(Device::cuda), b));  // an ordinary copy
  Upload to_cpu;
  CHECK(to_cpu.add(a).same(a));
  Upload wrong(Device::cuda);
  CHECK(error_of([&] { wrong.add(x); }).find("already") != std::string::npos);
}

TEST_CASE("staging memory is handed out again when the copies from it are complete, and not before") {
  const Tensor ones = full({1000}, 1.0f), twos = full({1000}, 2.0f);
  const void* first = nullptr;
  Upload upload(Device::cuda);
  Tensor there;
  {
    const Tensor from = staged(ones);
    first = from.raw();
    there = upload.add(from);
  }
  if (SHRIKE_CUDA_HOST) {
    CHECK(cuda::staging().waiting() == 1);
    const Tensor other = staged(twos);  // would overwrite it
    CHECK(other.raw() != first);
  }
  upload.finish();
  CHECK(same_bits(there, ones));
  cuda::synchronize();
  Tensors again;
  for (int i = 0; i < 4; ++i) again.push_back(staged(twos));
  CHECK(std::any_of(again.begin(), again.end(), [&](const Tensor& block) { return block.raw() == first; }));
  CHECK(cuda::staging().waiting() == 0);
  CHECK(same_bits(there, ones));
}

TEST_CASE("an upload that nobody waits for leaves nothing behind") {
  const std::size_t before = allocator(Cuda{}).stats().in_use;
  const Tensor ones = full({1000}, 1.0f);
  {
    Upload upload(Device::cuda);
    upload.add(staged(ones));
    upload = Upload(Device::cuda);  // as when a loader starts anew
    upload.add(staged(ones));
  }
  CHECK(allocator(Cuda{}).stats().in_use == before);
  cuda::synchronize();
  staged(ones);
  CHECK(cuda::staging().waiting() == 0);
  const std::string text = error_of([&] {
    cuda::Graph graph([&] {
      Upload upload(Device::cuda);
      upload.add(staged(ones));
    });
  });
  CHECK_THAT(text, Catch::Matchers::Contains("while a graph is recorded"));
}

TEST_CASE("a thousand image sizes do not grow the staging memory") {
  const Tensor largest = staging_tensor({608, 1000, 3}, Dtype::f32, Device::cuda);
  const std::size_t most = largest.bytes();
  Random random(2, RandomStream::test);
  Upload last(Device::cuda);
  for (int i = 0; i < 1000; ++i) {
    const auto height = static_cast<std::int64_t>(random.below(289)), width = static_cast<std::int64_t>(random.below(521));
    const Shape shape{320 + height, 480 + width, 3};
    const Tensor from = staging_tensor(shape, Dtype::f32, Device::cuda);
    from.data<float>()[0] = static_cast<float>(i);
    Upload upload(Device::cuda);
    const Tensor there = upload.add(from);
    last.finish();
    last = std::move(upload);
  }
  last.finish();
  // Three blocks at any time, the allocator's 5/4 and size classes, and its 64 MiB.
  CHECK(cuda::pinned_memory().stats().peak <= 3 * (most + most / 4) * 5 / 4 + (std::size_t{64} << 20));
}

TEST_CASE("a loader's batches are on the device when they are handed out, the same as on the CPU") {
  const TemporaryFolder folder;
  ShapesOptions shapes;
  shapes.train = 9;
  shapes.test = 1;
  shapes.width = 96;
  shapes.height = 64;
  write_shapes(folder / "data", shapes);
  const Dataset data = read_voc(folder / "data", "trainval");
  LoaderOptions options;
  options.min_size = 48;
  options.max_size = 80;
  options.batch_size = 2;
  options.seed = 4;
  for (const int threads : {0, 1, 3}) {
    options.threads = threads;
    options.device = Device::cpu;
    Loader expected(data, options);
    options.device = Device::cuda;
    Loader loader(data, options);
    for (const std::int64_t epoch : {0, 1}) {
      loader.start(1 - epoch);
      loader.next();  // and is dropped, with those that wait
      expected.start(epoch);
      loader.start(epoch);
      int batches = 0;
      while (const auto batch = expected.next()) {
        const auto got = loader.next();
        REQUIRE(got);
        CHECK(got->images.device() == Device::cuda);
        CHECK(same_bits(got->images, batch->images));
        REQUIRE(got->items.size() == batch->items.size());
        for (std::size_t i = 0; i < got->items.size(); ++i) {
          CHECK(got->items[i].id == batch->items[i].id);
          CHECK(got->items[i].labels.device() == Device::cuda);
          CHECK(same_bits(got->items[i].boxes, batch->items[i].boxes));
          CHECK(same_bits(got->items[i].labels, batch->items[i].labels));
        }
        ++batches;
      }
      CHECK(batches == 5);
      CHECK_FALSE(loader.next());
    }
  }
}
