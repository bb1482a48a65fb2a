// Boxes, labels and where labels go.
#include "shrike/data/draw.hpp"

#include <array>
#include <cstdio>
#include <numeric>

#include "draw_canvas.hpp"

namespace shrike {
namespace {

// Signed distance from the edge of a rectangle with rounded corners; negative inside.
float distance_to(const Box& box, float radius, float x, float y) {
  const float dx = std::fabs(x - (box.x1 + box.x2) / 2) - box.width() / 2 + radius;
  const float dy = std::fabs(y - (box.y1 + box.y2) / 2) - box.height() / 2 + radius;
  const float outside = std::hypot(std::max(dx, 0.0f), std::max(dy, 0.0f));
  return outside + std::min(std::max(dx, dy), 0.0f) - radius;
}

// Calls f(x, y, pixel) for the picture's pixels with columns in [from, to).
template <class F> void each_pixel(Image& image, int y, int from, int to, const F& f) {
  for (int x = std::max(from, 0); x < std::min(to, image.width); ++x) {
    f(static_cast<float>(x) + 0.5f, static_cast<float>(y) + 0.5f, image.pixel(y, x));
  }
}

float relative_luminance(Color color) {
  const auto linear = [](std::uint8_t value) {
    const float v = static_cast<float>(value) / 255.0f;
    return v <= 0.04045f ? v / 12.92f : std::pow((v + 0.055f) / 1.055f, 2.4f);
  };
  return 0.2126f * linear(color.r) + 0.7152f * linear(color.g) + 0.0722f * linear(color.b);
}

void fill_plate(Image& image, const Box& plate, float radius, Color color) {
  for (int y = std::max(0, static_cast<int>(plate.y1)); y < std::min(image.height, static_cast<int>(plate.y2) + 1); ++y) {
    each_pixel(image, y, static_cast<int>(plate.x1), static_cast<int>(plate.x2) + 1,
               [&](float px, float py, std::uint8_t* rgb) { blend(rgb, color, coverage(distance_to(plate, radius, px, py))); });
  }
}

int padding(int text_height) { return std::max(2, (text_height + 1) / 3); }

// As much of `text` as a plate in `width` pixels holds.
std::string shorten(std::string_view text, int text_height, int width) {
  std::string result(text);
  for (std::size_t keep = text.size(); keep > 0 && label_size(result, text_height).width > width;) {
    result = std::string(text.substr(0, --keep)) + "..";
  }
  return result;
}

struct Mark {
  Box box;
  std::string text;
  Color color;
};

// Draws marks, the most important first in the list and on top in the picture.
void draw_marks(Image& image, const std::vector<Mark>& marks, const DrawOptions& options) {
  const int text_height = options.text_height > 0 ? options.text_height : default_text_height(image.height, image.width);
  const float thickness = options.thickness > 0 ? options.thickness : default_thickness(image.height, image.width);
  std::vector<Box> outsides;
  std::vector<ImageSize> sizes;
  std::vector<std::string> texts;
  for (const Mark& mark : marks) {
    // The label joins the outside of the line.
    const float half = thickness / 2;
    outsides.push_back({mark.box.x1 - half, mark.box.y1 - half, mark.box.x2 + half, mark.box.y2 + half});
    texts.push_back(shorten(mark.text, text_height, image.width));
    sizes.push_back(label_size(texts.back(), text_height));
  }
  const std::vector<Box> places = place_labels(image.height, image.width, outsides, sizes);
  for (std::size_t i = marks.size(); i-- > 0;) draw_box(image, marks[i].box, marks[i].color, thickness);
  for (std::size_t i = marks.size(); i-- > 0;) {
    draw_label(image, texts[i], static_cast<int>(places[i].x1), static_cast<int>(places[i].y1), marks[i].color, text_height);
  }
}

std::string class_name(std::span<const std::string> classes, std::int32_t label) {
  const bool known = label >= 1 && static_cast<std::size_t>(label) <= classes.size();
  return known ? classes[static_cast<std::size_t>(label) - 1] : "class " + std::to_string(label);
}

bool drawable(const Box& box) {
  return !(std::isnan(box.x1) || std::isnan(box.y1) || std::isnan(box.x2) || std::isnan(box.y2));
}

}  // namespace

Color class_color(std::int32_t label) {
  // Okabe and Ito, "Color Universal Design", 2008, without black.
  static constexpr std::array<Color, 7> hues{
      {{230, 159, 0}, {86, 180, 233}, {0, 158, 115}, {240, 228, 66}, {0, 114, 178}, {213, 94, 0}, {204, 121, 167}}};
  // Then lighter (above 0) and darker by turns.
  static constexpr std::array<float, 11> tones{0, 0.5f, -0.42f, 0.25f, -0.22f, 0.7f, -0.58f, 0.38f, -0.32f, 0.12f, -0.11f};
  const auto index = static_cast<std::size_t>(std::max(label, 1) - 1);
  Color color = hues[index % hues.size()];
  const float tone = tones[index / hues.size() % tones.size()];
  blend(&color.r, tone > 0 ? Color{255, 255, 255} : Color{}, std::fabs(tone));
  return color;
}

Color contrasting(Color background) {
  // Contrast is (lighter + 0.05) / (darker + 0.05); black's luminance is 0, white's 1.
  const float luminance = relative_luminance(background) + 0.05f;
  return luminance / 0.05f >= 1.05f / luminance ? Color{} : Color{255, 255, 255};
}

int default_text_height(int height, int width) {
  const int side = std::min(std::max(height, width), 3 * std::min(height, width));
  return std::clamp(3 * ((side + 150) / 210), 6, 60);
}

float default_thickness(int height, int width) {
  return std::clamp(static_cast<float>(default_text_height(height, width)) / 5.0f, 1.5f, 12.0f);
}

void draw_box(Image& image, const Box& box, Color color, float thickness) {
  if (!drawable(box) || !(thickness > 0) || image.rgb.empty()) return;
  // The line stays in the picture with its whole thickness.
  const auto inside = [&](float value, int size) {
    const float half = std::min(thickness / 2, static_cast<float>(size) / 2);
    return std::clamp(value, half, static_cast<float>(size) - half);
  };
  const Box edge{inside(std::min(box.x1, box.x2), image.width), inside(std::min(box.y1, box.y2), image.height),
                 inside(std::max(box.x1, box.x2), image.width), inside(std::max(box.y1, box.y2), image.height)};
  constexpr float rim = 1.0f, rim_share = 0.45f;
  const Color rim_color = contrasting(color);
  const float reach = thickness / 2 + rim + 1;
  const float radius = std::min({thickness, edge.width() / 2, edge.height() / 2});
  const auto paint = [&](float x, float y, std::uint8_t* rgb) {
    const float distance = std::fabs(distance_to(edge, radius, x, y));
    const float line = coverage(distance - thickness / 2);
    const float edge_share = coverage(distance - thickness / 2 - rim) * rim_share;
    if (edge_share > 0) blend(rgb, rim_color, edge_share);
    if (line > 0) blend(rgb, color, line);
  };
  const int left = static_cast<int>(std::floor(edge.x1 - reach)), right = static_cast<int>(std::ceil(edge.x2 + reach));
  const int inner_left = static_cast<int>(std::ceil(edge.x1 + reach + radius));
  const int inner_right = static_cast<int>(std::floor(edge.x2 - reach - radius));
  const int bottom = std::min(image.height, static_cast<int>(std::ceil(edge.y2 + reach)));
  for (int y = std::max(0, static_cast<int>(std::floor(edge.y1 - reach))); y < bottom; ++y) {
    const float row = static_cast<float>(y);
    const bool across = row < edge.y1 + reach + radius || row + 1 > edge.y2 - reach - radius || inner_left >= inner_right;
    each_pixel(image, y, left, across ? right : inner_left, paint);
    if (!across) each_pixel(image, y, inner_right, right, paint);
  }
}

ImageSize label_size(std::string_view text, int text_height) {
  const int pad = padding(text_height);
  const int width = static_cast<int>(std::ceil(text_width(text, text_height)));
  return {text_height + 2 * pad + (text_height + 2) / 4, width + 2 * pad};
}

Box draw_label(Image& image, std::string_view text, int x, int y, Color color, int text_height) {
  if (image.rgb.empty() || text_height < 1) return {};
  const std::string shown = shorten(text, text_height, image.width);
  const ImageSize size = label_size(shown, text_height);
  x = std::clamp(x, 0, std::max(0, image.width - size.width));
  y = std::clamp(y, 0, std::max(0, image.height - size.height));
  const Box plate{static_cast<float>(x), static_cast<float>(y), static_cast<float>(x + size.width),
                  static_cast<float>(y + size.height)};
  const int pad = padding(text_height);
  fill_plate(image, plate, static_cast<float>(pad) / 2, color);
  // On half a pixel, where the feet of letters fill whole rows.
  const float baseline = static_cast<float>(y + pad + text_height) + 0.5f;
  draw_text(image, shown, static_cast<float>(x + pad), baseline, text_height, contrasting(color));
  return plate;
}

std::vector<Box> place_labels(int height, int width, std::span<const Box> boxes, std::span<const ImageSize> sizes) {
  std::vector<Box> placed;
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const auto w = static_cast<float>(sizes[i].width), h = static_cast<float>(sizes[i].height);
    const auto bound = [](float value, int size) {
      return std::isnan(value) ? 0.0f : std::round(std::clamp(value, 0.0f, static_cast<float>(size)));
    };
    const Box box{bound(boxes[i].x1, width), bound(boxes[i].y1, height), bound(boxes[i].x2, width), bound(boxes[i].y2, height)};
    const float last_x = std::max(0.0f, static_cast<float>(width) - w);
    const float last_y = std::max(0.0f, static_cast<float>(height) - h);

    Box best{};
    float best_cost = -1;
    const auto consider = [&](float x, float y) {
      if (best_cost == 0) return;
      const float inside_x = std::clamp(x, 0.0f, last_x), inside_y = std::clamp(y, 0.0f, last_y);
      const Box place{inside_x, inside_y, inside_x + w, inside_y + h};
      // Pixels covered of other labels weigh most; then how far the label was pushed across its own box.
      float cost = std::fabs(inside_y - y);
      for (const Box& other : placed) {
        const float overlap_x = std::min(place.x2, other.x2) - std::max(place.x1, other.x1);
        const float overlap_y = std::min(place.y2, other.y2) - std::max(place.y1, other.y1);
        if (overlap_x > 0 && overlap_y > 0) cost += 1000 * overlap_x * overlap_y;
      }
      if (best_cost >= 0 && cost >= best_cost) return;
      best = place;
      best_cost = cost;
    };
    consider(box.x1, box.y1 - h);
    consider(box.x1, box.y1);
    consider(box.x1, box.y2);
    consider(box.x2 - w, box.y1 - h);
    consider(box.x2 - w, box.y1);
    consider(box.x1, box.y2 - h);
    consider(box.x2 - w, box.y2);
    consider(box.x2 - w, box.y2 - h);
    for (int step = 1; step <= 12; ++step) {
      const float down = static_cast<float>(step) * h;
      consider(box.x1, box.y1 + down);
      consider(box.x1, box.y1 - h - down);
      consider(box.x2 - w, box.y1 + down);
      consider(box.x1 + static_cast<float>(step) * w / 2, box.y1 - h);
      consider(box.x1 + static_cast<float>(step) * w / 2, box.y1);
    }
    placed.push_back(best);
  }
  return placed;
}

void draw_detections(Image& image, std::span<const Detection> detections, std::span<const std::string> classes,
                     const DrawOptions& options) {
  std::vector<std::size_t> order(detections.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return detections[a].score > detections[b].score; });
  std::vector<Mark> marks;
  for (const std::size_t i : order) {
    const Detection& detection = detections[i];
    if (!(detection.score >= options.score_threshold) || !drawable(detection.box)) continue;
    std::array<char, 32> score{};
    std::snprintf(score.data(), score.size(), " %.2f", static_cast<double>(detection.score));
    marks.push_back({detection.box, class_name(classes, detection.label) + score.data(), class_color(detection.label)});
  }
  draw_marks(image, marks, options);
}

void draw_objects(Image& image, std::span<const Object> objects, std::span<const std::string> classes,
                  const DrawOptions& options) {
  std::vector<Mark> marks;
  for (const Object& object : objects) {
    if (!drawable(object.box)) continue;
    std::string text = class_name(classes, object.label);
    if (object.difficult) text += " (difficult)";
    if (object.crowd) text += " (crowd)";
    marks.push_back({object.box, text, class_color(object.label)});
  }
  draw_marks(image, marks, options);
}

}  // namespace shrike
