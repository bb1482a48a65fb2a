// Decoding against Pillow, resizing and colour changes against PyTorch and torchvision (tests/golden/image_golden.py), damage,
// limits, round trips.
#include "shrike/data/image.hpp"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <jpeglib.h>

#include "catch.hpp"
#include "shrike/core/check.hpp"
#include "shrike/io/file.hpp"

using namespace shrike;

namespace {

std::string golden(const std::string& name) {
  const char* folder = std::getenv("SHRIKE_GOLDEN");
  return std::string(folder ? folder : "tests/golden") + "/" + name;
}

std::string image_bytes(const std::string& name) { return read_file(golden("images/" + name), 1 << 20); }

std::vector<std::uint8_t> from_hex(const std::string& hex) {
  std::vector<std::uint8_t> bytes;
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::uint8_t>(digit(hex[i]) * 16 + digit(hex[i + 1])));
  }
  return bytes;
}

// Calls f with the rest of each golden line of a kind; returns how many there were.
template <class F> int each_golden(const std::string& kind, const F& f) {
  std::ifstream file(golden("image_golden.txt"));
  REQUIRE(file);
  int count = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word != kind) continue;
    f(words);
    ++count;
  }
  return count;
}

double mean_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(int{a[i]} - int{b[i]});
  return sum / static_cast<double>(a.size());
}

int greatest_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  REQUIRE(a.size() == b.size());
  int greatest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) greatest = std::max(greatest, std::abs(int{a[i]} - int{b[i]}));
  return greatest;
}

Image random_image(int height, int width, Random& random) {
  Image image = make_image(height, width);
  for (std::uint8_t& value : image.rgb) value = static_cast<std::uint8_t>(random.below(256));
  return image;
}

Image smooth_image(int height, int width) {
  Image image = make_image(height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      image.pixel(y, x)[0] = static_cast<std::uint8_t>(255 * x / width);
      image.pixel(y, x)[1] = static_cast<std::uint8_t>(255 * y / height);
      image.pixel(y, x)[2] = static_cast<std::uint8_t>(128 + 60 * std::sin(x / 9.0));
    }
  }
  return image;
}

// The message of the Error that decoding throws; "" when it throws none.
std::string decode_error(const std::string& bytes) {
  try {
    decode_image(bytes, "some/file.jpg");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool one_line_naming_the_file(const std::string& message) {
  return message.rfind("some/file.jpg: ", 0) == 0 && message.find('\n') == std::string::npos;
}

std::string temporary_folder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "shrike_image_XXXXXX").string();
  REQUIRE(mkdtemp(pattern.data()));
  return pattern;
}

}  // namespace

TEST_CASE("Pictures decode to the pixels Pillow sees, upright") {
  const int count = each_golden("pixels", [](std::istringstream& words) {
    std::string name, hex;
    int height = 0, width = 0;
    words >> name >> height >> width >> hex;
    INFO(name);
    const Image image = read_image(golden("images/" + name));
    CHECK(image.height == height);
    CHECK(image.width == width);
    const std::vector<std::uint8_t> expected = from_hex(hex);
    const bool lossless = name.find(".jpg") == std::string::npos || name == "png_inside.jpg";
    if (lossless) {
      CHECK(image.rgb == expected);
    } else {
      CHECK(mean_difference(image.rgb, expected) < 0.5);
      CHECK(greatest_difference(image.rgb, expected) <= 4);
    }
  });
  CHECK(count >= 30);
}

TEST_CASE("The eight orientations agree with their description in EXIF") {
  Image stored = make_image(2, 3);  // a b c / d e f
  for (std::size_t i = 0; i < 6; ++i) stored.rgb[3 * i] = static_cast<std::uint8_t>('a' + i);
  const char* upright[] = {"abcdef", "cbafed", "fedcba", "defabc", "adbecf", "daebfc", "fcebda", "cfbead"};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const Image image = apply_orientation(stored, orientation);
    std::string seen;
    for (std::size_t i = 0; i < 6; ++i) seen += static_cast<char>(image.rgb[3 * i]);
    CHECK(seen == upright[orientation - 1]);
    CHECK(image.height == (orientation < 5 ? 2 : 3));
  }
  CHECK_THROWS_AS(apply_orientation(stored, 0), Error);
  CHECK_THROWS_AS(apply_orientation(stored, 9), Error);
}

