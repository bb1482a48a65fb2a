// What a person sees while a program works: one line that is rewritten on a terminal, plain lines elsewhere.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

namespace shrike::apps {

// "1:02:03" or "2:03".
inline std::string clock_text(double seconds) {
  const auto s = static_cast<long long>(seconds + 0.5);
  char text[32];
  if (s >= 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld:%02lld", s / 60, s % 60);
  }
  return text;
}

class ProgressLine {
 public:
  explicit ProgressLine(int every) : every_(every > 0 ? every : 1), terminal_(isatty(STDERR_FILENO) == 1) {}
  ~ProgressLine() { clear(); }

  // Shows `text`: on a terminal at most ten times a second, else as a line of its own every so many steps.
  void show(long long step, const std::string& text) {
    if (!terminal_) {
      if (step % every_ == 0) std::fprintf(stderr, "%s\n", text.c_str());
      return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (shown_ && now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    shown_ = true;
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
    std::fflush(stderr);
  }

  // Shows `text` on a terminal only.
  void show(const std::string& text) {
    if (terminal_) show(0, text);
  }

  // Makes room for other output.
  void clear() {
    if (terminal_ && shown_) std::fprintf(stderr, "\r\033[K");
    shown_ = false;
  }

 private:
  int every_;
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_;
};

// Iterations per second since it was made, and the time left.
class Pace {
 public:
  explicit Pace(long long total) : total_(total), start_(std::chrono::steady_clock::now()) {}
  void tick() { ++done_; }
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  double per_second() const { return static_cast<double>(done_) / std::max(seconds(), 1e-9); }
  double seconds_left() const { return done_ > 0 ? static_cast<double>(total_ - done_) / per_second() : 0; }

 private:
  long long total_;
  long long done_ = 0;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace shrike::apps
