// PNG. The file's structure is checked here (PNG specification, 2nd edition: order, lengths, checksums), then stb_image
// inflates and unfilters a copy that holds nothing but the chunks the pixels need. stb_image itself checks neither checksums
// nor how far a small file inflates, and reads palette entries that were never stored.
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "image_codecs.hpp"
#include "shrike/core/check.hpp"

namespace {

// stb_image's memory, no block of it greater than what the picture can need.
thread_local std::size_t allocation_limit = 0;

void* limited_allocate(std::size_t bytes) { return bytes <= allocation_limit ? std::malloc(bytes) : nullptr; }
void* limited_reallocate(void* block, std::size_t bytes) {
  return bytes <= allocation_limit ? std::realloc(block, bytes) : nullptr;
}

}  // namespace

#define STBI_MALLOC(bytes) limited_allocate(bytes)
#define STBI_REALLOC(block, bytes) limited_reallocate(block, bytes)
#define STBI_FREE(block) std::free(block)
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>

namespace shrike::codecs {
namespace {

constexpr std::string_view signature = "\x89PNG\r\n\x1a\n";

std::uint32_t crc32(Bytes bytes) {
  static constexpr auto table = [] {
    std::array<std::uint32_t, 256> values{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = (c & 1 ? 0xedb88320u : 0u) ^ (c >> 1);
      values[i] = c;
    }
    return values;
  }();
  std::uint32_t crc = 0xffffffffu;
  for (const std::uint8_t byte : bytes) crc = table[(crc ^ byte) & 255] ^ (crc >> 8);
  return ~crc;
}

#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
constexpr bool verify_checksums = false;  // a fuzzer would never get past them
#else
constexpr bool verify_checksums = true;
#endif

struct Header {
  std::uint32_t width, height;
  int depth, color;

