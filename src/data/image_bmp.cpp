// Uncompressed Windows bitmaps of 1, 4, 8, 24 or 32 bits a pixel.
#include <array>

#include "image_codecs.hpp"
#include "shrike/core/check.hpp"

namespace shrike::codecs {

Image decode_bmp(Bytes bytes, const std::string& name) {
  constexpr std::size_t file_header = 14;
  SHRIKE_CHECK(bytes.size() >= file_header + 12, name, ": the BMP file ends inside its header, after ", bytes.size(), " bytes");
  const std::size_t pixels_at = little32(&bytes[10]);
  const std::size_t header = little32(&bytes[14]);
  const bool core = header == 12;  // OS/2's, with 16-bit sides
  SHRIKE_CHECK(core || (header >= 40 && header <= 124), name, ": a BMP header of ", header,
               " bytes: 12 or 40 to 124 are supported");
  SHRIKE_CHECK(bytes.size() >= file_header + header, name, ": the BMP file ends inside its header, after ", bytes.size(),
               " bytes");

  const std::int64_t width = core ? little16(&bytes[18]) : static_cast<std::int32_t>(little32(&bytes[18]));
  const std::int64_t signed_height = core ? little16(&bytes[20]) : static_cast<std::int32_t>(little32(&bytes[22]));
  const std::uint32_t bits = little16(&bytes[core ? 24 : 28]);
  const std::uint32_t compression = core ? 0 : little32(&bytes[30]);
  const bool from_top = signed_height < 0;
  const std::int64_t height = from_top ? -signed_height : signed_height;
  check_size(height, width, name);

  // Bit fields are accepted where they say what 32 bits without them mean anyway.
  std::size_t palette_at = file_header + header;
  bool plain = compression == 0;
  if (compression == 3 && bits == 32 && bytes.size() >= 66) {
    plain = little32(&bytes[54]) == 0xff0000 && little32(&bytes[58]) == 0xff00 && little32(&bytes[62]) == 0xff;
  }
  SHRIKE_CHECK(plain, name, ": BMP compression ", compression, " with ", bits, " bits a pixel is not supported");
  SHRIKE_CHECK(bits == 1 || bits == 4 || bits == 8 || bits == 24 || bits == 32, name, ": a BMP of ", bits,
               " bits a pixel: 1, 4, 8, 24 and 32 are supported");

  const std::size_t stride = (static_cast<std::size_t>(width) * bits + 31) / 32 * 4;
  SHRIKE_CHECK(pixels_at >= palette_at && pixels_at <= bytes.size() && bytes.size() - pixels_at >= stride * height, name,
               ": the BMP file has ", bytes.size(), " bytes: expected ", stride * height, " for the pixels from byte ",
               pixels_at, " on");

  std::array<std::array<std::uint8_t, 3>, 256> palette{};
  std::size_t colors = 0;
  if (bits <= 8) {
    colors = core ? 0 : little32(&bytes[46]);
    if (colors == 0) colors = std::size_t{1} << bits;
    const std::size_t entry = core ? 3 : 4;
    SHRIKE_CHECK(colors <= (std::size_t{1} << bits) && palette_at + colors * entry <= pixels_at, name, ": a BMP palette of ",
                 colors, " colours does not fit before the pixels at byte ", pixels_at);
    for (std::size_t i = 0; i < colors; ++i) {
      const std::uint8_t* bgr = &bytes[palette_at + i * entry];
      palette[i] = {bgr[2], bgr[1], bgr[0]};
    }
  }

  Image image = make_image(static_cast<int>(height), static_cast<int>(width));
  for (int y = 0; y < image.height; ++y) {
    const std::uint8_t* row = &bytes[pixels_at + stride * static_cast<std::size_t>(from_top ? y : image.height - 1 - y)];
    std::uint8_t* to = image.pixel(y, 0);
    for (std::size_t x = 0; x < static_cast<std::size_t>(width); ++x, to += 3) {
      if (bits <= 8) {
        const std::size_t bit = x * bits;
        const std::size_t index = (row[bit / 8] >> (8 - bits - bit % 8)) & ((1u << bits) - 1);
        SHRIKE_CHECK(index < colors, name, ": pixel (", x, ", ", y, ") has colour ", index, " of a palette of ", colors);
        to[0] = palette[index][0];
        to[1] = palette[index][1];
        to[2] = palette[index][2];
      } else {
        const std::uint8_t* bgr = row + x * (bits / 8);
        to[0] = bgr[2];
        to[1] = bgr[1];
        to[2] = bgr[0];
      }
    }
  }
  return image;
}

}  // namespace shrike::codecs
