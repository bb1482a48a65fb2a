// Bilinear resizing, with normalisation in the same pass.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "image_codecs.hpp"
#include "shrike/core/check.hpp"

namespace shrike {
namespace {

// The two source positions that output position `i` lies between, and the share of the second.
struct Tap {
  int first, second;
  float share;
};

// The centre of output pixel i is at (i + 1/2) * from/to in the source, whose pixel j has its centre at j + 1/2.
// Computed in float as PyTorch does, for the same taps.
std::vector<Tap> make_taps(int from, int to) {
  std::vector<Tap> taps(static_cast<std::size_t>(to));
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  for (int i = 0; i < to; ++i) {
    const float at = from == to ? static_cast<float>(i) : std::max(0.0f, scale * (static_cast<float>(i) + 0.5f) - 0.5f);
    const int first = std::min(static_cast<int>(at), from - 1);
    taps[static_cast<std::size_t>(i)] = {first, std::min(first + 1, from - 1), std::min(at - static_cast<float>(first), 1.0f)};
  }
  return taps;
}

// One source row at the output's width.
void stretch_row(const std::uint8_t* __restrict row, const std::vector<Tap>& taps, float* __restrict out) {
  for (std::size_t x = 0; x < taps.size(); ++x) {
    const std::uint8_t* a = row + std::size_t{3} * static_cast<std::size_t>(taps[x].first);
    const std::uint8_t* b = row + std::size_t{3} * static_cast<std::size_t>(taps[x].second);
    const float share = taps[x].share;
    for (std::size_t c = 0; c < 3; ++c) {
      const float va = a[c], vb = b[c];
      out[3 * x + c] = va + (vb - va) * share;
    }
  }
}

// Calls emit(y, upper, lower, share) for each output row: its values are upper + (lower - upper) * share, in [0, 255]. Every
// source row is stretched at most once.
template <class Emit> void interpolate(const Image& image, int height, int width, bool mirror, const Emit& emit) {
  codecs::check_size(image.height, image.width, "an image to resize");
  codecs::check_size(height, width, "a resized image");
  SHRIKE_CHECK(image.rgb.size() == static_cast<std::size_t>(image.height) * image.width * 3, "an image of ", image.width, "x",
               image.height, " pixels has ", image.rgb.size(), " bytes");
  const std::vector<Tap> rows = make_taps(image.height, height);
  std::vector<Tap> columns = make_taps(image.width, width);
  if (mirror) std::reverse(columns.begin(), columns.end());
  std::vector<float> upper(static_cast<std::size_t>(width) * 3), lower(upper.size());
  int upper_row = -1, lower_row = -1;
  for (int y = 0; y < height; ++y) {
    const Tap& tap = rows[static_cast<std::size_t>(y)];
    if (tap.first != upper_row) {
      if (tap.first == lower_row) {
        std::swap(upper, lower);
        std::swap(upper_row, lower_row);
      } else {
        stretch_row(image.pixel(tap.first, 0), columns, upper.data());
        upper_row = tap.first;
      }
    }
    if (tap.second != lower_row) {
      stretch_row(image.pixel(tap.second, 0), columns, lower.data());
      lower_row = tap.second;
    }
    emit(y, upper.data(), lower.data(), tap.share);
  }
}

}  // namespace

ImageSize target_size(int height, int width, int shorter, int longer) {
  SHRIKE_CHECK(height > 0 && width > 0 && shorter > 0 && longer > 0, "target size of ", width, "x", height,
               " pixels for sides of ", shorter, " and at most ", longer, ": all must be positive");
  // As torchvision from 0.15 on: in double, so that the wanted side comes out as it is wanted but where its own product rounds
  // down.
  const auto ratio = [](int wanted, int have) { return static_cast<double>(wanted) / have; };
  const double scale = std::min(ratio(shorter, std::min(height, width)), ratio(longer, std::max(height, width)));
  const auto side = [&](int size) { return std::max(1, static_cast<int>(std::floor(size * scale))); };
  return {side(height), side(width)};
}

Image resize(const Image& image, int height, int width) {
  Image result = make_image(height, width);
  const std::size_t n = static_cast<std::size_t>(width) * 3;
  interpolate(image, height, width, false,
              [&](int y, const float* __restrict upper, const float* __restrict lower, float share) {
                std::uint8_t* __restrict to = result.pixel(y, 0);
                for (std::size_t i = 0; i < n; ++i) {
                  to[i] = static_cast<std::uint8_t>(static_cast<int>(upper[i] + (lower[i] - upper[i]) * share + 0.5f));
                }
              });
  return result;
}

void resize_normalize(const Image& image, int height, int width, const Normalization& normalization, bool mirror, float* out,
                      std::int64_t row_stride) {
  SHRIKE_CHECK(row_stride >= std::int64_t{3} * width, "rows of ", width, " pixels ", row_stride, " floats apart: expected ",
               std::int64_t{3} * width, " or more");
  std::array<float, 3> gain{}, offset{};  // in the output's channel order
  for (std::size_t c = 0; c < 3; ++c) {
    SHRIKE_CHECK(normalization.std[c] > 0, "standard deviation ", normalization.std[c], " of channel ", c,
                 ": must be positive");
    gain[c] = normalization.scale / normalization.std[c];
    offset[c] = -normalization.mean[c] / normalization.std[c];
  }
  const int red = normalization.bgr ? 2 : 0;
  // Gain and offset repeated along a row, so that the loop over a row has no channels in it and becomes vector code.
  const std::size_t n = static_cast<std::size_t>(width) * 3;
  std::vector<float> gains(n), offsets(n);
  for (std::size_t i = 0; i < n; ++i) {
    gains[i] = gain[i % 3];
    offsets[i] = offset[i % 3];
  }
  interpolate(image, height, width, mirror, [&](int y, const float* upper, const float* lower, float share) {
    float* __restrict to = out + row_stride * y;
    if (red == 0) {
      const float* __restrict g = gains.data();
      const float* __restrict o = offsets.data();
      for (std::size_t i = 0; i < n; ++i) to[i] = (upper[i] + (lower[i] - upper[i]) * share) * g[i] + o[i];
    } else {
      for (std::size_t i = 0; i < n; i += 3) {
        for (std::size_t c = 0; c < 3; ++c) {
          to[i + c] = (upper[i + 2 - c] + (lower[i + 2 - c] - upper[i + 2 - c]) * share) * gain[c] + offset[c];
        }
      }
    }
  });
}

}  // namespace shrike
