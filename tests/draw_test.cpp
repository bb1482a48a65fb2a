// Drawing: every glyph has ink of its own, labels stay in the picture and apart, odd boxes do no harm.
#include "shrike/data/draw.hpp"

#include <cmath>
#include <limits>
#include <set>

#include "catch.hpp"

using namespace shrike;

namespace {

Image canvas(int height, int width, std::uint8_t value = 0) {
  Image image = make_image(height, width);
  std::fill(image.rgb.begin(), image.rgb.end(), value);
  return image;
}

std::size_t painted(const Image& image, std::uint8_t background = 0) {
  std::size_t count = 0;
  for (const std::uint8_t value : image.rgb) count += value != background;
  return count;
}

double luminance(Color c) {
  const auto linear = [](double v) { return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4); };
  return 0.2126 * linear(c.r / 255.0) + 0.7152 * linear(c.g / 255.0) + 0.0722 * linear(c.b / 255.0);
}

bool overlap(const Box& a, const Box& b) {
  return std::min(a.x2, b.x2) > std::max(a.x1, b.x1) && std::min(a.y2, b.y2) > std::max(a.y1, b.y1);
}

}  // namespace

TEST_CASE("Every printable character has ink of its own") {
  for (const int height : {9, 12, 30}) {
    std::set<std::string> seen;
    for (char c = 33; c < 127; ++c) {
      Image image = canvas(3 * height, 3 * height);
      draw_text(image, std::string(1, c), 5.0f, 2.0f * height + 0.5f, height, {255, 255, 255});
      INFO("'" << c << "' of height " << height);
      CHECK(painted(image) > 0);
      CHECK(seen.insert({image.rgb.begin(), image.rgb.end()}).second);
      CHECK(text_width(std::string(1, c), height) < 1.2f * height);
    }
    Image image = canvas(3 * height, 3 * height);
    draw_text(image, " ", 5.0f, 2.0f * height + 0.5f, height, {255, 255, 255});
    CHECK(painted(image) == 0);
    draw_text(image, "\xc3\xa9", 5.0f, 2.0f * height + 0.5f, height, {255, 255, 255});  // one character, two bytes
    CHECK(seen.insert({image.rgb.begin(), image.rgb.end()}).second);
    CHECK(text_width("\xc3\xa9", height) == text_width("\x01", height));
  }
}

TEST_CASE("Text stays within its width and its plate") {
  const std::string text = "jumping @gW{quartz}_|0.97";
  for (const int height : {6, 9, 12, 15, 33}) {
    const ImageSize size = label_size(text, height);
    Image image = canvas(size.height + 60, size.width + 60, 200);
    const Color plate{10, 60, 160};
    const Box box = draw_label(image, text, 30, 30, plate, height);
    CHECK(box == Box{30, 30, 30.0f + static_cast<float>(size.width), 30.0f + static_cast<float>(size.height)});
    std::size_t outside = 0, white = 0;
    for (int y = 0; y < image.height; ++y) {
      for (int x = 0; x < image.width; ++x) {
        const bool inside = x >= 30 && x < 30 + size.width && y >= 30 && y < 30 + size.height;
        outside += !inside && image.pixel(y, x)[0] != 200;
        white += inside && image.pixel(y, x)[0] > 240;
      }
    }
    CHECK(outside == 0);
    CHECK(white > 50);  // the dark plate is written on in white
    Image bare = canvas(4 * height, size.width + 60);
    draw_text(bare, text, 20, 2.0f * static_cast<float>(height) + 0.5f, height, {255, 255, 255});
    const int end = 20 + static_cast<int>(std::ceil(text_width(text, height))) + 1;
    for (int y = 0; y < bare.height; ++y) {
      for (int x = 0; x < bare.width; ++x) REQUIRE((bare.pixel(y, x)[0] == 0 || (x >= 18 && x <= end)));
    }
  }
}

TEST_CASE("Labels are moved into the picture, and shortened when too long") {
  for (const auto& [height, width] : {std::pair{100, 150}, {20, 150}, {3, 3}, {1, 1}, {200, 12}}) {
    for (const int x : {-1000, 0, 70, 100000}) {
      for (const int y : {-1000, 0, 70, 100000}) {
        Image image = canvas(height, width, 128);
        const Box box = draw_label(image, "a rather long label that will not fit", x, y, {250, 250, 0}, 9);
        CHECK(box.x1 >= 0);
        CHECK(box.y1 >= 0);
        if (width > 40) CHECK(box.x2 <= static_cast<float>(width));
        if (height > 40) CHECK(box.y2 <= static_cast<float>(height));
        CHECK(painted(image, 128) > 0);
      }
    }
  }
}

