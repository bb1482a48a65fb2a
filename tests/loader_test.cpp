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

#include "catch.hpp"
#include "error_of.hpp"
#include "shrike/core/check.hpp"
#include "shrike/core/random.hpp"
#include "shrike/data/split.hpp"
#include "shrike/data/voc.hpp"
#include "voc_folder.hpp"

using namespace shrike;
namespace fs = std::filesystem;

namespace {

// Images of random noise and odd sizes, with random objects.
Dataset random_images(const VocFolder& folder, int n, int smallest = 5, int largest = 40) {
  Random random(7, RandomStream::test);
  Dataset data{folder.root(), {"cat", "dog"}, {}};
  fs::create_directories(folder / "JPEGImages");
  for (int i = 0; i < n; ++i) {
    const auto side = [&] {
      return smallest + static_cast<int>(random.below(static_cast<std::uint32_t>(largest - smallest + 1)));
    };
    Image image = make_image(side(), side());
    for (std::uint8_t& value : image.rgb) value = static_cast<std::uint8_t>(random.below(256));
    Sample sample{std::to_string(i), folder / ("JPEGImages/" + std::to_string(i) + ".png"), image.height, image.width, {}};
    write_image(sample.image_path, image);
    for (std::uint32_t k = random.below(4); k > 0; --k) {
      Object object;
      object.box.x1 = random.uniform(0, static_cast<float>(image.width) - 1);
      object.box.y1 = random.uniform(0, static_cast<float>(image.height) - 1);
      object.box.x2 = random.uniform(object.box.x1 + 0.5f, static_cast<float>(image.width));
      object.box.y2 = random.uniform(object.box.y1 + 0.5f, static_cast<float>(image.height));
      object.label = 1 + static_cast<std::int32_t>(random.below(2));
      sample.objects.push_back(object);
    }
    data.samples.push_back(std::move(sample));
  }
  return data;
}

LoaderOptions small_options() {
  LoaderOptions options;
  options.min_size = 16;
  options.max_size = 24;
  options.jitter = Jitter::ssd();
  options.batch_size = 3;
  options.seed = 5;
  return options;
}

std::vector<Batch> all_batches(Loader& loader, std::int64_t epoch, std::int64_t first = 0) {
  std::vector<Batch> batches;
  loader.start(epoch, first);
  while (auto batch = loader.next()) batches.push_back(std::move(*batch));
  CHECK_FALSE(loader.next());
  return batches;
}

bool same(const Batch& a, const Batch& b) {
  if (!(a.images.shape() == b.images.shape()) || a.items.size() != b.items.size()) return false;
  if (a.images.to_vector<float>() != b.images.to_vector<float>()) return false;
  for (std::size_t i = 0; i < a.items.size(); ++i) {
    const BatchImage &x = a.items[i], &y = b.items[i];
    if (x.id != y.id || x.index != y.index || x.flipped != y.flipped || x.height != y.height || x.width != y.width)
      return false;
    if (x.boxes.to_vector<float>() != y.boxes.to_vector<float>()) return false;
    if (x.labels.to_vector<std::int32_t>() != y.labels.to_vector<std::int32_t>()) return false;
  }
  return true;
}

bool same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Batch& x, const Batch& y) { return same(x, y); });
}

std::vector<std::int64_t> indices(const std::vector<Batch>& batches) {
  std::vector<std::int64_t> result;
  for (const Batch& batch : batches) {
    for (const BatchImage& item : batch.items) result.push_back(item.index);
  }
  return result;
}

}  // namespace

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