TEST_CASE("PNG keeps every pixel, JPEG nearly") {
  Random random(1, RandomStream::test);
  for (const auto& [height, width] : {std::pair{1, 1}, {1, 77}, {61, 1}, {40, 53}}) {
    const Image image = random_image(height, width, random);
    const Image back = decode_image(encode_png(image), "memory");
    CHECK(back.height == height);
    CHECK(back.width == width);
    CHECK(back.rgb == image.rgb);
  }
  const Image image = smooth_image(64, 80);
  CHECK(mean_difference(decode_image(encode_jpeg(image), "memory").rgb, image.rgb) < 2);
  CHECK(encode_jpeg(image, 30).size() < encode_jpeg(image, 95).size());
  CHECK_THROWS_AS(encode_jpeg(image, 0), Error);
  CHECK_THROWS_AS(encode_png(Image{}), Error);
  CHECK_THROWS_AS(encode_jpeg(Image{3, 3, {1, 2}}), Error);
}

TEST_CASE("Pictures are written by extension") {
  const std::string folder = temporary_folder();
  const Image image = smooth_image(20, 30);
  write_image(folder + "/a.png", image);
  write_image(folder + "/b.JPG", image);
  CHECK(read_image(folder + "/a.png").rgb == image.rgb);
  CHECK(mean_difference(read_image(folder + "/b.JPG").rgb, image.rgb) < 2);
  CHECK_THROWS_WITH(write_image(folder + "/c.gif", image), Catch::Contains("c.gif") && Catch::Contains(".png"));
  CHECK_THROWS_WITH(write_image(folder + "/none/c.png", image), Catch::Contains("none"));
  CHECK_THROWS_WITH(read_image(folder + "/missing.jpg"), Catch::Contains("missing.jpg"));
  CHECK_THROWS_AS(read_image(folder), Error);
  std::filesystem::remove_all(folder);
}

TEST_CASE("A file cut short anywhere is an error that names it") {
  for (const char* name : {"rgb_420.jpg", "progressive.jpg", "grey.jpg", "cmyk_adobe.jpg", "palette.png", "rgb_16bit.png",
                           "rgb.bmp", "palette.bmp"}) {
    const std::string bytes = image_bytes(name);
    REQUIRE(decode_error(bytes).empty());
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      const std::string message = decode_error(bytes.substr(0, length));
      if (!one_line_naming_the_file(message)) FAIL_CHECK(name << " cut to " << length << ": '" << message << "'");
    }
  }
}

TEST_CASE("A damaged byte never crashes, and in a PNG is always found") {
  Random random(2, RandomStream::test);
  for (const char* name : {"rgb_420.jpg", "progressive.jpg", "cmyk_adobe.jpg", "orientation_big_endian.jpg", "palette.png",
                           "interlaced.png", "grey_alpha.png", "palette.bmp", "bits_1.bmp"}) {
    const std::string bytes = image_bytes(name);
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ static_cast<char>(1 + random.below(255)));
      const std::string message = decode_error(damaged);
      const bool png = std::string(name).find(".png") != std::string::npos;
      const bool fine = message.empty() ? !png : one_line_naming_the_file(message);
      if (!fine) FAIL_CHECK(name << " damaged at " << at << ": '" << message << "'");
    }
  }
}

TEST_CASE("Files that are no pictures are refused in one line") {
  CHECK_THAT(decode_error(""), Catch::Contains("empty"));
  CHECK_THAT(decode_error("hello, this is text\n"),
             Catch::Contains("expected a JPEG, PNG or BMP image") && Catch::Contains("68 65 6c 6c"));
  CHECK_THAT(decode_error("GIF89a......."), Catch::Contains("GIF"));
  for (const char* text : {"x", "BM", "\xff\xd8", "\xff\xd8\xff", "\x89PNG\r\n\x1a\n", "\xff\xd8\xff\xd9", "II*"}) {
    CHECK(one_line_naming_the_file(decode_error(text)));
  }
}

