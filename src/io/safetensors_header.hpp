// The JSON header of a safetensors file, checked against the definition but for the file's size.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "shrike/core/shape.hpp"

namespace shrike::safetensors {

inline constexpr std::uint64_t max_header_bytes = 100'000'000;

struct Entry {
  std::string name;
  std::string dtype;  // "F32"
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes, counted from the end of the header
};

struct Header {
  std::vector<Entry> entries;  // in order of their bytes, without hole or overlap from 0 on
  std::map<std::string, std::string> metadata;
};

// Bytes of one element; 0 for a dtype that Shrike does not read.
std::size_t element_bytes(std::string_view dtype);

// Throws Error that begins with `file`.
Header parse_header(std::string_view json, const std::string& file);

}  // namespace shrike::safetensors
