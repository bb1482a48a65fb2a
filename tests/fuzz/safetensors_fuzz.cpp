// Any bytes must either parse or throw Error, with one line to say why.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "shrike/io/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    shrike::parse_safetensors({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const shrike::Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