TEST_CASE("Labels of close boxes do not cover each other") {
  std::vector<Box> boxes;
  std::vector<ImageSize> sizes;
  for (int i = 0; i < 8; ++i) {
    boxes.push_back({100.0f + static_cast<float>(i), 100.0f, 200.0f, 220.0f});
    sizes.push_back({17, 80});
  }
  boxes.push_back({-50, -50, 900, 900});
  sizes.push_back({17, 80});
  const std::vector<Box> places = place_labels(375, 500, boxes, sizes);
  REQUIRE(places.size() == boxes.size());
  CHECK(places[0] == Box{100, 83, 180, 100});  // first choice: above the upper left corner
  CHECK(places[8] == Box{0, 0, 80, 17});
  for (std::size_t i = 0; i < places.size(); ++i) {
    CHECK(places[i].x1 >= 0);
    CHECK(places[i].y1 >= 0);
    CHECK(places[i].x2 <= 500);
    CHECK(places[i].y2 <= 375);
    for (std::size_t k = 0; k < i; ++k) CHECK_FALSE(overlap(places[i], places[k]));
  }
}

TEST_CASE("A box is a line of its thickness on its edge, inside untouched") {
  Image image = canvas(60, 80);
  draw_box(image, {10, 20, 50, 40}, {0, 255, 0}, 2);
  CHECK(image.pixel(30, 10)[1] == 255);  // columns 9 and 10 are the left edge
  CHECK(image.pixel(30, 9)[1] == 255);
  CHECK(image.pixel(30, 49)[1] == 255);
  CHECK(image.pixel(20, 30)[1] == 255);
  CHECK(image.pixel(39, 30)[1] == 255);
  CHECK(image.pixel(30, 30)[1] == 0);
  CHECK(image.pixel(30, 6)[1] == 0);
  CHECK(image.pixel(50, 30)[1] == 0);

  Image half = canvas(60, 80);
  draw_box(half, {10.5f, 20, 50, 40}, {0, 255, 0}, 1);
  CHECK(half.pixel(30, 10)[1] == 255);
  Image shared = canvas(60, 80);  // an edge between two pixels is shared by them
  draw_box(shared, {10, 20, 50, 40}, {0, 255, 0}, 1);
  CHECK(int{shared.pixel(30, 9)[1]} == Approx(127.5).margin(1));
  CHECK(int{shared.pixel(30, 10)[1]} == Approx(127.5).margin(1));

  Image bounds = canvas(30, 40);
  draw_box(bounds, {-100, -100, 500, 500}, {0, 255, 0}, 2);
  CHECK(bounds.pixel(15, 0)[1] == 255);
  CHECK(bounds.pixel(15, 39)[1] == 255);
  CHECK(bounds.pixel(0, 20)[1] == 255);
  CHECK(bounds.pixel(29, 20)[1] == 255);
}

TEST_CASE("Odd boxes and pictures do no harm") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::string> classes{"one", "two"};
  for (const auto& [height, width] : {std::pair{40, 50}, {1, 1}, {1, 300}, {300, 2}}) {
    Image image = canvas(height, width, 90);
    std::vector<Detection> detections;
    for (const Box& box : {Box{nan, 0, 5, 5}, Box{-inf, -inf, inf, inf}, Box{30, 30, 10, 10}, Box{5, 5, 5, 5},
                           Box{1e30f, 1e30f, 2e30f, 2e30f}, Box{-9, -9, -1, -1}}) {
      for (const std::int32_t label : {-5, 0, 1, 2, 3, 1000}) {
        draw_box(image, box, class_color(label), 1.5f);
        draw_box(image, box, class_color(label), 900);
        detections.push_back({box, label, label == 2 ? nan : 0.5f});
      }
    }
    draw_detections(image, detections, classes);
    draw_detections(image, detections, classes, {0.4f, 50, 40});
    draw_objects(image, std::vector<Object>{{{1, 1, 9, 9}, 1, true, true}}, classes);
    CHECK(painted(image, 90) > 0);
  }
  Image nothing;
  draw_box(nothing, {0, 0, 5, 5}, {}, 1);
  draw_label(nothing, "a", 0, 0, {}, 9);
  draw_detections(nothing, {}, classes);
  Image image = canvas(20, 20, 90);
  draw_detections(image, std::vector<Detection>{{{2, 2, 18, 18}, 1, 0.3f}}, classes, {0.5f, 0, 0});
  CHECK(painted(image, 90) == 0);
}

TEST_CASE("Colours of classes differ, and their text can be read") {
  std::set<std::tuple<int, int, int>> seen;
  for (std::int32_t label = 1; label <= 77; ++label) {
    const Color color = class_color(label);
    seen.insert({color.r, color.g, color.b});
    const double back = luminance(color) + 0.05, text = luminance(contrasting(color)) + 0.05;
    CHECK(std::max(back, text) / std::min(back, text) >= 4.5);  // WCAG's AA
  }
  CHECK(seen.size() == 77);
  for (const auto& [height, width] : {std::pair{64, 64}, {375, 500}, {3000, 4000}, {1, 5000}}) {
    CHECK(default_text_height(height, width) % 3 == 0);
    CHECK(default_text_height(height, width) >= 6);
    CHECK(default_thickness(height, width) >= 1.5f);
  }
}
