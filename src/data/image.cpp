// Pictures: which decoder, files, orientation.
#include "shrike/data/image.hpp"

#include <algorithm>
#include <cstring>

#include "image_codecs.hpp"
#include "shrike/core/check.hpp"
#include "shrike/io/file.hpp"

namespace shrike {
namespace {

bool begins_with(std::span<const std::uint8_t> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

// What a file that cannot be decoded looks like, for the message.
std::string describe(std::span<const std::uint8_t> bytes) {
  if (begins_with(bytes, "GIF8")) return "a GIF";
  if (begins_with(bytes, "RIFF")) return "a WebP or other RIFF file";
  if (begins_with(bytes, "II*") || begins_with(bytes, {"MM\0*", 4})) return "a TIFF";
  if (begins_with(bytes, "version https://git-lfs")) return "a Git LFS pointer";
  std::string text = "a file that begins with bytes";
  for (std::size_t i = 0; i < std::min<std::size_t>(bytes.size(), 4); ++i) {
    text += ' ';
    text += "0123456789abcdef"[bytes[i] >> 4];
    text += "0123456789abcdef"[bytes[i] & 15];
  }
  return text;
}

std::string extension(const std::string& path) {
  const std::size_t dot = path.find_last_of("./");
  if (dot == std::string::npos || path[dot] == '/') return "";
  std::string result = path.substr(dot);
  for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return result;
}

}  // namespace

namespace codecs {

void check_size(std::int64_t height, std::int64_t width, const std::string& name) {
  SHRIKE_CHECK(height > 0 && width > 0, name, ": the image is ", width, "x", height, " pixels: no side may be 0");
  SHRIKE_CHECK(height <= max_image_side && width <= max_image_side, name, ": the image is ", width, "x", height,
               " pixels: a side may have at most ", max_image_side);
  SHRIKE_CHECK(height * width <= max_image_pixels, name, ": the image is ", width, "x", height, " pixels: at most ",
               max_image_pixels / 1'000'000, " million are accepted");
}

}  // namespace codecs

Image make_image(int height, int width) {
  codecs::check_size(height, width, "a new image");
  Image image{height, width, {}};
  image.rgb.resize(static_cast<std::size_t>(height) * width * 3);
  return image;
}

Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name) {
  SHRIKE_CHECK(!bytes.empty(), name, ": the file is empty: expected a JPEG, PNG or BMP image");
  SHRIKE_CHECK(bytes.size() <= max_image_file_bytes, name, ": ", bytes.size(), " bytes: at most ", max_image_file_bytes,
               " are accepted for an image");
  if (begins_with(bytes, "\xff\xd8")) return codecs::decode_jpeg(bytes, name);
  if (begins_with(bytes, "\x89PNG\r\n\x1a\n")) return codecs::decode_png(bytes, name);
  if (begins_with(bytes, "BM")) return codecs::decode_bmp(bytes, name);
  fail(name, ": expected a JPEG, PNG or BMP image, found ", describe(bytes));
}

Image decode_image(std::string_view bytes, const std::string& name) {
  return decode_image({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, name);
}

Image read_image(const std::string& path) { return decode_image(read_file(path, max_image_file_bytes), path); }

void write_image(const std::string& path, const Image& image) {
  const std::string kind = extension(path);
  SHRIKE_CHECK(kind == ".png" || kind == ".jpg" || kind == ".jpeg", path,
               ": the extension of an image to write must be .png, .jpg or .jpeg");
  write_file_atomically(path, kind == ".png" ? encode_png(image) : encode_jpeg(image));
}

Image flip(const Image& image) { return apply_orientation(image, 2); }

Image apply_orientation(Image image, int orientation) {
  SHRIKE_CHECK(orientation >= 1 && orientation <= 8, "orientation ", orientation, ": EXIF has 1 to 8");
  if (orientation == 1) return image;
  // Seen from the upright picture: 5 to 8 exchange rows and columns, then rows or columns are read backwards.
  const bool exchange = orientation >= 5;
  const bool rows_backwards = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool columns_backwards = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  Image result{exchange ? image.width : image.height, exchange ? image.height : image.width, {}};
  result.rgb.resize(image.rgb.size());
  for (int y = 0; y < result.height; ++y) {
    std::uint8_t* to = result.pixel(y, 0);
    for (int x = 0; x < result.width; ++x, to += 3) {
      const int row = exchange ? x : y;
      const int column = exchange ? y : x;
      const std::uint8_t* from =
          image.pixel(rows_backwards ? image.height - 1 - row : row, columns_backwards ? image.width - 1 - column : column);
      to[0] = from[0];
      to[1] = from[1];
      to[2] = from[2];
    }
  }
  return result;
}

}  // namespace shrike
