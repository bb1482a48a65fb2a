// The font: each glyph is a few strokes of a round pen, so that it scales to any size. A stroke is written as a kind and
// points:
//   -  straight lines from point to point; a single point is a dot
//   ~  a smooth curve from the first point to the last, the others its controls (uniform quadratic B-spline)
//   o  a closed smooth curve, all points its controls
// A point is two characters: x as 0..9, A for 10, and y as a letter counted from a = -4: e is the baseline (0), m the height of
// small letters (8), q that of capitals (12).
#include <limits>

#include "draw_canvas.hpp"

namespace shrike {
namespace {

constexpr float capital = 12.0f;     // height of capitals in glyph units
constexpr float spacing = 3.2f;      // between glyphs
constexpr float space_width = 1.8f;  // of ' ', beyond the spacing

// clang-format off
constexpr const char* strokes[95] = {
    "",                              // space
    "-0q0i -0e",                     // !
    "-0q0n -3q3n",                   // "
    "-2e4q -5e7q -0i8i -1m9m",       // #
    "~7o7q0q0k7k7e0e0g -4s4c",       // $
    "-1e8q o0l4l4q0q o5e9e9j5j",     // %
    "~8e1m1q6q6m0j0e6e8j",           // &
    "-0q0n",                         // '
    "~3s0o0g3c",                     // (
    "~0s3o3g0c",                     // )
    "-3q3k -0p6l -0l6p",             // *
    "-0j6j -3m3g",                   // +
    "-1f0b",                         // ,
    "-0j5j",                         // -
    "-0e",                           // .
    "-0c5s",                         // /
    "o0e7e7q0q",                     // 0
    "-0o3q3e -0e6e",                 // 1
    "~0n0q7q7k0e -0e7e",             // 2
    "~0o0q6q6k3k ~3k7k7e0e0g",       // 3
    "-5e5q0h7h",                     // 4
    "-6q1q0k ~0k1m7m7e0e0g",         // 5
    "~6q0q0h o0e7e7l0l",             // 6
    "-0q7q2e",                       // 7
    "o1k6k6q1q o0e7e7k0k",           // 8
    "~1e7e7n o0j7j7q0q",             // 9
    "-0f -0l",                       // :
    "-1l -1f0b",                     // ;
    "-6n0j6f",                       // <
    "-0l6l -0h6h",                   // =
    "-0n6j0f",                       // >
    "~0o0q6q6l3k3h -3e",             // ?
    "~9d0d0rArAg7g7m o3g7g7m3m",     // @
    "-0e4q8e -1h7h",                 // A
    "-4e0e0q4q -0k4k ~4q7q7k4k ~4k8k8e4e",  // B
    "~8o8q0q0e8e8g",                 // C
    "-3e0e0q3q ~3q8q8e3e",           // D
    "-7e0e0q7q -0k6k",               // E
    "-0e0q7q -0k6k",                 // F
    "~8o8q0q0e8e8i -8i8k5k",         // G
    "-0e0q -7e7q -0k7k",             // H
    "-0e4e -0q4q -2e2q",             // I
    "-5q5i ~5i5e0e0h",               // J
    "-0e0q -7q0j -3m7e",             // K
    "-0q0e6e",                       // L
    "-0e0q4i8q8e",                   // M
    "-0e0q7e7q",                     // N
    "o0e8e8q0q",                     // O
    "-0e0q4q ~4q8q8j4j -4j0j",       // P
    "o0e8e8q0q -5h8d",               // Q
    "-0e0q4q ~4q8q8j4j -4j0j -4j8e", // R
    "~7o7q0q0k7k7e0e0g",             // S
    "-0q8q -4q4e",                   // T
    "-0q0j ~0j0e7e7j -7j7q",         // U
    "-0q4e8q",                       // V
    "-0q3e5o7eAq",                   // W
    "-0e7q -0q7e",                   // X
    "-0q4k8q -4k4e",                 // Y
    "-0q7q0e7e",                     // Z
    "-3s0s0c3c",                     // [
    "-0s5c",                         // backslash
    "-0s3s3c0c",                     // ]
    "-0m3q6m",                       // ^
    "-0c7c",                         // _
    "-0q2o",                         // `
    "o0e6e6m0m -6m6e",               // a
    "o0e6e6m0m -0q0e",               // b
    "~6k6m0m0e6e6g",                 // c
    "o0e6e6m0m -6q6e",               // d
    "-0i6i ~6i6m0m0e6e6g",           // e
    "~5q2q2m -2m2e -0m5m",           // f
    "o0e6e6m0m -6m6d ~6d6a0a0b",     // g
    "-0e0q ~0i0m6m6i -6i6e",         // h
    "-0e0m -0p",                     // i
    "-2m2c ~2c2a0a -2p",             // j
    "-0e0q -5m0h -2j6e",             // k
    "-0q0g ~0g0e2e",                 // l
    "-0e0m ~0j0m4m4j -4j4e ~4j4m8m8j -8j8e",  // m
    "-0e0m ~0i0m6m6i -6i6e",         // n
    "o0e6e6m0m",                     // o
    "o0e6e6m0m -0m0a",               // p
    "o0e6e6m0m -6m6a",               // q
    "-0e0m ~0i0m4m",                 // r
    "~5l5m0m0i5i5e0e0f",             // s
    "-2p2g ~2g2e5e -0m5m",           // t
    "-0m0i ~0i0e6e6i -6m6e",         // u
    "-0m3e6m",                       // v
    "-0m2e4l6e8m",                   // w
    "-0e6m -0m6e",                   // x
    "-0m3e -6m3e ~3e2a0a",           // y
    "-0m6m0e6e",                     // z
    "~3s1s1k0k ~3c1c1k0k",           // {
    "-0s0c",                         // |
    "~0s2s2k3k ~0c2c2k3k",           // }
    "~0j2n5g7l",                     // ~
};
constexpr const char* unknown_strokes = "-0e7e7q0q0e";
// clang-format on

struct Point {
  float x, y;
};

struct Segment {
  Point a, b;
};

struct Glyph {
  std::vector<Segment> segments;
  float width = space_width;
};

Point middle(Point a, Point b) { return {(a.x + b.x) / 2, (a.y + b.y) / 2}; }

// A quadratic Bezier curve as short lines.
void add_curve(Glyph& glyph, Point from, Point control, Point to) {
  constexpr int pieces = 10;
  Point before = from;
  for (int i = 1; i <= pieces; ++i) {
    const float t = static_cast<float>(i) / pieces, u = 1 - t;
    const Point here{u * u * from.x + 2 * u * t * control.x + t * t * to.x,
                     u * u * from.y + 2 * u * t * control.y + t * t * to.y};
    glyph.segments.push_back({before, here});
    before = here;
  }
}

void add_stroke(Glyph& glyph, std::string_view text) {
  std::vector<Point> points;
  for (std::size_t i = 1; i + 1 < text.size(); i += 2) {
    const int x = text[i] == 'A' ? 10 : text[i] - '0';
    points.push_back({static_cast<float>(x), static_cast<float>(text[i + 1] - 'e')});
    glyph.width = std::max(glyph.width, points.back().x);
  }
  const std::size_t n = points.size();
  if (text[0] == '-') {
    if (n == 1) glyph.segments.push_back({points[0], points[0]});
    for (std::size_t i = 0; i + 1 < n; ++i) glyph.segments.push_back({points[i], points[i + 1]});
  } else if (text[0] == 'o') {
    for (std::size_t i = 0; i < n; ++i) {
      add_curve(glyph, middle(points[i], points[(i + 1) % n]), points[(i + 1) % n],
                middle(points[(i + 1) % n], points[(i + 2) % n]));
    }
  } else {
    for (std::size_t i = 1; i + 1 < n; ++i) {
      add_curve(glyph, i == 1 ? points[0] : middle(points[i - 1], points[i]), points[i],
                i + 2 == n ? points[n - 1] : middle(points[i], points[i + 1]));
    }
  }
}

Glyph make_glyph(std::string_view text) {
  Glyph glyph;
  if (!text.empty()) glyph.width = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    add_stroke(glyph, text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return glyph;
}

// The glyph of the character that begins at text[0]; removes that character, all bytes of it if it is UTF-8.
const Glyph& next_glyph(std::string_view& text) {
  static const std::vector<Glyph> glyphs = [] {
    std::vector<Glyph> all;
    for (const char* glyph : strokes) all.push_back(make_glyph(glyph));
    all.push_back(make_glyph(unknown_strokes));
    return all;
  }();
  const auto c = static_cast<unsigned char>(text[0]);
  text.remove_prefix(1);
  while (c >= 0x80 && !text.empty() && (static_cast<unsigned char>(text[0]) & 0xc0) == 0x80) text.remove_prefix(1);
  return glyphs[c >= 32 && c < 127 ? c - 32u : 95u];
}

float distance_squared(Point p, const Segment& s) {
  const float dx = s.b.x - s.a.x, dy = s.b.y - s.a.y;
  const float length = dx * dx + dy * dy;
  const float t = length > 0 ? std::clamp(((p.x - s.a.x) * dx + (p.y - s.a.y) * dy) / length, 0.0f, 1.0f) : 0.0f;
  const float x = p.x - s.a.x - t * dx, y = p.y - s.a.y - t * dy;
  return x * x + y * y;
}

// Half the width of the pen, in pixels: never so thin that the text fades.
float pen(int text_height) { return std::max(0.6f, 0.068f * static_cast<float>(text_height)); }

void draw_glyph(Image& image, const Glyph& glyph, float left, float baseline, int text_height, Color color) {
  const float scale = static_cast<float>(text_height) / capital;
  const float radius = pen(text_height);
  const int x_from = std::max(0, static_cast<int>(std::floor(left - radius - 1)));
  const int x_to = std::min(image.width, static_cast<int>(std::ceil(left + glyph.width * scale + radius + 1)));
  const int y_from = std::max(0, static_cast<int>(std::floor(baseline - 14 * scale - radius - 1)));
  const int y_to = std::min(image.height, static_cast<int>(std::ceil(baseline + 4 * scale + radius + 1)));
  for (int y = y_from; y < y_to; ++y) {
    for (int x = x_from; x < x_to; ++x) {
      // The pixel's centre in glyph units.
      const Point p{(static_cast<float>(x) + 0.5f - left) / scale, (baseline - static_cast<float>(y) - 0.5f) / scale};
      float nearest = std::numeric_limits<float>::max();
      for (const Segment& segment : glyph.segments) nearest = std::min(nearest, distance_squared(p, segment));
      const float share = coverage(std::sqrt(nearest) * scale - radius);
      if (share > 0) blend(image.pixel(y, x), color, share);
    }
  }
}

}  // namespace

float text_width(std::string_view text, int text_height) {
  float units = 0;
  while (!text.empty()) units += next_glyph(text).width + (text.empty() ? 0.0f : spacing);
  return units * static_cast<float>(text_height) / capital + 2 * pen(text_height);
}

void draw_text(Image& image, std::string_view text, float x, float baseline, int text_height, Color color) {
  if (text_height < 1 || !(std::fabs(x) < 1e6f) || !(std::fabs(baseline) < 1e6f)) return;
  const float scale = static_cast<float>(text_height) / capital;
  x += pen(text_height);
  while (!text.empty()) {
    const Glyph& glyph = next_glyph(text);
    // Upright stems are sharpest centred on a pixel.
    const float left = std::round(x - 0.5f) + 0.5f;
    draw_glyph(image, glyph, left, baseline, text_height, color);
    x += (glyph.width + spacing) * scale;
  }
}

}  // namespace shrike
