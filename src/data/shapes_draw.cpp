// Drawing for the data set `shapes`: signed distances give anti-aliased edges; all colours are linear blends of float RGB.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "shrike/core/check.hpp"
#include "shrike/core/random.hpp"
#include "shrike/data/shapes.hpp"

namespace shrike {
namespace {

struct Point {
  float x = 0, y = 0;
};

using Color = std::array<float, 3>;  // in [0, 1]

constexpr float pi = std::numbers::pi_v<float>;

Color mix(const Color& a, const Color& b, float t) {
  return {a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t};
}

Color hsv(float hue, float saturation, float value) {
  Color color;
  for (int c = 0; c < 3; ++c) {
    const float k = std::fmod(5.0f - 2.0f * static_cast<float>(c) + 6.0f * hue, 6.0f);
    color[static_cast<std::size_t>(c)] = value * (1 - saturation * std::clamp(std::min(k, 4 - k), 0.0f, 1.0f));
  }
  return color;
}

float luminance(const Color& color) { return 0.3f * color[0] + 0.59f * color[1] + 0.11f * color[2]; }

Point rotated(Point p, float angle) {
  const float c = std::cos(angle), s = std::sin(angle);
  return {c * p.x - s * p.y, s * p.x + c * p.y};
}

// From 0 to 1 while x goes from `low` to `high`, smoothly.
float smooth_step(float low, float high, float x) {
  const float t = std::clamp((x - low) / (high - low), 0.0f, 1.0f);
  return t * t * (3 - 2 * t);
}

// Smooth random values in [0, 1] over the plane, from a lattice of random numbers `cell` pixels apart that repeats.
class Noise {
 public:
  Noise(Random& random, float cell) : cell_(cell) {
    for (float& value : values_) value = random.uniform();
  }

  float operator()(float x, float y) const {
    const float u = x / cell_, v = y / cell_;
    const float fu = std::floor(u), fv = std::floor(v);
    const float a = smooth_step(0, 1, u - fu), b = smooth_step(0, 1, v - fv);
    const int i = static_cast<int>(fu), j = static_cast<int>(fv);
    const float top = at(i, j) + (at(i + 1, j) - at(i, j)) * a;
    const float bottom = at(i, j + 1) + (at(i + 1, j + 1) - at(i, j + 1)) * a;
    return top + (bottom - top) * b;
  }

 private:
  static constexpr int side = 32;
  float at(int i, int j) const { return values_[static_cast<std::size_t>((j & (side - 1)) * side + (i & (side - 1)))]; }

  float cell_;
  std::array<float, side * side> values_;
};

float length(float x, float y) { return std::sqrt(x * x + y * y); }

float square_distance_to_segment(Point p, Point a, Point b) {
  const Point ab{b.x - a.x, b.y - a.y}, ap{p.x - a.x, p.y - a.y};
  const float square = ab.x * ab.x + ab.y * ab.y;
  const float t = square > 0 ? std::clamp((ap.x * ab.x + ap.y * ab.y) / square, 0.0f, 1.0f) : 0.0f;
  const float x = ap.x - t * ab.x, y = ap.y - t * ab.y;
  return x * x + y * y;
}

// To the border; negative inside.
float distance_to_polygon(Point p, const std::vector<Point>& corners) {
  float nearest = 1e9f;
  bool inside = false;
  for (std::size_t i = 0; i < corners.size(); ++i) {
    const Point a = corners[i], b = corners[i + 1 < corners.size() ? i + 1 : 0];
    nearest = std::min(nearest, square_distance_to_segment(p, a, b));
    if ((a.y > p.y) != (b.y > p.y) && p.x < a.x + (b.x - a.x) * (p.y - a.y) / (b.y - a.y)) inside = !inside;
  }
  return inside ? -std::sqrt(nearest) : std::sqrt(nearest);
}

// A shape's outline, centred at the origin and not yet turned.
enum Kind { circle, cross, ring, square, star, triangle, kinds };

std::vector<Point> outline(int kind, float radius) {
  std::vector<Point> corners;
  const auto polar = [&](float r, float turn) {
    corners.push_back({r * radius * std::sin(2 * pi * turn), -r * radius * std::cos(2 * pi * turn)});
  };
  if (kind == square) {
    for (int i = 0; i < 4; ++i) polar(1.0f, (static_cast<float>(i) + 0.5f) / 4);
  } else if (kind == triangle) {
    for (int i = 0; i < 3; ++i) polar(1.05f, static_cast<float>(i) / 3);
  } else if (kind == star) {
    for (int i = 0; i < 10; ++i) polar(i % 2 == 0 ? 1.08f : 0.46f, static_cast<float>(i) / 10);
  } else if (kind == cross) {
    const float arm = 0.95f * radius, half = 0.30f * radius;
    for (int i = 0; i < 4; ++i) {
      for (const Point p : {Point{half, -arm}, Point{arm, -half}}) {
        if (p.y == -half) corners.push_back(rotated({half, -half}, pi / 2 * static_cast<float>(i)));
        corners.push_back(rotated(p, pi / 2 * static_cast<float>(i)));
      }
    }
  }
  return corners;
}

// How a surface is coloured.
enum Pattern { plain, stripes, checks, dots, marble, glow, patterns };

struct Surface {
  int pattern = plain;
  Color first, second;
  float angle = 0, period = 8, shade_angle = 0;

