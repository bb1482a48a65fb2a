// Failures: one exception type whose message is one line that names the values.
#pragma once

#include <initializer_list>
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

namespace detail {

// A part of a message: a value, and how operator<< writes values of its type. That is compiled once for a type, and what joins
// the parts once in all, where a stream in a template would be compiled for every combination of types.
class Part {
 public:
  Part(const char* text) : value_(text), write_(nullptr) {}
  template <class T> Part(const T& value)
      : value_(&value), write_([](std::ostream& out, const void* part) { out << *static_cast<const T*>(part); }) {}

  void write(std::ostream& out) const;

 private:
  const void* value_;
  void (*write_)(std::ostream& out, const void* part);  // nullptr: value_ is text
};

std::string join_parts(std::initializer_list<Part> parts);
[[noreturn]] void throw_error(std::initializer_list<Part> parts);

}  // namespace detail

// The parts written one after another with operator<<.
template <class... Parts> std::string message(const Parts&... parts) { return detail::join_parts({parts...}); }

template <class... Parts> [[noreturn]] void fail(const Parts&... parts) { detail::throw_error({parts...}); }

}  // namespace shrike

// Throws shrike::Error with the remaining arguments written one after another when `condition` is false.
#define SHRIKE_CHECK(condition, ...) \
  do {                               \
    if (!(condition)) [[unlikely]]   \
      ::shrike::fail(__VA_ARGS__);   \
  } while (false)