TEST_CASE("Headers that claim too much are refused before memory is asked for") {
  std::string jpeg = image_bytes("rgb_444.jpg");
  const std::size_t frame = jpeg.find("\xff\xc0");
  REQUIRE(frame != std::string::npos);
  const auto with_size = [&](const char* size) { return std::string(jpeg).replace(frame + 5, 4, std::string(size, 4)); };
  CHECK_THAT(decode_error(with_size("\xff\xff\xff\xff")), Catch::Contains("65535x65535") || Catch::Contains("65500"));
  CHECK_THAT(decode_error(with_size("\xff\xdc\xff\xdc")), Catch::Contains("65500x65500") && Catch::Contains("100 million"));
  CHECK_THAT(decode_error(with_size("\x27\x10\x27\x10")), Catch::Contains("cannot hold 10000x10000"));

  std::string bmp = image_bytes("rgb.bmp");
  CHECK_THAT(decode_error(std::string(bmp).replace(18, 8, std::string("\x20\x4e\0\0\x20\x4e\0\0", 8))),
             Catch::Contains("20000x20000"));
  CHECK_THAT(decode_error(std::string(bmp).replace(22, 4, std::string("\0\0\0\x80", 4))), Catch::Contains("2147483648"));

  // A valid PNG header of 65535 x 65535 pixels, checksum included.
  const std::string png =
      std::string("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0\x39\x67\x4e\x07", 33);
  CHECK_THAT(decode_error(png + std::string(12, '\0')), Catch::Contains("65535x65535"));
}

TEST_CASE("A progressive file of many scans is refused") {
  // Valid, but each of the 63 frequencies of each component has a scan of its own.
  const auto encode = [](int scans_each) {
    Image image = smooth_image(8, 8);
    jpeg_compress_struct info{};
    jpeg_error_mgr errors{};
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    unsigned char* bytes = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&info, &bytes, &size);
    info.image_height = info.image_width = 8;
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    std::vector<jpeg_scan_info> scans{{3, {0, 1, 2, 0}, 0, 0, 0, 0}};
    for (int c = 0; c < 3; ++c) {
      for (int k = 1; k <= scans_each; ++k) scans.push_back({1, {c, 0, 0, 0}, k, k == scans_each ? 63 : k, 0, 0});
    }
    info.scan_info = scans.data();
    info.num_scans = static_cast<int>(scans.size());
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < 8) {
      JSAMPROW row = image.pixel(static_cast<int>(info.next_scanline), 0);
      jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    const std::string result(reinterpret_cast<const char*>(bytes), size);
    jpeg_destroy_compress(&info);
    std::free(bytes);
    return result;
  };
  CHECK(decode_error(encode(30)).empty());
  CHECK(one_line_naming_the_file(decode_error(encode(63))));
  CHECK_THAT(decode_error(encode(63)), Catch::Contains("more than 100 scans"));
}

TEST_CASE("Resizing agrees with torch.nn.functional.interpolate") {
  const int count = each_golden("resize", [](std::istringstream& words) {
    int height = 0, width = 0, to_height = 0, to_width = 0;
    std::string hex;
    words >> height >> width >> to_height >> to_width >> hex;
    INFO(width << "x" << height << " to " << to_width << "x" << to_height);
    const Image image{height, width, from_hex(hex)};
    Normalization plain{{0, 0, 0}, {1, 1, 1}, 1.0f, false};
    std::vector<float> out(static_cast<std::size_t>(to_height) * to_width * 3);
    resize_normalize(image, to_height, to_width, plain, false, out.data(), to_width * 3);
    const Image rounded = resize(image, to_height, to_width);
    REQUIRE(rounded.rgb.size() == out.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      double expected = 0;
      words >> expected;
      REQUIRE(out[i] == Approx(expected).margin(2e-3).epsilon(2e-5));
      REQUIRE(std::abs(rounded.rgb[i] - expected) <= 0.5 + 3e-3);
    }
  });
  CHECK(count == 7);
}

TEST_CASE("Normalisation, channel order, mirroring and row stride") {
  Random random(3, RandomStream::test);
  const Image image = random_image(13, 17, random);
  const int height = 19, width = 11, stride = width * 3 + 5;
  std::vector<float> plain(static_cast<std::size_t>(height) * stride, -1e9f);
  resize_normalize(image, height, width, {{0, 0, 0}, {1, 1, 1}, 1.0f, false}, false, plain.data(), stride);
  for (const bool mirror : {false, true}) {
    for (const bool bgr : {false, true}) {
      const Normalization n{{0.1f, 0.2f, 0.3f}, {0.5f, 0.6f, 0.7f}, 1.0f / 255.0f, bgr};
      std::vector<float> out(plain.size(), -1e9f);
      resize_normalize(image, height, width, n, mirror, out.data(), stride);
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
          for (int c = 0; c < 3; ++c) {
            const double value =
                plain[static_cast<std::size_t>(y * stride + (mirror ? width - 1 - x : x) * 3 + (bgr ? 2 - c : c))];
            const auto k = static_cast<std::size_t>(c);
            REQUIRE(out[static_cast<std::size_t>(y * stride + x * 3 + c)] ==
                    Approx((value / 255.0 - n.mean[k]) / n.std[k]).margin(2e-5));
          }
        }
        for (int i = width * 3; i < stride; ++i) REQUIRE(out[static_cast<std::size_t>(y * stride + i)] == -1e9f);
      }
    }
  }
  CHECK(Normalization::caffe().bgr);
  CHECK_THROWS_AS(resize_normalize(image, 2, 2, {}, false, plain.data(), 5), Error);
  CHECK_THROWS_AS(resize_normalize(image, 0, 2, {}, false, plain.data(), 50), Error);
  CHECK_THROWS_AS(resize(image, 70000, 1), Error);
  CHECK_THROWS_AS(resize(Image{}, 2, 2), Error);
}

