#include "shrike/data/loader.hpp"

#if defined(__linux__)
#include <sched.h>
#include <sys/resource.h>
#endif

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <set>

#include "error_of.hpp"
#include "loading.hpp"
#include "shrike/core/check.hpp"
#include "shrike/core/random.hpp"
#include "shrike/data/split.hpp"
#include "shrike/data/voc.hpp"

using namespace loading;

TEST_CASE("batches hold resized, normalised, padded images and scaled boxes") {
  const VocFolder folder;
  const Dataset data = random_images(folder, 11);
  LoaderOptions options = LoaderOptions::evaluation(16, 24, Normalization::caffe());
  options.batch_size = 4;
  options.size_divisor = 5;
  Loader loader(data, options);
  CHECK(loader.batches() == 3);
  const std::vector<Batch> batches = all_batches(loader, 0);
  REQUIRE(batches.size() == 3);
  CHECK(batches[2].items.size() == 3);
  std::size_t index = 0;
  for (const Batch& batch : batches) {
    const auto height = batch.images.size(1), width = batch.images.size(2);
    CHECK(height % 5 == 0);
    CHECK(width % 5 == 0);
    int tallest = 0, widest = 0;
    for (std::size_t i = 0; i < batch.items.size(); ++i, ++index) {
      const BatchImage& item = batch.items[i];
      const Sample& sample = data.samples[index];
      CHECK(item.id == sample.id);
      CHECK(item.index == static_cast<std::int64_t>(index));
      CHECK_FALSE(item.flipped);
      CHECK(ImageSize{item.height, item.width} == target_size(sample.height, sample.width, 16, 24));
      CHECK(item.original_height == sample.height);
      CHECK(item.original_width == sample.width);
      tallest = std::max(tallest, item.height);
      widest = std::max(widest, item.width);

      std::vector<float> expected(static_cast<std::size_t>(item.height) * item.width * 3);
      resize_normalize(read_image(sample.image_path), item.height, item.width, options.normalization, false, expected.data(),
                       item.width * 3);
      const float* pixels = batch.images.data<float>() + static_cast<std::int64_t>(i) * height * width * 3;
      std::size_t wrong = 0;
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width * 3; ++x) {
          const bool valid = y < item.height && x < item.width * 3;
          const float want = valid ? expected[static_cast<std::size_t>(y) * item.width * 3 + x] : 0.0f;
          wrong += pixels[y * width * 3 + x] != want;
        }
      }
      CHECK(wrong == 0);

      REQUIRE(item.boxes.shape() == Shape{static_cast<std::int64_t>(sample.objects.size()), 4});
      REQUIRE(item.labels.shape() == Shape{static_cast<std::int64_t>(sample.objects.size())});
      for (std::size_t k = 0; k < sample.objects.size(); ++k) {
        const float* box = item.boxes.data<float>() + 4 * k;
        const Box& original = sample.objects[k].box;
        CHECK(box[0] == Approx(double(original.x1) * item.width / sample.width));
        CHECK(box[1] == Approx(double(original.y1) * item.height / sample.height));
        CHECK(box[2] == Approx(double(original.x2) * item.width / sample.width));
        CHECK(box[3] == Approx(double(original.y2) * item.height / sample.height));
        CHECK(box[2] / item.scale_x == Approx(original.x2));
        CHECK(item.labels.data<std::int32_t>()[k] == sample.objects[k].label);
      }
    }
    CHECK(height == (tallest + 4) / 5 * 5);
    CHECK(width == (widest + 4) / 5 * 5);
  }
}

