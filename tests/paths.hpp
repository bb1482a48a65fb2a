// Where the tests' files are.
#pragma once

#include <cstdlib>
#include <string>

// A file of tests/golden.
inline std::string golden_path(const std::string& name) {
  const char* folder = std::getenv("SHRIKE_GOLDEN");
  return std::string(folder ? folder : "tests/golden") + "/" + name;
}

// A file of the shared data that may stand beside the project, in ../shared/data or in $SHRIKE_DATA; it may be absent.
inline std::string shared_data_path(const std::string& name) {
  if (const char* folder = std::getenv("SHRIKE_DATA")) return std::string(folder) + "/" + name;
  return golden_path("../../../shared/data/" + name);
}
