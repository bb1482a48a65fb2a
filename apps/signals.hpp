// SIGINT and SIGTERM: the first asks the program to stop at the next good moment, the second ends it at once.
#pragma once

#include <unistd.h>
#include <csignal>

namespace shrike::apps {

inline volatile std::sig_atomic_t stop_signal = 0;

inline void catch_stop_signals() {
  const auto handler = [](int signal) {
    if (stop_signal != 0) _exit(128 + signal);
    stop_signal = signal;
  };
  std::signal(SIGINT, handler);
  std::signal(SIGTERM, handler);
}

}  // namespace shrike::apps