TEST_CASE("the same batches come from any number of threads, and from any place on") {
  const VocFolder folder;
  const Dataset data = random_images(folder, 40);
  LoaderOptions options = small_options();
  options.threads = 0;
  Loader reference(data, options);
  const std::vector<Batch> first = all_batches(reference, 3);
  REQUIRE(first.size() == 14);
  std::vector<std::int64_t> order = indices(first);
  std::set<std::int64_t> each(order.begin(), order.end());
  CHECK(each.size() == 40);
  CHECK_FALSE(std::is_sorted(order.begin(), order.end()));
  for (const int threads : {1, 2, 5}) {
    for (const int prefetch : {1, 4}) {
      options.threads = threads;
      options.prefetch = prefetch;
      Loader loader(data, options);
      CHECK(same(all_batches(loader, 3), first));
      const std::vector<Batch> rest = all_batches(loader, 3, 9);
      CHECK(same(rest, std::vector<Batch>(first.begin() + 9, first.end())));
      CHECK(all_batches(loader, 3, 14).empty());
      CHECK_FALSE(same(all_batches(loader, 4), first));
      // Leaving an epoch in the middle changes nothing later.
      loader.start(1);
      loader.next();
      CHECK(same(all_batches(loader, 3), first));
    }
  }
  options.seed = 6;
  Loader other(data, options);
  CHECK(indices(all_batches(other, 3)) != order);
}

TEST_CASE("difficult objects and crowds are no training targets") {
  const VocFolder folder;
  Dataset data = random_images(folder, 1, 20, 20);
  data.samples[0].objects = {{{1, 1, 5, 5}, 1, true, false}, {{2, 2, 6, 6}, 2, false, false}, {{2, 2, 6, 6}, 2, false, true}};
  LoaderOptions options = small_options();
  Loader training(data, options);
  CHECK(training.next()->items[0].labels.to_vector<std::int32_t>() == std::vector<std::int32_t>{2});
  options.keep_difficult = true;
  Loader all(data, options);
  CHECK(all.next()->items[0].labels.to_vector<std::int32_t>() == std::vector<std::int32_t>{1, 2});
  data.samples[0].objects.clear();
  Loader none(data, options);
  CHECK(none.next()->items[0].boxes.shape() == Shape{0, 4});
}

TEST_CASE("an image of 1x1 and one of 1x5000 become batches") {
  const VocFolder folder;
  folder.add_image("a.png", 1, 1);
  folder.add_image("b.png", 5000, 1);
  Dataset data{folder.root(), {"cat"}, {}};
  data.samples.push_back({"a", folder / "JPEGImages/a.png", 1, 1, {{{0, 0, 1, 1}, 1, false, false}}});
  data.samples.push_back({"b", folder / "JPEGImages/b.png", 1, 5000, {{{10, 0, 20, 1}, 1, false, false}}});
  Loader loader(data, LoaderOptions::evaluation(30, 50, {}));
  CHECK(loader.next()->images.shape() == Shape{1, 30, 30, 3});
  const Batch wide = *loader.next();
  const ImageSize size = target_size(1, 5000, 30, 50);
  CHECK(wide.images.shape() == Shape{1, size.height, size.width, 3});
  CHECK(wide.items[0].boxes.data<float>()[2] == Approx(20.0 * size.width / 5000));
}

TEST_CASE("a bad image is an error at its batch, and the next call goes on") {
  const VocFolder folder;
  Dataset data = random_images(folder, 6, 8, 8);
  write_text(data.samples[1].image_path, "not an image");
  fs::remove(data.samples[3].image_path);
  folder.add_image("4.png", 9, 7);
  const std::string whole = encode_jpeg(make_image(8, 8));
  write_text(data.samples[5].image_path, whole.substr(0, whole.size() / 2));
  for (const int threads : {0, 2}) {
    LoaderOptions options = LoaderOptions::evaluation(16, 24, {});
    options.threads = threads;
    Loader loader(data, options);
    CHECK(loader.next()->items[0].id == "0");
    CHECK(error_of([&] { loader.next(); }).find("1.png") != std::string::npos);
    CHECK(loader.next()->items[0].id == "2");
    CHECK(error_of([&] { loader.next(); }).find("3.png") != std::string::npos);
    const std::string size = error_of([&] { loader.next(); });
    CHECK(size.find("4.png: the image is 9x7 pixels, but the data set says 8x8") != std::string::npos);
    CHECK(error_of([&] { loader.next(); }).find("5.png") != std::string::npos);
    CHECK_FALSE(loader.next());
  }
}

