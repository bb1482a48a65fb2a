// The one thing wanted from EXIF: which way is up (TIFF 6.0, tag 274).
#include "image_codecs.hpp"

namespace shrike::codecs {

int exif_orientation(Bytes tiff) {
  constexpr std::uint32_t orientation_tag = 0x0112, type_short = 3;
  if (tiff.size() < 8) return 1;
  const bool little = tiff[0] == 'I' && tiff[1] == 'I';
  if (!little && !(tiff[0] == 'M' && tiff[1] == 'M')) return 1;
  const auto read16 = [&](std::size_t at) {
    return little ? little16(&tiff[at]) : std::uint32_t{tiff[at]} << 8 | tiff[at + 1];
  };
  const auto read32 = [&](std::size_t at) { return little ? little32(&tiff[at]) : big32(&tiff[at]); };

  if (read16(2) != 42) return 1;
  const std::size_t directory = read32(4);
  if (directory > tiff.size() - 2) return 1;
  const std::size_t entries = read16(directory);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + 12 * i;
    if (entry + 12 > tiff.size()) return 1;
    if (read16(entry) != orientation_tag) continue;
    const std::uint32_t value = read16(entry + 8);
    const bool valid = read16(entry + 2) == type_short && read32(entry + 4) == 1 && value >= 1 && value <= 8;
    return valid ? static_cast<int>(value) : 1;
  }
  return 1;
}

}  // namespace shrike::codecs
