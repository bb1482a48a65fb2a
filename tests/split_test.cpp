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
