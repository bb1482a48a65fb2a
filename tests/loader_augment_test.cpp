// Sizes that are drawn, mirror images and jitter.
#include "shrike/data/loader.hpp"

#include <cmath>
#include <set>

#include "loading.hpp"
#include "shrike/core/check.hpp"

using namespace loading;

TEST_CASE("training at several sizes draws one for each image and epoch, whatever the threads") {
  const VocFolder folder;
  const Dataset data = random_images(folder, 60, 20, 30);
  LoaderOptions options = small_options();
  options.max_size = 48;  // which none of them reaches
  options.jitter = {};
  options.threads = 0;
  const std::vector<int> sizes = {12, 16, 21};
  Loader one_size(data, options);
  options.min_sizes = sizes;
  Loader several(data, options);
  options.threads = 2;
  Loader threaded(data, options);
  const auto expected = all_batches(several, 1);
  CHECK(same(expected, all_batches(threaded, 1)));
  threaded.start(1, 7);
  CHECK(same(expected[7], *threaded.next()));
  const auto plain = all_batches(one_size, 1), other_epoch = all_batches(several, 2);
  CHECK(indices(expected) == indices(plain));
  std::vector<int> drawn(3), first(60), second(60);
  const auto size_of = [&](const BatchImage& item) {
    for (int k = 0; k < 3; ++k) {
      const ImageSize size = target_size(item.original_height, item.original_width, sizes[static_cast<std::size_t>(k)], 48);
      if (size == ImageSize{item.height, item.width}) return k;
    }
    FAIL("an image of " << item.width << "x" << item.height);
    return -1;
  };
  for (std::size_t b = 0; b < expected.size(); ++b) {
    for (std::size_t i = 0; i < expected[b].items.size(); ++i) {
      const BatchImage& item = expected[b].items[i];
      CHECK(item.flipped == plain[b].items[i].flipped);
      const int k = size_of(item);
      ++drawn[static_cast<std::size_t>(k)];
      first[static_cast<std::size_t>(item.index)] = k;
      const auto boxes = item.boxes.to_vector<float>(), others = plain[b].items[i].boxes.to_vector<float>();
      REQUIRE(boxes.size() == others.size());
      for (std::size_t c = 0; c < boxes.size(); ++c) {
        const auto scale = c % 2 == 0 ? item.scale_x / plain[b].items[i].scale_x : item.scale_y / plain[b].items[i].scale_y;
        CHECK(boxes[c] == Approx(others[c] * scale).margin(1e-3));
      }
    }
  }
  for (const Batch& batch : other_epoch) {
    for (const BatchImage& item : batch.items) second[static_cast<std::size_t>(item.index)] = size_of(item);
  }
  for (const int count : drawn) CHECK(count >= 8);  // of 60, 20 expected: 3.2 standard deviations
  CHECK(first != second);
  options.min_sizes = {16, 49};
  CHECK_THROWS_WITH(Loader(data, options), Catch::Contains("image size 49 to 48"));
}

TEST_CASE("mirrored images carry mirrored boxes") {
  const VocFolder folder;
  const Dataset data = random_images(folder, 6);
  LoaderOptions options = LoaderOptions::evaluation(16, 24, {});
  Loader plain(data, options);
  options.flip_probability = 1;
  Loader mirror(data, options);
  for (int i = 0; i < 6; ++i) {
    const Batch a = *plain.next(), b = *mirror.next();
    REQUIRE(b.items[0].flipped);
    const int height = a.items[0].height, width = a.items[0].width;
    std::size_t wrong = 0;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        for (int c = 0; c < 3; ++c) {
          wrong +=
              a.images.data<float>()[(y * width + x) * 3 + c] != b.images.data<float>()[(y * width + width - 1 - x) * 3 + c];
        }
      }
    }
    CHECK(wrong == 0);
    for (std::int64_t k = 0; k < a.items[0].boxes.size(0); ++k) {
      const float *p = a.items[0].boxes.data<float>() + 4 * k, *q = b.items[0].boxes.data<float>() + 4 * k;
      CHECK(q[0] == static_cast<float>(width) - p[2]);
      CHECK(q[1] == p[1]);
      CHECK(q[2] == static_cast<float>(width) - p[0]);
      CHECK(q[3] == p[3]);
      CHECK((q[0] >= 0 && q[2] <= static_cast<float>(width) && q[0] < q[2]));
    }
  }
}

TEST_CASE("augmentation depends on seed, epoch and image, not on the order or the batch") {
  const VocFolder folder;
  const Dataset data = random_images(folder, 30);
  LoaderOptions options = small_options();
  options.batch_size = 1;
  Loader shuffled(data, options);
  options.shuffle = false;
  Loader in_order(data, options);
  const std::vector<Batch> a = all_batches(shuffled, 2), b = all_batches(in_order, 2), c = all_batches(in_order, 3);
  std::size_t flipped = 0, changed = 0;
  for (const Batch& batch : a) {
    const auto index = static_cast<std::size_t>(batch.items[0].index);
    CHECK(same(batch, b[index]));
    flipped += batch.items[0].flipped;
    changed += !same(c[index], b[index]);
  }
  CHECK((flipped > 5 && flipped < 25));
  CHECK(changed > 20);
}
