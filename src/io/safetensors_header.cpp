#include "safetensors_header.hpp"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "shrike/core/check.hpp"
#include "shrike/io/json.hpp"

namespace shrike::safetensors {
namespace {

// Names come from the file: quoted, and cut where one would fill the screen.
std::string shown(std::string_view name) {
  return name.size() <= 120 ? json_quote(name) : json_quote(name.substr(0, 120)) + "...";
}

// Receives the JSON piece by piece. A tree would keep only the last of two equal keys, and nest as deep as the file likes.
//   {"__metadata__": {text: text}, NAME: {"dtype": text, "shape": [size...], "data_offsets": [begin, end]}}
class HeaderReader {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  explicit HeaderReader(const std::string& file) : file_(file) {}

  Header header;

  bool start_object(std::size_t) {
    if (depth_ == 1 && name_ == "__metadata__") {
      in_metadata_ = true;
    } else if (depth_ == 1) {
      header.entries.emplace_back().name = name_;
      fields_ = 0;
    } else if (depth_ != 0) {
      unexpected("an object");
    }
    ++depth_;
    return true;
  }

  bool end_object() {
    --depth_;
    if (depth_ == 1 && !in_metadata_) {
      SHRIKE_CHECK(fields_ == 7, where(), " lacks ", !(fields_ & 1) ? "dtype" : !(fields_ & 2) ? "shape" : "data_offsets");
    }
    in_metadata_ = false;
    return true;
  }

  bool key(string_t& text) {
    if (depth_ == 1) {
      name_ = text;
      SHRIKE_CHECK(names_.insert(text).second, file_, ": the header has the key ", shown(text), " twice");
    } else if (in_metadata_) {
      SHRIKE_CHECK(!header.metadata.contains(text), file_, ": the metadata have the key ", shown(text), " twice");
      metadata_key_ = text;
    } else {
      field_ = text == "dtype" ? 1 : text == "shape" ? 2 : text == "data_offsets" ? 4 : 0;
      SHRIKE_CHECK(field_ != 0, where(), " has a key ", shown(text), ", expected dtype, shape and data_offsets");
      SHRIKE_CHECK((fields_ & field_) == 0, where(), " has the key ", text, " twice");
      fields_ |= field_;
    }
    return true;
  }

  bool start_array(std::size_t) {
    if (depth_ != 2 || in_metadata_ || field_ == 1) unexpected("an array");
    ++depth_;
    numbers_.clear();
    return true;
  }

  bool end_array() {
    --depth_;
    Entry& entry = header.entries.back();
    if (field_ == 2) {
      SHRIKE_CHECK(numbers_.size() <= static_cast<std::size_t>(Shape::max_rank), where(), " has rank ", numbers_.size(),
                   ", at most ", Shape::max_rank, " is supported");
      std::int64_t product = 1;
      for (const std::int64_t size : numbers_) {
        SHRIKE_CHECK(!__builtin_mul_overflow(product, size, &product), where(), " has more than 2^63 elements");
      }
      entry.shape = Shape(numbers_);
    } else {
      SHRIKE_CHECK(numbers_.size() == 2, where(), " has ", numbers_.size(), " data_offsets, expected a begin and an end");
      entry.begin = static_cast<std::uint64_t>(numbers_[0]);
      entry.end = static_cast<std::uint64_t>(numbers_[1]);
    }
    return true;
  }

  bool string(string_t& text) {
    if (depth_ == 2 && in_metadata_) {
      header.metadata[metadata_key_] = text;
    } else if (depth_ == 2 && field_ == 1) {
      header.entries.back().dtype = text;
    } else {
      unexpected("text");
    }
    return true;
  }

  bool number_unsigned(number_unsigned_t number) {
    if (depth_ != 3) unexpected("a number");
    SHRIKE_CHECK(number <= std::numeric_limits<std::int64_t>::max(), where(), " has ", number, " for a size or an offset");
    SHRIKE_CHECK(numbers_.size() < 1000, where(), " has more than 1000 numbers in a list");
    numbers_.push_back(static_cast<std::int64_t>(number));
    return true;
  }

