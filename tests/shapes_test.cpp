#include "shrike/data/shapes.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include "catch.hpp"
#include "error_of.hpp"
#include "shrike/core/check.hpp"
#include "shrike/data/voc.hpp"
#include "shrike/io/file.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
namespace fs = std::filesystem;

namespace {

ShapesOptions few() {
  ShapesOptions options;
  options.train = 5;
  options.test = 3;
  options.width = 96;
  options.height = 64;
  return options;
}

// All files below a folder with their bytes.
std::map<std::string, std::string> contents(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder).string()] = read_file(entry.path().string(), 1 << 20);
  }
  return files;
}

}  // namespace

TEST_CASE("a picture is fixed by seed and number") {
  const ShapesOptions options = few();
  const ShapesPicture a = draw_shapes(options, 4), b = draw_shapes(options, 4);
  CHECK(a.image.rgb == b.image.rgb);
  REQUIRE(a.shapes.size() == b.shapes.size());
  for (std::size_t i = 0; i < a.shapes.size(); ++i) CHECK(a.shapes[i].object.box == b.shapes[i].object.box);
  CHECK(draw_shapes(options, 5).image.rgb != a.image.rgb);
  ShapesOptions other = options;
  other.seed = 2;
  CHECK(draw_shapes(other, 4).image.rgb != a.image.rgb);
}

TEST_CASE("boxes are whole pixels inside the image, of all classes") {
  const ShapesOptions options;
  std::map<int, int> classes;
  int objects = 0, difficult = 0, truncated = 0, occluded = 0;
  for (std::uint64_t index = 0; index < 60; ++index) {
    const ShapesPicture picture = draw_shapes(options, index);
    CHECK(picture.image.width == 256);
    CHECK(picture.image.height == 192);
    CHECK(picture.shapes.size() <= 6);
    for (const ShapesPicture::Shape& shape : picture.shapes) {
      const Box& box = shape.object.box;
      CHECK((0 <= box.x1 && box.x1 + 3 <= box.x2 && box.x2 <= 256));
      CHECK((0 <= box.y1 && box.y1 + 3 <= box.y2 && box.y2 <= 192));
      CHECK((box.x1 == std::floor(box.x1) && box.y2 == std::floor(box.y2)));
      if (shape.object.difficult) CHECK((shape.truncated || shape.occluded));
      ++classes[shape.object.label];
      ++objects;
      difficult += shape.object.difficult;
      truncated += shape.truncated;
      occluded += shape.occluded;
    }
  }
  CHECK(classes.size() == shape_classes().size());
  CHECK(classes.begin()->first == 1);
  CHECK(objects > 120);
  CHECK(truncated > 2);
  CHECK(occluded > 2);
  CHECK(difficult * 10 < objects);
}

TEST_CASE("the folder is a VOC data set") {
  const TemporaryFolder folder;
  const std::string root = folder / "shapes";
  const ShapesOptions options = few();
  CHECK(write_shapes(root, options));
  VocReport report;
  const Dataset train = read_voc(root, "trainval", shape_classes(), {}, &report);
  const Dataset test = read_voc(root, "test", shape_classes());
  REQUIRE(train.samples.size() == 5);
  REQUIRE(test.samples.size() == 3);
  CHECK(report.clipped == 0);
  for (std::uint64_t i = 0; i < 5; ++i) {
    const ShapesPicture picture = draw_shapes(options, i);
    const Sample& sample = train.samples[i];
    CHECK(sample.width == 96);
    REQUIRE(sample.objects.size() == picture.shapes.size());
    for (std::size_t k = 0; k < sample.objects.size(); ++k) {
      CHECK(sample.objects[k].box == picture.shapes[k].object.box);
      CHECK(sample.objects[k].label == picture.shapes[k].object.label);
      CHECK(sample.objects[k].difficult == picture.shapes[k].object.difficult);
    }
    const Image stored = read_image(sample.image_path);
    double error = 0;
    for (std::size_t k = 0; k < stored.rgb.size(); ++k) error += std::abs(int(stored.rgb[k]) - int(picture.image.rgb[k]));
    CHECK(error / static_cast<double>(stored.rgb.size()) < 12);
  }
}

TEST_CASE("a finished folder stays, an unfinished or different one is made anew") {
  const TemporaryFolder folder;
  const std::string root = folder / "shapes";
  const ShapesOptions options = few();
  CHECK(write_shapes(root, options));
  const auto files = contents(root);
  CHECK(files.size() == 5 * 2 + 3 * 2 + 3);
  CHECK_FALSE(write_shapes(root, options));
  CHECK(contents(root) == files);

  // Interrupted: the last file is not there yet.
  std::ofstream(root + "/shapes.txt") << "unfinished\n";
  fs::remove(root + "/JPEGImages/000003.jpg");
  std::ofstream(root + "/JPEGImages/000004.jpg") << "half";
  CHECK(write_shapes(root, options));
  CHECK(contents(root) == files);

  // The test set does not depend on the size of the training set.
  ShapesOptions larger = options;
  larger.train = 7;
  CHECK(write_shapes(root, larger));
  const auto more = contents(root);
  CHECK(more.size() == 7 * 2 + 3 * 2 + 3);
  CHECK(more.at("JPEGImages/000008.jpg") == files.at("JPEGImages/000006.jpg"));
  CHECK(write_shapes(root, options));
  CHECK(contents(root) == files);
}

TEST_CASE("other people's folders are left alone, and odd options refused") {
  const TemporaryFolder folder;
  std::ofstream(folder / "precious.txt") << "mine";
  CHECK(error_of([&] { write_shapes(folder.path().string(), few()); }).find("not empty") != std::string::npos);
  CHECK(contents(folder.path().string()).size() == 1);
  CHECK(error_of([&] { write_shapes(folder / "precious.txt", few()); }).find("precious.txt") != std::string::npos);
  CHECK(error_of([&] { write_shapes(folder / "precious.txt/below", few()); }).find("precious.txt") != std::string::npos);
  fs::create_directory(folder / "empty");
  CHECK(write_shapes(folder / "empty", few()));

  const auto refused = [&](auto change) {
    ShapesOptions options = few();
    change(options);
    return error_of([&] { write_shapes(folder / "new", options); }) != "no error" && !fs::exists(folder / "new");
  };
  CHECK(refused([](ShapesOptions& o) { o.train = 0; }));
  CHECK(refused([](ShapesOptions& o) { o.test = -1; }));
  CHECK(refused([](ShapesOptions& o) { o.train = 1'000'000; }));
  CHECK(refused([](ShapesOptions& o) { o.width = 31; }));
  CHECK(refused([](ShapesOptions& o) { o.height = 5000; }));
  CHECK(refused([](ShapesOptions& o) { o.max_objects = 0; }));
}
