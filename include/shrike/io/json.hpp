// Writing JSON (RFC 8259).
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace shrike {

// The text between quotes, escaped; bytes that are not UTF-8 become U+FFFD. Also a way to put any name on one line of a
// message.
std::string json_quote(std::string_view text);

bool is_utf8(std::string_view text);

// The shortest digits that read back as the same number; "null" for NaN and infinity, which JSON lacks.
std::string json_number(double value);
std::string json_number(float value);

// Writes one JSON value piece by piece, commas included:
//   JsonWriter json;
//   json.begin_object().field("image", path).key("boxes").begin_array().value(1.5f).end_array().end_object();
//   json.str()  ->  {"image":"a.jpg","boxes":[1.5]}
// Throws Error when the pieces do not make JSON: a value without a key in an object, or an end that does not match.
class JsonWriter {
 public:
  JsonWriter& begin_object() { return begin('{'); }
  JsonWriter& end_object() { return end('}'); }
  JsonWriter& begin_array() { return begin('['); }
  JsonWriter& end_array() { return end(']'); }
  JsonWriter& key(std::string_view name);

  JsonWriter& value(std::string_view text) { return raw(json_quote(text)); }
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(bool truth) { return raw(truth ? "true" : "false"); }
  JsonWriter& value(std::floating_point auto number) { return raw(json_number(number)); }
  JsonWriter& value(std::integral auto number) { return raw(std::to_string(number)); }
  JsonWriter& null() { return raw("null"); }
  JsonWriter& raw(std::string_view json);  // a value that is JSON already

  template <class T> JsonWriter& field(std::string_view name, const T& content) { return key(name).value(content); }

  // The finished text.
  const std::string& str() const;

 private:
  JsonWriter& begin(char bracket);
  JsonWriter& end(char bracket);
  void before_value();

  std::string text_;
  std::vector<char> open_;  // the brackets that will close what is open
  bool comma_ = false;      // something stands before in the same bracket
  bool keyed_ = false;      // a key waits for its value
};

}  // namespace shrike
