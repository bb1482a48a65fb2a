// Pictures in memory: decoded from files and encoded to them, resized, flipped, jittered. Nothing here starts a thread; the
// loader calls these functions from its own threads.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shrike/core/random.hpp"

namespace shrike {

// 8-bit RGB, rows from the top, [height, width, 3] without padding.
struct Image {
  int height = 0;
  int width = 0;
  std::vector<std::uint8_t> rgb;

  std::uint8_t* pixel(int y, int x) { return rgb.data() + (static_cast<std::size_t>(y) * width + x) * 3; }
  const std::uint8_t* pixel(int y, int x) const { return rgb.data() + (static_cast<std::size_t>(y) * width + x) * 3; }
};

// Larger pictures are refused before memory is asked for.
inline constexpr int max_image_side = 65500;
inline constexpr std::int64_t max_image_pixels = 100'000'000;
inline constexpr std::uint64_t max_image_file_bytes = 512ull << 20;

// A black picture. Throws Error unless both sides are in [1, max_image_side] and the area is at most max_image_pixels.
Image make_image(int height, int width);

// Decodes a JPEG (grey, RGB, CMYK; baseline or progressive), PNG (every kind; 16 bits keep the upper 8) or uncompressed BMP,
// told apart by content. Alpha is dropped: colours come out as they are stored, as with PIL's convert("RGB"). The orientation
// in EXIF is applied, so the picture is upright. Throws Error, one line beginning with `name`, on anything else, on damage
// (a JPEG or PNG cut short included) and beyond the limits above.
Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name);
Image decode_image(std::string_view bytes, const std::string& name);

// decode_image of the file at `path`.
Image read_image(const std::string& path);

// The file's bytes. `quality` is libjpeg's, 1 to 100. Throw Error when the picture is empty or its fields disagree.
std::string encode_png(const Image& image);
std::string encode_jpeg(const Image& image, int quality = 90);

// Writes a PNG or JPEG by the extension of `path` (.png, .jpg, .jpeg), atomically. Throws Error when that fails.
void write_image(const std::string& path, const Image& image);

// The mirror image, left and right exchanged.
Image flip(const Image& image);

// Turns stored pixels upright; `orientation` is EXIF's, 1 to 8.
Image apply_orientation(Image image, int orientation);

// Size after scaling so that the shorter side becomes `shorter`, unless the longer would exceed `longer`: then that becomes
// `longer`. Sides are rounded down as torchvision's GeneralizedRCNNTransform does, and are at least 1.
struct ImageSize {
  int height = 0;
  int width = 0;
  float scale = 1;  // pixels here for one of the image as stored, where somebody says so
  friend bool operator==(const ImageSize&, const ImageSize&) = default;
};
ImageSize target_size(int height, int width, int shorter, int longer);

// How pixels become a network's input: (value * scale - mean[c]) / std[c], channels in the order of mean and std.
struct Normalization {
  std::array<float, 3> mean{0.485f, 0.456f, 0.406f};  // ImageNet, RGB in [0, 1]
  std::array<float, 3> std{0.229f, 0.224f, 0.225f};
  float scale = 1.0f / 255.0f;
  bool bgr = false;  // channel 0 is blue

  // The greatest absolute value that a pixel can have.
  float reach() const {
    float greatest = 0;
    for (std::size_t c = 0; c < 3; ++c) {
      greatest = std::max({greatest, std::abs(mean[c] / std[c]), std::abs((255 * scale - mean[c]) / std[c])});
    }
    return greatest;
  }

  // Weights that came from Caffe (py-faster-rcnn): BGR in [0, 255], means subtracted.
  static Normalization caffe() { return {{102.9801f, 115.9465f, 122.7717f}, {1, 1, 1}, 1.0f, true}; }
};

// Bilinear resize as torch.nn.functional.interpolate(mode="bilinear", align_corners=False) defines it: no antialiasing.
// This one rounds to the nearest of 0..255.
Image resize(const Image& image, int height, int width);

// Resizes likewise, optionally mirrors, normalises, and writes `height` rows of `width` float pixels [R, G, B] or [B, G, R],
// `row_stride` floats apart (at least width * 3), so that a picture can land in a larger padded batch.
void resize_normalize(const Image& image, int height, int width, const Normalization& normalization, bool mirror, float* out,
                      std::int64_t row_stride);

// Colour changes, definitions as in torchvision.transforms.functional for uint8. A factor of 1 (hue: a shift of 0) changes
// nothing.
void adjust_brightness(Image& image, float factor);
void adjust_contrast(Image& image, float factor);    // away from the mean grey
void adjust_saturation(Image& image, float factor);  // away from each pixel's grey
void adjust_hue(Image& image, float shift);          // in turns of the colour circle, [-0.5, 0.5]

// Ranges of random colour changes: factors are drawn from [max(0, 1 - v), 1 + v], the hue shift from [-hue, hue].
// `probability` is that of each change being made.
struct Jitter {
  float brightness = 0;
  float contrast = 0;
  float saturation = 0;
  float hue = 0;
  float probability = 1;

  // Photometric distortion of SSD (Liu et al. 2016), the ranges torchvision uses for it.
  static Jitter ssd() { return {0.125f, 0.5f, 0.5f, 0.05f, 0.5f}; }
};

// Makes the changes in random order. Draws the same count of random numbers whatever the ranges.
void jitter(Image& image, const Jitter& ranges, Random& random);

}  // namespace shrike
