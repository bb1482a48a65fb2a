// Any bytes decode to a picture within the limits, or to an Error of one line that names the file. A picture survives
// PNG and can be resized.
#include <cstdlib>
#include <string>

#include "shrike/core/check.hpp"
#include "shrike/data/image.hpp"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace shrike;
  const std::string name = "fuzz";
  Image image;
  try {
    image = decode_image({data, size}, name);
  } catch (const Error& error) {
    const std::string text = error.what();
    require(text.rfind(name + ": ", 0) == 0 && text.find('\n') == std::string::npos);
    return 0;
  }
  require(image.height > 0 && image.width > 0 && image.height <= max_image_side && image.width <= max_image_side);
  require(image.rgb.size() == static_cast<std::size_t>(image.height) * image.width * 3);
  float out[5 * 7 * 3];
  resize_normalize(image, 5, 7, {}, size % 2 == 0, out, 21);
  for (const float value : out) require(value > -3 && value < 3);
  if (image.rgb.size() < 10'000) require(decode_image(encode_png(image), name).rgb == image.rgb);
  return 0;
}