  int channels() const { return color == 2 ? 3 : color == 4 ? 2 : color == 6 ? 4 : 1; }
};

Header read_header(Bytes data, const std::string& name) {
  SHRIKE_CHECK(data.size() == 13, name, ": corrupt PNG: a header of ", data.size(), " bytes: expected 13");
  const Header header{big32(&data[0]), big32(&data[4]), data[8], data[9]};
  check_size(header.height, header.width, name);
  const int depth = header.depth, color = header.color;
  const bool whole = depth == 8 || depth == 16;
  const bool part = depth == 1 || depth == 2 || depth == 4;
  const bool valid = (color == 0 && (whole || part)) || (color == 3 && (depth == 8 || part)) ||
                     ((color == 2 || color == 4 || color == 6) && whole);
  SHRIKE_CHECK(valid && data[10] == 0 && data[11] == 0 && data[12] <= 1, name, ": corrupt PNG: colour type ", color, ", ",
               depth, " bits, compression ", int{data[10]}, ", filter ", int{data[11]}, ", interlace ", int{data[12]});
  return header;
}

// A chunk as stb_image wants it; it skips the checksum.
void append(std::vector<std::uint8_t>& to, std::string_view type, Bytes data) {
  const auto length = static_cast<std::uint32_t>(data.size());
  for (int shift = 24; shift >= 0; shift -= 8) to.push_back(static_cast<std::uint8_t>(length >> shift));
  to.insert(to.end(), type.begin(), type.end());
  to.insert(to.end(), data.begin(), data.end());
  to.insert(to.end(), 4, 0);
}

}  // namespace

Image decode_png(Bytes bytes, const std::string& name) {
  std::vector<std::uint8_t> essence(signature.begin(), signature.end());
  essence.reserve(bytes.size() + 1024);
  Header header{};
  std::array<std::uint8_t, 768> palette{};
  std::size_t compressed = 0;
  int orientation = 1;
  bool have_palette = false, pixels_ended = false, ended = false;

  for (std::size_t at = signature.size(); !ended;) {
    const bool first = at == signature.size();
    SHRIKE_CHECK(bytes.size() - at >= 12, name, ": the PNG file is cut short after ", bytes.size(), " bytes");
    const std::uint32_t length = big32(&bytes[at]);
    SHRIKE_CHECK(length <= bytes.size() - at - 12, name, ": the PNG file is cut short: a chunk of ", length, " bytes at byte ",
                 at, " of ", bytes.size());
    const std::string_view type(reinterpret_cast<const char*>(&bytes[at + 4]), 4);
    const Bytes data = bytes.subspan(at + 8, length);
    SHRIKE_CHECK(!verify_checksums || crc32(bytes.subspan(at + 4, length + 4)) == big32(&bytes[at + 8 + length]), name,
                 ": corrupt PNG: the checksum of the chunk at byte ", at, " does not match");
    SHRIKE_CHECK(first == (type == "IHDR"), name, ": corrupt PNG: the header is not where it belongs, at the chunk of byte ",
                 at);
    if (type == "IHDR") {
      header = read_header(data, name);
      append(essence, type, data);
    } else if (type == "PLTE") {
      SHRIKE_CHECK(!have_palette && compressed == 0 && length > 0 && length <= 768 && length % 3 == 0, name,
                   ": corrupt PNG: a palette of ", length, " bytes at byte ", at);
      have_palette = true;
      std::copy(data.begin(), data.end(), palette.begin());
    } else if (type == "IDAT") {
      SHRIKE_CHECK(header.color != 3 || have_palette, name, ": corrupt PNG: colours without a palette");
      SHRIKE_CHECK(!pixels_ended, name, ": corrupt PNG: pixels in two places, again at byte ", at);
      if (compressed == 0 && header.color == 3) append(essence, "PLTE", palette);
      append(essence, type, data);
      compressed += length;
    } else if (type == "eXIf") {
      orientation = exif_orientation(data);
    } else if (type == "IEND") {
      ended = true;
      append(essence, type, {});
    } else {
      SHRIKE_CHECK((bytes[at + 4] & 0x20) != 0, name, ": corrupt PNG: an unknown critical chunk at byte ", at);
    }
    pixels_ended = pixels_ended || (compressed > 0 && type != "IDAT");
    at += 12 + length;
  }

  // Deflate makes at most 1032 bytes of one.
  const std::size_t row_bytes = (std::size_t{header.width} * header.channels() * header.depth + 7) / 8;
  const std::size_t filtered = (row_bytes + 1) * header.height;
  SHRIKE_CHECK(filtered <= compressed * 1032 + 1024, name, ": corrupt PNG: ", compressed, " compressed bytes cannot hold ",
               header.width, "x", header.height, " pixels");

  allocation_limit = std::max(2 * filtered, std::size_t{header.width} * header.height * 8) + (64u << 10);
  int width = 0, height = 0, channels = 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(essence.data(), static_cast<int>(essence.size()), &width, &height, &channels, 3), std::free);
  SHRIKE_CHECK(pixels, name, ": corrupt PNG: ", stbi_failure_reason());
  Image image{height, width, {}};
  image.rgb.assign(pixels.get(), pixels.get() + static_cast<std::size_t>(height) * width * 3);
  return apply_orientation(std::move(image), orientation);
}

}  // namespace shrike::codecs

namespace shrike {

std::string encode_png(const Image& image) {
  codecs::check_size(image.height, image.width, "an image to encode");
  SHRIKE_CHECK(image.rgb.size() == static_cast<std::size_t>(image.height) * image.width * 3, "an image of ", image.width, "x",
               image.height, " pixels has ", image.rgb.size(), " bytes");
  int length = 0;
  const std::unique_ptr<unsigned char, void (*)(void*)> bytes(
      stbi_write_png_to_mem(image.rgb.data(), image.width * 3, image.width, image.height, 3, &length), std::free);
  SHRIKE_CHECK(bytes, "no memory to encode an image of ", image.width, "x", image.height, " pixels as PNG");
  return {reinterpret_cast<const char*>(bytes.get()), static_cast<std::size_t>(length)};
}

}  // namespace shrike
