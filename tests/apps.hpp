// Runs the applications on a few generated shapes, as tests of them need it.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "catch.hpp"
#include "run_command.hpp"
#include "shrike/data/shapes.hpp"
#include "shrike/io/file.hpp"

namespace programs {

using namespace shrike;
namespace fs = std::filesystem;

inline std::string binary(const std::string& app) {
  const char* folder = std::getenv("SHRIKE_BIN");
  return (folder != nullptr ? std::string(folder) : "build/release/apps") + "/" + app;
}

inline Outcome run(const std::string& app, const std::string& arguments) { return run_command(binary(app) + " " + arguments); }

// A folder of this test program's own, with 12 + 4 small images; removed at the end.
struct Workplace {
  fs::path root = fs::temp_directory_path() / ("shrike_apps_test_" + std::to_string(getpid()));

  Workplace() {
    ShapesOptions options;
    options.train = 12;
    options.test = 4;
    options.width = 96;
    options.height = 64;
    write_shapes(data(), options);
  }
  ~Workplace() { fs::remove_all(root); }
  std::string data() const { return (root / "data").string(); }
  std::string path(const std::string& name) const { return (root / name).string(); }
};

inline const Workplace& workplace() {
  static const Workplace instance;
  return instance;
}

inline std::string training(const std::string& run_folder, const std::string& more = "") {
  return "--preset shapes --data " + workplace().data() + " --run " + workplace().path(run_folder) +
         " --width 4 --head-width 16 --min-size 64 --max-size 96 --epochs 2 --threads 1 --warmup 4 --log-every 1 "
         "--score-threshold 0.0001 --ema 0.9 --lr 0.01 " +
         more;
}

// One line on standard error that begins with the program's name.
inline void check_failure(const Outcome& outcome, const std::string& program, const std::string& part) {
  INFO(outcome.text);
  CHECK(outcome.status == 1);
  const auto last = outcome.text.rfind(program + ": ");
  REQUIRE(last != std::string::npos);
  CHECK(outcome.text.find('\n', last) == outcome.text.size() - 1);
  CHECK_THAT(outcome.text.substr(last), Catch::Matchers::Contains(part));
}

inline std::string bytes(const std::string& path) { return read_file(path, 1u << 30); }

// The trained run that several tests look at.
inline const std::string& trained() {
  static const std::string folder = [] {
    const Outcome outcome = run("train_frcnn", training("trained", "--save-every 5"));
    INFO(outcome.text);
    REQUIRE(outcome.status == 0);
    return workplace().path("trained");
  }();
  return folder;
}

// Runs an application that trains in the folder `name`, interrupts it three times, each when it has got further, and lets it
// end; with `resume` from when its checkpoint is there.
inline void interrupt(const std::string& app, const std::string& name, std::string arguments, const std::string& resume,
                      bool kill) {
  const std::string folder = workplace().path(name);
  int interruptions = 0;
  for (;;) {
    sigset_t term, before;  // held back until the child has left the test framework's handler behind
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    const pid_t child = fork();
    if (child == 0) {
      signal(SIGTERM, SIG_DFL);
      sigprocmask(SIG_SETMASK, &before, nullptr);
      freopen("/dev/null", "w", stderr);
      freopen("/dev/null", "w", stdout);
      execl("/bin/sh", "sh", "-c", ("exec " + binary(app) + " " + arguments).c_str(), nullptr);
      _exit(127);
    }
    sigprocmask(SIG_SETMASK, &before, nullptr);
    const bool stop = interruptions < 3;
    if (stop) {  // once it has got further than the last time
      for (int waited = 0; waited < 60000 && waitpid(child, nullptr, WNOHANG) == 0; ++waited) {
        std::error_code error;
        const auto size = fs::file_size(folder + "/metrics.jsonl", error);
        if (!error && size > static_cast<std::uintmax_t>(200 * (1 + 3 * interruptions))) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      ::kill(child, kill ? SIGKILL : SIGTERM);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!stop) {
      REQUIRE(WIFEXITED(status));
      REQUIRE(WEXITSTATUS(status) == 0);
      return;
    }
    if (!kill && WIFEXITED(status)) CHECK((WEXITSTATUS(status) == 128 + SIGTERM || WEXITSTATUS(status) == 0));
    ++interruptions;
    if (fs::exists(folder + "/last.safetensors")) arguments = resume;
  }
}

}  // namespace programs
