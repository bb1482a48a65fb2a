// What tests of the loader share.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "catch.hpp"
#include "shrike/core/random.hpp"
#include "shrike/data/loader.hpp"
#include "voc_folder.hpp"

namespace loading {

using namespace shrike;
namespace fs = std::filesystem;

// Images of random noise and odd sizes, with random objects.
inline Dataset random_images(const VocFolder& folder, int n, int smallest = 5, int largest = 40) {
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

inline LoaderOptions small_options() {
  LoaderOptions options;
  options.min_size = 16;
  options.max_size = 24;
  options.jitter = Jitter::ssd();
  options.batch_size = 3;
  options.seed = 5;
  return options;
}

inline std::vector<Batch> all_batches(Loader& loader, std::int64_t epoch, std::int64_t first = 0) {
  std::vector<Batch> batches;
  loader.start(epoch, first);
  while (auto batch = loader.next()) batches.push_back(std::move(*batch));
  CHECK_FALSE(loader.next());
  return batches;
}

inline bool same(const Batch& a, const Batch& b) {
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

inline bool same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Batch& x, const Batch& y) { return same(x, y); });
}

inline std::vector<std::int64_t> indices(const std::vector<Batch>& batches) {
  std::vector<std::int64_t> result;
  for (const Batch& batch : batches) {
    for (const BatchImage& item : batch.items) result.push_back(item.index);
  }
  return result;
}

}  // namespace loading
