// Failures: one exception type whose message is one line that names the values.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace shrike {

// Thrown for every failure a caller can cause or meet: bad files, mismatched shapes, missing backends.
// An application prints what() on one line and exits 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The parts written one after another with operator<<.
template <class... Parts> std::string message(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <class... Parts> [[noreturn]] void fail(const Parts&... parts) { throw Error(message(parts...)); }

}  // namespace shrike

// Throws shrike::Error with the remaining arguments written one after another when `condition` is false.
#define SHRIKE_CHECK(condition, ...) \
  do {                               \
    if (!(condition)) [[unlikely]]   \
      ::shrike::fail(__VA_ARGS__);   \
  } while (false)