  // At `p` from the centre of a shape of this radius.
  Color operator()(Point p, float radius, const Noise& noise) const {
    const Point q = rotated(p, angle);
    const auto wave = [&](float x) {
      return 0.5f + 0.5f * std::clamp(std::sin(2 * pi * x / period) * period * 0.35f, -1.0f, 1.0f);
    };
    float t = 0;
    switch (pattern) {
      case stripes: t = wave(q.x); break;
      case checks: {
        const float a = wave(q.x), b = wave(q.y);
        t = a + b - 2 * a * b;
        break;
      }
      case dots: {
        const float cell = period * 1.1f;
        const float u = q.x / cell - std::floor(q.x / cell) - 0.5f, v = q.y / cell - std::floor(q.y / cell) - 0.5f;
        t = 1 - smooth_step(-0.6f, 0.6f, (length(u, v) - 0.3f) * cell);
        break;
      }
      case marble: t = smooth_step(0.25f, 0.75f, 0.65f * noise(q.x * 2, q.y) + 0.35f * noise(q.y * 4 + 31, q.x * 4)); break;
      case glow: t = std::clamp(length(p.x, p.y) / radius, 0.0f, 1.0f); break;
      default: t = 0.25f + 0.25f * q.x / radius; break;
    }
    Color color = mix(first, second, t);
    const float shade =
        1 + 0.14f * (std::cos(shade_angle) * p.x + std::sin(shade_angle) * p.y) / radius;  // light from one side
    for (float& c : color) c = std::clamp(c * shade, 0.0f, 1.0f);
    return color;
  }
};

struct Shape {
  int kind = circle;
  Point center;
  float radius = 0;
  std::vector<Point> corners;  // of a polygon, from the centre
  Surface surface;
  float border = 0;  // width of a darker or lighter rim, pixels
  Color border_color{};

  float distance(float x, float y) const {
    const Point p{x - center.x, y - center.y};
    const float r = length(p.x, p.y);
    if (kind == circle) return r - 0.9f * radius;
    if (kind == ring) return std::abs(r - 0.73f * radius) - 0.2f * radius;
    if (r > 1.1f * radius + 16) return r - 1.1f * radius;  // far off: that it is far is enough
    return distance_to_polygon(p, corners);
  }
};

class Canvas {
 public:
  Canvas(int height, int width) : height_(height), width_(width), colors_(static_cast<std::size_t>(height) * width) {}

  int height() const { return height_; }
  int width() const { return width_; }
  Color& at(int y, int x) { return colors_[static_cast<std::size_t>(y) * width_ + x]; }
  void blend(int y, int x, const Color& color, float alpha) { at(y, x) = mix(at(y, x), color, alpha); }

  // Calls f(y, x) for the pixels of the image within `reach` of a point.
  template <class F> void around(Point p, float reach, const F& f) const {
    const auto low = [](float a) { return std::max(0, static_cast<int>(std::floor(a))); };
    for (int y = low(p.y - reach); y < std::min(height_, static_cast<int>(p.y + reach) + 2); ++y) {
      for (int x = low(p.x - reach); x < std::min(width_, static_cast<int>(p.x + reach) + 2); ++x) f(y, x);
    }
  }

