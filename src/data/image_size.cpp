#include "shrike/data/image_size.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "image_codecs.hpp"
#include "shrike/core/check.hpp"
#include "shrike/io/file.hpp"

namespace shrike {
namespace {

// Bytes of the file, zeros where it has ended: no valid header has zeros there.
template <std::size_t n> std::array<std::uint8_t, n> bytes_at(const InputFile& file, std::uint64_t offset) {
  std::array<std::uint8_t, n> bytes{};
  if (offset < file.size()) file.read(offset, bytes.data(), std::min<std::uint64_t>(n, file.size() - offset));
  return bytes;
}

ImageSize upright(ImageSize size, int orientation) {
  if (orientation >= 5) std::swap(size.height, size.width);
  return size;
}

// ITU T.81, annex B: segments of a marker and a length, up to the frame header (SOF0 to SOF15).
std::optional<ImageSize> jpeg_size(const InputFile& file) {
  int orientation = 0;
  for (std::uint64_t at = 2; at < file.size();) {
    const auto head = bytes_at<10>(file, at);
    const unsigned marker = head[1];
    if (head[0] != 0xff) return std::nullopt;
    if (marker == 0xff || marker == 0x01) {  // fill byte, TEM
      at += marker == 0xff ? 1 : 2;
      continue;
    }
    const std::size_t length = std::size_t{head[2]} << 8 | head[3];
    if (marker < 0xc0 || (marker >= 0xd0 && marker <= 0xda) || length < 2) return std::nullopt;
    const bool frame = marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (frame) return upright({head[5] << 8 | head[6], head[7] << 8 | head[8]}, orientation);
    if (marker == 0xe1 && orientation == 0 && length > 8 && std::memcmp(&head[4], "Exif\0", 6) == 0) {
      std::vector<std::uint8_t> tiff(std::min<std::uint64_t>(length - 8, file.size() - std::min(file.size(), at + 10)));
      file.read(at + 10, tiff.data(), tiff.size());
      orientation = codecs::exif_orientation(tiff);
    }
    at += 2 + length;
  }
  return std::nullopt;
}

// PNG specification: IHDR comes first; eXIf may stand anywhere behind it.
std::optional<ImageSize> png_size(const InputFile& file) {
  const auto header = bytes_at<16>(file, 8);
  const std::uint32_t width = codecs::big32(&header[8]), height = codecs::big32(&header[12]);
  if (std::memcmp(&header[4], "IHDR", 4) != 0 || width > max_image_side || height > max_image_side) return std::nullopt;
  const ImageSize size{static_cast<int>(height), static_cast<int>(width)};
  int orientation = 1;
  for (std::uint64_t at = 8; at < file.size();) {
    const auto head = bytes_at<8>(file, at);
    const std::uint32_t length = codecs::big32(head.data());
    if (std::memcmp(&head[4], "eXIf", 4) == 0 && length <= 65536 && at + 8 + length <= file.size()) {
      std::vector<std::uint8_t> tiff(length);
      file.read(at + 8, tiff.data(), tiff.size());
      orientation = codecs::exif_orientation(tiff);
    }
    at += std::uint64_t{12} + length;
  }
  return upright(size, orientation);
}

}  // namespace

ImageSize read_image_size(const std::string& path) {
  std::optional<ImageSize> size;
  {
    const InputFile file(path);
    const auto magic = bytes_at<8>(file, 0);
    if (magic[0] == 0xff && magic[1] == 0xd8) size = jpeg_size(file);
    if (std::memcmp(magic.data(), "\x89PNG\r\n\x1a\n", 8) == 0) size = png_size(file);
  }
  if (size && size->height > 0 && size->width > 0) {
    codecs::check_size(size->height, size->width, path);
    return *size;
  }
  const Image image = read_image(path);
  return {image.height, image.width};
}

}  // namespace shrike
