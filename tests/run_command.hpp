// Runs a command as a shell does, and keeps what it prints.
#pragma once

#include <cstdio>
#include <string>

#include "catch.hpp"

#include <sys/wait.h>

struct Outcome {
  int status;        // the exit status, or 128 + the signal
  std::string text;  // both standard output and error
};

inline Outcome run_command(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  Outcome outcome{0, ""};
  char buffer[4096];
  for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) outcome.text.append(buffer, n);
  const int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}
