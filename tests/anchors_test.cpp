#include "shrike/detection/anchors.hpp"

#include "catch.hpp"
#include "golden.hpp"

using namespace shrike;

TEST_CASE("anchors are torchvision's, in its order") {
  const Golden golden("detection_golden.txt");
  int cases = 0;
  for (; golden.has("anchors" + std::to_string(cases) + ".boxes"); ++cases) {
    const std::string name = "anchors" + std::to_string(cases);
    const AnchorOptions options{golden.values<float>(name + ".sizes"), golden.values<float>(name + ".ratios")};
    const auto grid = golden.values<std::int64_t>(name + ".grid");
    const Tensor boxes = anchors(options, grid[0], grid[1], grid[2], grid[3]);
    REQUIRE(boxes.shape() == Shape{grid[2] * grid[3] * options.per_cell(), 4});
    REQUIRE(boxes.to_vector<float>() == golden.values<float>(name + ".boxes"));
  }
  CHECK(cases == 4);
}

TEST_CASE("the default anchors have the paper's sizes") {
  const AnchorOptions options;
  REQUIRE(options.per_cell() == 9);
  const auto base = base_anchors(options);
  // base 16 with scales 8, 16, 32; the middle three are squares
  for (std::size_t i = 0; i < 3; ++i) {
    const float side = 16.0f * static_cast<float>(8 << i);
    CHECK(base[3 + i] == Box{-side / 2, -side / 2, side / 2, side / 2});
    CHECK(base[i].width() / base[i].height() == Approx(2).epsilon(0.02));
    CHECK(base[6 + i].height() / base[6 + i].width() == Approx(2).epsilon(0.02));
    for (const std::size_t k : {i, 6 + i}) CHECK(base[k].area() == Approx(side * side).epsilon(0.02));
  }
  AnchorOptions centred;
  centred.offset = 0.5f;
  const auto values = anchors(centred, 16, 32, 1, 1).to_vector<float>();
  CHECK((values[0] + values[2]) / 2 == 16);
  CHECK((values[1] + values[3]) / 2 == 8);
}

TEST_CASE("rounded at 16 pixels, anchors are py-faster-rcnn's") {
  // lib/rpn/generate_anchors.py lists them, by MATLAB's 1-based inclusive corners.
  const float listed[9][4] = {{-83, -39, 100, 56}, {-175, -87, 192, 104},  {-359, -183, 376, 200},
                              {-55, -55, 72, 72},  {-119, -119, 136, 136}, {-247, -247, 264, 264},
                              {-35, -79, 52, 96},  {-79, -167, 96, 184},   {-167, -343, 184, 360}};
  AnchorOptions options;
  options.rounding = AnchorRounding::base;
  options.offset = 0.5f;
  const auto values = anchors(options, 16, 16, 1, 1).to_vector<float>();
  REQUIRE(values.size() == 36);
  for (std::size_t i = 0; i < 9; ++i) {
    INFO("anchor " << i);
    CHECK(values[4 * i] == listed[i][0] - 1);
    CHECK(values[4 * i + 1] == listed[i][1] - 1);
    CHECK(values[4 * i + 2] == listed[i][2]);
    CHECK(values[4 * i + 3] == listed[i][3]);
  }
}

TEST_CASE("without rounding, anchors have their area and ratio") {
  AnchorOptions options{{24, 100}, {0.5f, 1, 3}};
  options.rounding = AnchorRounding::none;
  const auto base = base_anchors(options);
  REQUIRE(base.size() == 6);
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(base[i].area() == Approx(options.sizes[i % 2] * options.sizes[i % 2]).epsilon(1e-6));
    CHECK(base[i].height() / base[i].width() == Approx(options.ratios[i / 2]).epsilon(1e-6));
  }
}

TEST_CASE("an empty map has no anchors, and senseless options are refused") {
  using Catch::Matchers::Contains;
  CHECK(anchors({}, 16, 16, 0, 7).shape() == Shape{0, 4});
  CHECK_THROWS_WITH(anchors({{}, {1.0f}}, 16, 16, 1, 1), Contains("0 sizes"));
  CHECK_THROWS_WITH(anchors({{0.0f}, {1.0f}}, 16, 16, 1, 1), Contains("size 0"));
  CHECK_THROWS_WITH(anchors({{8.0f}, {-1.0f}}, 16, 16, 1, 1), Contains("ratio -1"));
  CHECK_THROWS_WITH(anchors({}, 0, 16, 1, 1), Contains("strides 0"));
}
