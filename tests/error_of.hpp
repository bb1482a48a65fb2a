// The message of the Error that a call throws: always one line.
#pragma once

#include <string>

#include "catch.hpp"
#include "shrike/core/check.hpp"

// "no error" when f() throws none.
template <class F> std::string error_of(F&& f) {
  try {
    f();
  } catch (const shrike::Error& error) {
    const std::string text = error.what();
    CHECK(text.find('\n') == std::string::npos);
    return text;
  }
  return "no error";
}