 private:
  int height_, width_;
  std::vector<Color> colors_;
};

// A muted gradient under noise, with soft blobs, lines and arcs that are no object.
void draw_background(Canvas& canvas, Random& random) {
  const float size = static_cast<float>(std::min(canvas.height(), canvas.width()));
  const float hue = random.uniform();
  const Color from = hsv(hue, random.uniform(0.1f, 0.45f), random.uniform(0.3f, 0.85f));
  const Color to =
      hsv(std::fmod(hue + random.uniform(0.05f, 0.35f), 1.0f), random.uniform(0.1f, 0.45f), random.uniform(0.3f, 0.85f));
  const float angle = random.uniform(0, 2 * pi);
  const Noise coarse(random, size * random.uniform(0.2f, 0.4f)), medium(random, size * 0.08f), fine(random, 3.5f);
  const float strength = random.uniform(0.1f, 0.45f), grain = random.uniform(0.02f, 0.12f);
  for (int y = 0; y < canvas.height(); ++y) {
    for (int x = 0; x < canvas.width(); ++x) {
      const auto fx = static_cast<float>(x), fy = static_cast<float>(y);
      const float u = (fx / static_cast<float>(canvas.width()) - 0.5f) * std::cos(angle) +
                      (fy / static_cast<float>(canvas.height()) - 0.5f) * std::sin(angle);
      const float light =
          strength * (coarse(fx, fy) - 0.5f) + 0.4f * strength * (medium(fx, fy) - 0.5f) + grain * (fine(fx, fy) - 0.5f);
      Color color = mix(from, to, std::clamp(0.5f + u, 0.0f, 1.0f));
      for (float& c : color) c = std::clamp(c + light, 0.0f, 1.0f);
      canvas.at(y, x) = color;
    }
  }
  const auto anywhere = [&] {
    return Point{random.uniform(0, static_cast<float>(canvas.width())), random.uniform(0, static_cast<float>(canvas.height()))};
  };
  for (std::uint32_t i = random.below(6); i > 0; --i) {
    const Point p = anywhere();
    const float radius = size * random.uniform(0.08f, 0.3f), alpha = random.uniform(0.15f, 0.5f);
    const Color color = hsv(random.uniform(), random.uniform(0.1f, 0.6f), random.uniform(0.2f, 0.9f));
    canvas.around(p, 1.5f * radius, [&](int y, int x) {
      const float wobble = 0.7f + 0.6f * medium(static_cast<float>(y) + 17 * p.x, static_cast<float>(x));
      const float r = length(static_cast<float>(x) - p.x, static_cast<float>(y) - p.y) / (radius * wobble);
      canvas.blend(y, x, color, alpha * (1 - smooth_step(0.3f, 1.0f, r)));
    });
  }
  for (std::uint32_t i = random.below(7); i > 0; --i) {
    const Point a = anywhere(), b = anywhere();
    const Point bend{(a.x + b.x) / 2 + size * random.uniform(-0.3f, 0.3f),
                     (a.y + b.y) / 2 + size * random.uniform(-0.3f, 0.3f)};
    const float half = random.uniform(0.4f, 2.2f), alpha = random.uniform(0.25f, 0.8f);
    const Color color = hsv(random.uniform(), random.uniform(0.1f, 0.8f), random.uniform(0.1f, 0.95f));
    std::array<Point, 13> curve;  // a parabola by its control points a, bend, b
    for (std::size_t k = 0; k < curve.size(); ++k) {
      const float t = static_cast<float>(k) / static_cast<float>(curve.size() - 1), s = 1 - t;
      curve[k] = {s * s * a.x + 2 * s * t * bend.x + t * t * b.x, s * s * a.y + 2 * s * t * bend.y + t * t * b.y};
    }
    const Point middle{(a.x + b.x) / 2, (a.y + b.y) / 2};
    const float reach = std::max({length(a.x - middle.x, a.y - middle.y), length(bend.x - middle.x, bend.y - middle.y)}) + 3;
    canvas.around(middle, reach, [&](int y, int x) {
      const Point p{static_cast<float>(x) + 0.5f, static_cast<float>(y) + 0.5f};
      float d = 1e9f;
      for (std::size_t k = 1; k < curve.size(); ++k) d = std::min(d, square_distance_to_segment(p, curve[k - 1], curve[k]));
      canvas.blend(y, x, color, alpha * std::clamp(half + 0.5f - std::sqrt(d), 0.0f, 1.0f));
    });
  }
}

// A shape somewhere: most of them whole and apart from the others, some cut by the image's border or behind another.
Shape place(const Canvas& canvas, const std::vector<Shape>& others, Random& random) {
  Shape shape;
  shape.kind = static_cast<int>(random.below(kinds));
  const float size = static_cast<float>(std::min(canvas.height(), canvas.width()));
  const float inside = random.uniform() < 0.15f ? random.uniform(-0.3f, 0.5f) : 1.02f;  // centre from the image's border, radii
  const float near = random.uniform();
  const float gap = near < 0.06f ? 0.4f : near < 0.25f ? 0.75f : 1.0f;              // between centres, in sums of radii
  const float ratio = std::exp(random.uniform(std::log(0.075f), std::log(0.24f)));  // small ones as likely as large ones
  const float angle = random.uniform(0, 2 * pi);
  for (int attempt = 0;; ++attempt) {
    shape.radius = size * ratio * (attempt < 20 ? 1.0f : 0.7f);
    const float margin = shape.radius * inside;
    shape.center = {random.uniform(margin, static_cast<float>(canvas.width()) - margin),
                    random.uniform(margin, static_cast<float>(canvas.height()) - margin)};
    const bool free = std::all_of(others.begin(), others.end(), [&](const Shape& other) {
      const float apart = length(shape.center.x - other.center.x, shape.center.y - other.center.y);
      return apart > gap * (shape.radius + other.radius);
    });
    if (free || attempt == 40) break;
  }
  shape.corners = outline(shape.kind, shape.radius);
  for (Point& corner : shape.corners) corner = rotated(corner, angle);
  return shape;
}

// Two colours of which at least one stands out from the background around the shape.
void colour(Shape& shape, Canvas& canvas, Random& random) {
  Color mean{};
  float count = 0;
  canvas.around(shape.center, shape.radius, [&](int y, int x) {
    for (std::size_t c = 0; c < 3; ++c) mean[c] += canvas.at(y, x)[c];
    ++count;
  });
  for (float& c : mean) c /= std::max(count, 1.0f);
  const auto far = [](const Color& a, const Color& b) {
    return std::abs(a[0] - b[0]) + std::abs(a[1] - b[1]) + std::abs(a[2] - b[2]);
  };
  Surface& surface = shape.surface;
  surface.pattern = static_cast<int>(random.below(patterns));
  for (int attempt = 0; attempt < 30; ++attempt) {
    surface.first = hsv(random.uniform(), random.uniform(0.35f, 0.95f), random.uniform(0.35f, 1.0f));
    if (far(surface.first, mean) > 0.7f) break;
  }
  for (int attempt = 0; attempt < 30; ++attempt) {
    surface.second = hsv(random.uniform(), random.uniform(0.05f, 0.9f), random.uniform(0.2f, 1.0f));
    if (far(surface.second, surface.first) > 0.6f && far(surface.second, mean) > 0.45f) break;
  }
  surface.angle = random.uniform(0, 2 * pi);
  surface.period = random.uniform(5.0f, 11.0f);
  surface.shade_angle = random.uniform(0, 2 * pi);
  if (random.uniform() < 0.5f) {
    shape.border = random.uniform(1.0f, 2.2f);
    const bool dark = luminance(mix(surface.first, surface.second, 0.5f)) > 0.35f;
    shape.border_color = mix(surface.first, dark ? Color{0, 0, 0} : Color{1, 1, 1}, 0.75f);
  }
}

void draw(const Shape& shape, Canvas& canvas, Random& random) {
  const Noise noise(random, 9.0f);
  const float shadow_alpha = random.uniform(0.0f, 0.45f), shadow_x = random.uniform(-4, 4), shadow_y = random.uniform(1, 5);
  canvas.around(shape.center, shape.radius * 1.1f + 12, [&](int y, int x) {
    const float d = shape.distance(static_cast<float>(x) + 0.5f - shadow_x, static_cast<float>(y) + 0.5f - shadow_y);
    canvas.blend(y, x, {0, 0, 0}, shadow_alpha * (1 - smooth_step(-4, 5, d)));
  });
  canvas.around(shape.center, shape.radius * 1.1f + 2, [&](int y, int x) {
    const Point p{static_cast<float>(x) + 0.5f, static_cast<float>(y) + 0.5f};
    const float d = shape.distance(p.x, p.y);
    if (d > 0.5f) return;
    Color color = shape.surface({p.x - shape.center.x, p.y - shape.center.y}, shape.radius, noise);
    if (shape.border > 0) color = mix(color, shape.border_color, std::clamp(d + shape.border + 0.5f, 0.0f, 1.0f));
    canvas.blend(y, x, color, std::clamp(0.5f - d, 0.0f, 1.0f));
  });
}

// What can be seen of each shape, given who owns each pixel (-1: nobody).
std::vector<ShapesPicture::Shape> annotate(const std::vector<Shape>& shapes, const std::vector<int>& owner, int height,
                                           int width) {
  std::vector<ShapesPicture::Shape> result;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const Shape& shape = shapes[i];
    const float reach = shape.radius * 1.1f + 2;
    int whole = 0, inside = 0, seen = 0, x1 = width, y1 = height, x2 = 0, y2 = 0;
    for (int y = static_cast<int>(shape.center.y - reach) - 1; static_cast<float>(y) < shape.center.y + reach; ++y) {
      for (int x = static_cast<int>(shape.center.x - reach) - 1; static_cast<float>(x) < shape.center.x + reach; ++x) {
        if (shape.distance(static_cast<float>(x) + 0.5f, static_cast<float>(y) + 0.5f) > 0) continue;
        ++whole;
        if (x < 0 || y < 0 || x >= width || y >= height) continue;
        ++inside;
        if (owner[static_cast<std::size_t>(y) * width + x] != static_cast<int>(i)) continue;
        ++seen;
        x1 = std::min(x1, x);
        y1 = std::min(y1, y);
        x2 = std::max(x2, x + 1);
        y2 = std::max(y2, y + 1);
      }
    }
    if (seen * 20 < whole || x2 - x1 < 3 || y2 - y1 < 3) continue;  // nobody would call that an object
    ShapesPicture::Shape& annotated = result.emplace_back();
    annotated.object.box = {static_cast<float>(x1), static_cast<float>(y1), static_cast<float>(x2), static_cast<float>(y2)};
    annotated.object.label = shape.kind + 1;
    annotated.object.difficult = seen * 10 < whole * 4;
    annotated.truncated = inside < whole;
    annotated.occluded = seen < inside;
  }
  return result;
}

}  // namespace