TEST_CASE("Target sizes are torchvision's, and never 0") {
  const int count = each_golden("size", [](std::istringstream& words) {
    int height = 0, width = 0, shorter = 0, longer = 0;
    ImageSize expected;
    words >> height >> width >> shorter >> longer >> expected.height >> expected.width;
    INFO(width << "x" << height << " to " << shorter << ", " << longer);
    const ImageSize size = target_size(height, width, shorter, longer);
    CHECK(size.height == expected.height);
    CHECK(size.width == expected.width);
  });
  CHECK(count > 200);
  CHECK(target_size(1, 5000, 800, 1333) == ImageSize{1, 1333});
  CHECK(target_size(5000, 1, 800, 1333) == ImageSize{1333, 1});
  CHECK(target_size(1, 1, 800, 1333) == ImageSize{800, 800});
  CHECK(resize(make_image(1, 5000), 1, 1333).width == 1333);
  CHECK_THROWS_AS(target_size(0, 5, 800, 1333), Error);
}

TEST_CASE("Flipping twice changes nothing") {
  Random random(4, RandomStream::test);
  const Image image = random_image(5, 8, random);
  const Image mirrored = flip(image);
  for (int y = 0; y < 5; ++y) {
    for (int x = 0; x < 8; ++x) CHECK(std::equal(image.pixel(y, x), image.pixel(y, x) + 3, mirrored.pixel(y, 7 - x)));
  }
  CHECK(flip(mirrored).rgb == image.rgb);
}

TEST_CASE("Colour changes agree with torchvision's") {
  const int count = each_golden("adjust", [](std::istringstream& words) {
    std::string name, before, after;
    float value = 0;
    int height = 0, width = 0;
    words >> name >> value >> height >> width >> before >> after;
    INFO(name << " " << value);
    Image image{height, width, from_hex(before)};
    if (name == "brightness") adjust_brightness(image, value);
    if (name == "contrast") adjust_contrast(image, value);
    if (name == "saturation") adjust_saturation(image, value);
    if (name == "hue") adjust_hue(image, value);
    CHECK(greatest_difference(image.rgb, from_hex(after)) <= 1);
  });
  CHECK(count == 13);
}

TEST_CASE("Jitter is fixed by its random numbers and does nothing without ranges") {
  Random noise(5, RandomStream::test);
  const Image image = random_image(9, 10, noise);
  Image same = image;
  Random first(6, RandomStream::test);
  jitter(same, {}, first);
  CHECK(same.rgb == image.rgb);

  int changed = 0;
  for (std::uint64_t i = 0; i < 20; ++i) {
    Image a = image, b = image;
    Random one(7, RandomStream::test, i), two(7, RandomStream::test, i);
    jitter(a, Jitter::ssd(), one);
    jitter(b, Jitter::ssd(), two);
    CHECK(a.rgb == b.rgb);
    CHECK(one.bits() == two.bits());
    changed += a.rgb != image.rgb;
  }
  CHECK(changed >= 15);

  Image never = image;
  Random unused(8, RandomStream::test);
  jitter(never, {0.5f, 0.5f, 0.5f, 0.5f, 0.0f}, unused);
  CHECK(never.rgb == image.rgb);

  Image grey = make_image(4, 4);
  std::fill(grey.rgb.begin(), grey.rgb.end(), std::uint8_t{90});
  adjust_hue(grey, 0.3f);
  adjust_contrast(grey, 1.7f);
  CHECK(greatest_difference(grey.rgb, std::vector<std::uint8_t>(48, 90)) <= 1);
  CHECK_THROWS_AS(adjust_hue(grey, 0.6f), Error);
  CHECK_THROWS_AS(adjust_brightness(grey, -1.0f), Error);
  CHECK_THROWS_AS(adjust_contrast(grey, std::nanf("")), Error);
}