TEST_CASE("options that make no sense are refused") {
  const VocFolder folder;
  const Dataset data = random_images(folder, 2);
  CHECK_THROWS_AS(Loader(Dataset{}, small_options()), Error);
  const auto refused = [&](auto change) {
    LoaderOptions options = small_options();
    change(options);
    return error_of([&] { Loader(data, options); }) != "no error";
  };
  CHECK(refused([](LoaderOptions& o) { o.min_size = 0; }));
  CHECK(refused([](LoaderOptions& o) { o.max_size = 15; }));
  CHECK(refused([](LoaderOptions& o) { o.max_size = 100'000; }));
  CHECK(refused([](LoaderOptions& o) { o.flip_probability = 1.5; }));
  CHECK(refused([](LoaderOptions& o) { o.flip_probability = std::nan(""); }));
  CHECK(refused([](LoaderOptions& o) { o.batch_size = 0; }));
  CHECK(refused([](LoaderOptions& o) { o.size_divisor = 0; }));
  CHECK(refused([](LoaderOptions& o) { o.threads = -1; }));
  CHECK(refused([](LoaderOptions& o) { o.prefetch = 0; }));
  Loader loader(data, small_options());
  CHECK_THROWS_AS(loader.start(-1), Error);
  CHECK_THROWS_AS(loader.start(0, 2), Error);
  CHECK_THROWS_AS(loader.start(1 << 16), Error);
}

TEST_CASE("a loader ends soon, wherever it is") {
  const VocFolder folder;
  const Dataset data = random_images(folder, 20, 200, 300);
  LoaderOptions options = small_options();
  options.batch_size = 20;
  for (int i = 0; i < 20; ++i) {
    Loader loader(data, options);
    if (i % 2) loader.start(i);
    if (i % 4 == 3) loader.next();
  }
  Loader loader(data, options);
  for (int i = 0; i < 50; ++i) loader.start(i % 3, i % 2);
  CHECK(indices(all_batches(loader, 0)).size() == 20);
}

TEST_CASE("BCCD: images a second") {
  const auto root = real_data("bccd");
  if (!root) {
    WARN("skipped: no bccd in SHRIKE_DATA or shared/data");
    return;
  }
  VocOptions voc;
  voc.drop_bad_boxes = true;
  LoaderOptions options;
  options.min_size = 300;
  options.max_size = 500;
  Loader loader(read_voc(*root, "test", {}, voc), options);
  const auto start = std::chrono::steady_clock::now();
  const auto batches = all_batches(loader, 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  CHECK(batches.size() == 72);
  for (const Batch& batch : batches) CHECK(batch.images.shape() == Shape{1, 300, 400, 3});
  std::cout << "BCCD at 300x400: " << 72 / seconds << " images/s on two threads\n";
}

#if defined(__linux__)
TEST_CASE("the loader's threads give way to computing") {
  const VocFolder folder;
  const int own = getpriority(PRIO_PROCESS, 0);
  Loader loader(random_images(folder, 9), small_options());
  loader.start(0);
  // The nice value of each thread of this process.
  const auto lower = [&] {
    int count = 0;
    for (const auto& task : fs::directory_iterator("/proc/self/task")) {
      const int thread = std::stoi(task.path().filename().string());
      count += getpriority(PRIO_PROCESS, static_cast<id_t>(thread)) == std::min(own + 5, 19) &&
               sched_getscheduler(thread) == SCHED_BATCH;
    }
    return count;
  };
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (lower() < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  CHECK(lower() == 2);
  CHECK(getpriority(PRIO_PROCESS, 0) == own);
  CHECK(sched_getscheduler(0) == SCHED_OTHER);
}
#endif