  bool number_integer(number_integer_t number) {
    if (depth_ != 3) unexpected("a number");
    fail(where(), " has ", number, " for a size or an offset, expected an integer >= 0");
  }
  bool number_float(number_float_t, const string_t& text) {
    if (depth_ != 3) unexpected("a number");
    fail(where(), " has ", shown(text), " for a size or an offset, expected an integer >= 0");
  }
  bool null() { unexpected("null"); }
  bool boolean(bool) { unexpected("a truth value"); }
  bool binary(binary_t&) { unexpected("binary data"); }

  bool parse_error(std::size_t at, const std::string&, const nlohmann::detail::exception& error) {
    // The library's text, without its prefix and with a bound on what it quotes.
    std::string reason = error.what();
    if (const std::size_t colon = reason.find(": "); colon != std::string::npos) reason.erase(0, colon + 2);
    fail(file_, ": the header is not JSON at byte ", at + 8, ": ", shown(reason));
  }

 private:
  std::string where() const { return message(file_, ": tensor ", shown(name_)); }

  [[noreturn]] void unexpected(const char* found) const {
    if (depth_ == 0) fail(file_, ": the header is ", found, ", expected an object");
    if (in_metadata_) fail(file_, ": metadata ", shown(metadata_key_), " is ", found, ", expected text");
    if (depth_ == 1) fail(file_, ": ", shown(name_), " in the header is ", found, ", expected an object");
    if (depth_ == 2) fail(where(), ": ", field_ == 1 ? "dtype is " : field_ == 2 ? "shape is " : "data_offsets is ", found);
    fail(where(), " has ", found, " in a list of sizes or offsets");
  }

  const std::string& file_;
  int depth_ = 0;
  bool in_metadata_ = false;
  unsigned field_ = 0;   // of the tensor being read: 1 dtype, 2 shape, 4 data_offsets
  unsigned fields_ = 0;  // those seen
  std::string name_, metadata_key_;
  std::set<std::string> names_;
  std::vector<std::int64_t> numbers_;
};

void check_entry(const Entry& entry, const std::string& file) {
  const std::size_t size = element_bytes(entry.dtype);
  SHRIKE_CHECK(size != 0, file, ": tensor ", shown(entry.name), " has dtype ", shown(entry.dtype),
               ", expected F32, F16, BF16, F64, I8, U8, I32, I64 or BOOL");
  SHRIKE_CHECK(entry.begin <= entry.end, file, ": tensor ", shown(entry.name), " begins at ", entry.begin, " and ends at ",
               entry.end);
  std::uint64_t bytes = 0;
  SHRIKE_CHECK(!__builtin_mul_overflow(static_cast<std::uint64_t>(entry.shape.numel()), size, &bytes), file, ": tensor ",
               shown(entry.name), " of shape ", entry.shape, " has more than 2^64 bytes");
  SHRIKE_CHECK(entry.end - entry.begin == bytes, file, ": tensor ", shown(entry.name), " of dtype ", entry.dtype, " and shape ",
               entry.shape, " has ", entry.end - entry.begin, " bytes, expected ", bytes);
}

}  // namespace

std::size_t element_bytes(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "F16" || dtype == "BF16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

Header parse_header(std::string_view json, const std::string& file) {
  SHRIKE_CHECK(!json.empty() && json[0] == '{', file, ": the header does not begin with '{'");
  // The JSON library takes a zero byte for the end of the text.
  const std::size_t zero = json.find('\0');
  SHRIKE_CHECK(zero == std::string_view::npos, file, ": the header is not JSON at byte ", zero + 8, ": a zero byte");
  HeaderReader reader(file);
  nlohmann::json::sax_parse(json, &reader);
  std::vector<Entry>& entries = reader.header.entries;
  for (const Entry& entry : entries) check_entry(entry, file);
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name); });
  std::uint64_t at = 0;
  for (const Entry& entry : entries) {
    SHRIKE_CHECK(entry.begin >= at, file, ": tensor ", shown(entry.name), " begins at ", entry.begin,
                 ", inside the one before, which ends at ", at);
    SHRIKE_CHECK(entry.begin == at, file, ": tensor ", shown(entry.name), " begins at ", entry.begin, ", after a hole from ",
                 at);
    at = entry.end;
  }
  return std::move(reader.header);
}

}  // namespace shrike::safetensors
