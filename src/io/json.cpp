#include "shrike/io/json.hpp"

#include <charconv>
#include <cmath>

#include "shrike/core/check.hpp"

namespace shrike {
namespace {

// Length of the UTF-8 sequence (RFC 3629) at the start of `text`, 0 when there is none: overlong forms, surrogates and code
// points above U+10FFFF are not UTF-8.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned first = byte(0), second = byte(1);
  if (text.empty()) return 0;
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4 || !continues(1)) return 0;
  if (first < 0xe0) return 2;
  if (first < 0xf0) {
    if (first == 0xe0 && second < 0xa0) return 0;
    if (first == 0xed && second > 0x9f) return 0;
    return continues(2) ? 3 : 0;
  }
  if (first == 0xf0 && second < 0x90) return 0;
  if (first == 0xf4 && second > 0x8f) return 0;
  return continues(2) && continues(3) ? 4 : 0;
}

template <class T> std::string shortest(T value) {
  if (!std::isfinite(value)) return "null";
  char digits[32];
  const auto result = std::to_chars(digits, digits + sizeof(digits), value);
  return {digits, result.ptr};
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string json_quote(std::string_view text) {
  static constexpr char hex[] = "0123456789abcdef";
  std::string quoted = "\"";
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const char c = text[0];
    if (length == 0) {
      quoted += "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (c == '\r') {
      quoted += "\\r";
    } else if (length == 1 && (c < 0x20 || c == 0x7f)) {
      quoted += {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    } else {
      quoted += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return quoted += '"';
}

std::string json_number(double value) { return shortest(value); }
std::string json_number(float value) { return shortest(value); }

void JsonWriter::before_value() {
  if (open_.empty()) {
    SHRIKE_CHECK(text_.empty(), "JSON: a second value after the first");
  } else if (open_.back() == '}') {
    SHRIKE_CHECK(keyed_, "JSON: a value without a key in an object");
  } else if (comma_) {
    text_ += ',';
  }
  keyed_ = false;
  comma_ = true;
}

JsonWriter& JsonWriter::raw(std::string_view json) {
  before_value();
  text_ += json;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  SHRIKE_CHECK(!open_.empty() && open_.back() == '}' && !keyed_, "JSON: a key ", json_quote(name), " where none can stand");
  if (comma_) text_ += ',';
  text_ += json_quote(name);
  text_ += ':';
  keyed_ = true;
  return *this;
}

JsonWriter& JsonWriter::begin(char bracket) {
  before_value();
  text_ += bracket;
  open_.push_back(bracket == '{' ? '}' : ']');
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::end(char bracket) {
  SHRIKE_CHECK(!open_.empty() && open_.back() == bracket && !keyed_, "JSON: ", bracket, " does not close anything");
  open_.pop_back();
  text_ += bracket;
  comma_ = true;
  return *this;
}

const std::string& JsonWriter::str() const {
  SHRIKE_CHECK(open_.empty() && !text_.empty(), "JSON: the value is not finished");
  return text_;
}

}  // namespace shrike
