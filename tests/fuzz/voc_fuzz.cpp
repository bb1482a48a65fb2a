// VOC annotations from any bytes: an annotation whose good boxes are boxes, or an Error of one line.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "shrike/core/check.hpp"
#include "shrike/data/voc.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const shrike::VocAnnotation annotation = shrike::parse_voc_annotation(bytes, "a.xml");
    for (const shrike::VocObject& object : annotation.objects) {
      if (object.name.empty() || object.problem.find('\n') != std::string::npos) std::abort();
      if (object.problem.empty() && !(object.x1 < object.x2 && object.y1 < object.y2)) std::abort();
    }
  } catch (const shrike::Error& error) {
    const std::string_view text = error.what();
    if (!text.starts_with("a.xml") || text.find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
