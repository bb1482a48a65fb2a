// The tests' main: Catch2's. With SHRIKE_NEEDS_CUDA in the environment a program skips, by exit status 77, where no device can
// be used.
#include <cstdlib>
#include <iostream>

#include "shrike/core/cuda.hpp"

#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

int main(int argc, char** argv) {
  if (std::getenv("SHRIKE_NEEDS_CUDA") != nullptr && !shrike::cuda_status().usable) {
    std::cout << "skipped: " << shrike::cuda_status().text << '\n';
    return 77;
  }
  return Catch::Session().run(argc, argv);
}
