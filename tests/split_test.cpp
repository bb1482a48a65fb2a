#include "shrike/data/split.hpp"

#include <algorithm>
#include <set>

#include "catch.hpp"
#include "shrike/core/check.hpp"

using namespace shrike;

namespace {

Dataset numbered(int n) {
  Dataset data{"root", {"cat"}, {}};
  for (int i = 0; i < n; ++i) data.samples.push_back({std::to_string(i), "", i + 1, 1, {}});
  return data;
}

std::vector<std::string> ids(const Dataset& data) {
  std::vector<std::string> result;
  for (const Sample& sample : data.samples) result.push_back(sample.id);
  return result;
}

}  // namespace

TEST_CASE("a ratio is whole numbers above 0") {
  CHECK(parse_ratio("9:1") == std::vector<int>{9, 1});
  CHECK(parse_ratio("1:1:2") == std::vector<int>{1, 1, 2});
  for (const char* bad : {"", "9", ":", "9:", ":1", "9:0", "-9:1", "9:1.5", "a:b", "9 : 1", "9:99999999999", "9:2000000"}) {
    INFO(bad);
    CHECK_THROWS_AS(parse_ratio(bad), Error);
  }
}

TEST_CASE("every image is in one part, in proportion") {
  const Dataset data = numbered(9963);
  const std::vector<Dataset> parts = split_dataset(data, {9, 1}, 3);
  REQUIRE(parts.size() == 2);
  CHECK(parts[0].samples.size() == 8967);
  CHECK(parts[1].samples.size() == 996);
  CHECK(parts[1].classes == data.classes);
  std::set<std::string> all;
  for (const Dataset& part : parts) {
    for (const Sample& sample : part.samples) {
      CHECK(all.insert(sample.id).second);
      CHECK(sample.height == std::stoi(sample.id) + 1);
    }
    CHECK(std::is_sorted(part.samples.begin(), part.samples.end(), [](auto& a, auto& b) { return a.height < b.height; }));
  }
  CHECK(all.size() == 9963);
  CHECK(split_dataset(numbered(10), {1, 1, 2}, 0)[2].samples.size() == 5);
}

TEST_CASE("the parts depend on the seed and the ids alone") {
  Dataset data = numbered(100);
  const auto first = split_dataset(data, {9, 1}, 3);
  CHECK(ids(first[1]) == ids(split_dataset(data, {9, 1}, 3)[1]));
  CHECK(ids(first[1]) != ids(split_dataset(data, {9, 1}, 4)[1]));
  std::reverse(data.samples.begin(), data.samples.end());
  auto reversed = ids(split_dataset(data, {9, 1}, 3)[1]);
  std::reverse(reversed.begin(), reversed.end());
  CHECK(ids(first[1]) == reversed);
}

TEST_CASE("a part without images is refused") {
  CHECK_THROWS_AS(split_dataset(numbered(3), {9, 1}, 0), Error);
  CHECK_THROWS_AS(split_dataset(numbered(0), {1, 1}, 0), Error);
  CHECK_THROWS_AS(split_dataset(numbered(3), {1, 0}, 0), Error);
}

namespace {

// 100 images: all with class 1, every fifth with 2, every tenth with 3 beside it, two with 4; ten without objects.
Dataset of_classes() {
  Dataset data = numbered(110);
  for (int i = 0; i < 100; ++i) {
    auto& objects = data.samples[static_cast<std::size_t>(i)].objects;
    objects.push_back({{0, 0, 1, 1}, 1, false, false});
    objects.push_back({{0, 0, 2, 2}, 1, false, false});
    if (i % 5 == 0) objects.push_back({{0, 0, 1, 1}, 2, false, false});
    if (i % 10 == 0) objects.push_back({{0, 0, 1, 1}, 3, false, false});
    if (i == 33 || i == 77) objects.push_back({{0, 0, 1, 1}, 4, false, false});
  }
  return data;
}

int images_with(const Dataset& data, int label) {
  return static_cast<int>(std::count_if(data.samples.begin(), data.samples.end(), [&](const Sample& sample) {
    return std::any_of(sample.objects.begin(), sample.objects.end(), [&](const Object& o) { return o.label == label; });
  }));
}

}  // namespace

TEST_CASE("a fraction is held out with each class in proportion, whatever the seed") {
  const Dataset data = of_classes();
  std::set<std::vector<std::string>> different;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const auto [rest, held_out] = hold_out(data, 0.2, seed);
    CHECK(held_out.samples.size() == 22);
    CHECK(images_with(held_out, 1) == 20);
    CHECK(images_with(held_out, 2) == 4);
    CHECK(images_with(held_out, 3) == 2);
    CHECK(images_with(held_out, 4) <= 1);
    CHECK(held_out.classes == data.classes);
    auto all = ids(rest);
    const auto others = ids(held_out);
    all.insert(all.end(), others.begin(), others.end());
    CHECK(std::set<std::string>(all.begin(), all.end()).size() == 110);
    CHECK(count_shared(held_out, rest) == 0);
    different.insert(others);
  }
  CHECK(different.size() == 8);
}

TEST_CASE("what is held out depends on the seed and the samples alone") {
  Dataset data = of_classes();
  const auto first = ids(hold_out(data, 0.1, 5).second);
  CHECK(first.size() == 11);
  std::reverse(data.samples.begin(), data.samples.end());
  auto reversed = ids(hold_out(data, 0.1, 5).second);
  std::reverse(reversed.begin(), reversed.end());
  CHECK(reversed == first);
  CHECK(hold_out(numbered(2), 0.01, 1).second.samples.size() == 1);
  CHECK(hold_out(numbered(2), 0.99, 1).first.samples.size() == 1);
  CHECK_THROWS_AS(hold_out(numbered(1), 0.5, 1), Error);
  for (const double bad : {0.0, 1.0, -0.5, 1.5}) CHECK_THROWS_AS(hold_out(data, bad, 1), Error);
}

TEST_CASE("images are the same when id, size and boxes are") {
  const Dataset data = of_classes();
  CHECK(count_shared(data, data) == 110);
  CHECK(count_shared(data, numbered(0)) == 0);
  Dataset other = data;
  other.samples[0].objects[1].box.x2 = 3;
  other.samples[1].objects.pop_back();
  other.samples[2].height += 1;
  other.samples[3].id = "x";
  other.samples[4].objects[0].label = 2;  // another list of classes
  CHECK(count_shared(other, data) == 106);
  CHECK(count_shared(numbered(110), data) == 10);  // ten have no boxes
}
