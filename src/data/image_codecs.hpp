// What the image decoders share. Not part of the library's interface.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "shrike/data/image.hpp"

namespace shrike::codecs {

using Bytes = std::span<const std::uint8_t>;

// Throws Error unless a picture of this size is within the limits.
void check_size(std::int64_t height, std::int64_t width, const std::string& name);

// Each expects its own kind of file, and applies EXIF's orientation where the format has it.
Image decode_jpeg(Bytes bytes, const std::string& name);
Image decode_png(Bytes bytes, const std::string& name);
Image decode_bmp(Bytes bytes, const std::string& name);

// Orientation 1 to 8 from a TIFF block (the contents of PNG's eXIf, or of JPEG's APP1 after "Exif\0\0"); 1 when it has none
// or is malformed. Reads nothing but the first directory.
int exif_orientation(Bytes tiff);

inline std::uint32_t big32(const std::uint8_t* p) {
  return std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 | std::uint32_t{p[2]} << 8 | p[3];
}
inline std::uint32_t little16(const std::uint8_t* p) { return std::uint32_t{p[0]} | std::uint32_t{p[1]} << 8; }
inline std::uint32_t little32(const std::uint8_t* p) { return little16(p) | little16(p + 2) << 16; }

}  // namespace shrike::codecs