const std::vector<std::string>& shape_classes() {
  static const std::vector<std::string> names = {"circle", "cross", "ring", "square", "star", "triangle"};
  return names;
}

ShapesPicture draw_shapes(const ShapesOptions& options, std::uint64_t index) {
  SHRIKE_CHECK(options.width >= 32 && options.height >= 32 && options.width <= 4096 && options.height <= 4096, "shapes of ",
               options.width, "x", options.height, " pixels: expected 32 to 4096 a side");
  SHRIKE_CHECK(options.max_objects >= 1 && options.max_objects <= 100, "shapes with up to ", options.max_objects,
               " objects: expected 1 to 100");
  Random random(options.seed, RandomStream::shapes, index);
  Canvas canvas(options.height, options.width);
  draw_background(canvas, random);

  std::vector<Shape> shapes;
  std::vector<int> owner(static_cast<std::size_t>(options.height) * options.width, -1);
  const auto count = 1 + random.below(static_cast<std::uint32_t>(options.max_objects));
  for (std::uint32_t i = 0; i < count; ++i) {
    Shape& shape = shapes.emplace_back(place(canvas, shapes, random));
    colour(shape, canvas, random);
    draw(shape, canvas, random);
    canvas.around(shape.center, shape.radius * 1.1f + 2, [&](int y, int x) {
      const float d = shape.distance(static_cast<float>(x) + 0.5f, static_cast<float>(y) + 0.5f);
      if (d <= 0) owner[static_cast<std::size_t>(y) * options.width + x] = static_cast<int>(i);
    });
  }

  ShapesPicture picture;
  picture.shapes = annotate(shapes, owner, options.height, options.width);
  picture.image = make_image(options.height, options.width);
  const float noise = random.uniform(0.005f, 0.025f);  // of the sensor
  for (int y = 0; y < options.height; ++y) {
    for (int x = 0; x < options.width; ++x) {
      const float grey = random.normal() * noise;
      for (std::size_t c = 0; c < 3; ++c) {
        const float value = std::clamp(canvas.at(y, x)[c] + grey, 0.0f, 1.0f);
        picture.image.pixel(y, x)[c] = static_cast<std::uint8_t>(std::lround(value * 255));
      }
    }
  }
  return picture;
}

}  // namespace shrike
