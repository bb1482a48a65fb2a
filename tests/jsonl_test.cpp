#include "shrike/io/jsonl.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <fstream>

#include "catch.hpp"
#include "shrike/core/check.hpp"
#include "shrike/io/file.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
using Catch::Matchers::Contains;

namespace {

JsonWriter line(std::int64_t iteration, float loss) {
  JsonWriter json;
  json.begin_object().field("iteration", iteration).field("loss", loss).end_object();
  return json;
}

}  // namespace

TEST_CASE("each line is there as soon as it is written") {
  const TemporaryFolder folder;
  const std::string path = folder / "metrics.jsonl";
  JsonLines log(path);
  CHECK(read_file(path, 0).empty());
  log.write(line(1, 0.5f));
  CHECK(read_file(path, 1000) == "{\"iteration\":1,\"loss\":0.5}\n");
  log.write(line(2, NAN));
  CHECK(read_file(path, 1000) == "{\"iteration\":1,\"loss\":0.5}\n{\"iteration\":2,\"loss\":null}\n");
  CHECK_THROWS_AS(log.write(JsonWriter()), Error);
}

TEST_CASE("a new log replaces the old") {
  const TemporaryFolder folder;
  const std::string path = folder / "metrics.jsonl";
  JsonLines(path).write(line(1, 1.0f));
  JsonLines(path).write(line(2, 2.0f));
  CHECK(read_file(path, 1000) == "{\"iteration\":2,\"loss\":2}\n");
}

TEST_CASE("a resumed log keeps what was written up to the checkpoint") {
  const TemporaryFolder folder;
  const std::string path = folder / "metrics.jsonl";
  SECTION("later lines go, and the one that was cut off") {
    std::ofstream(path)
        << "{\"note\":\"begun\"}\n{\"iteration\":10,\"loss\":1}\n{\"iteration\":20}\n{\"iteration\":30}\n{\"itera";
    JsonLines(path, 20).write(line(30, 3.0f));
    CHECK(read_file(path, 1000) ==
          "{\"note\":\"begun\"}\n{\"iteration\":10,\"loss\":1}\n{\"iteration\":20}\n{\"iteration\":30,\"loss\":3}\n");
  }
  SECTION("a line within the checkpoint's but cut off goes too") {
    std::ofstream(path) << "{\"iteration\":10}\n{\"iteration\":2";
    JsonLines(path, 20).write(line(30, 3.0f));
    CHECK(read_file(path, 1000) == "{\"iteration\":10}\n{\"iteration\":30,\"loss\":3}\n");
  }
  SECTION("what a power failure left goes") {
    std::ofstream(path) << "{\"iteration\":10}\n" << std::string(50, '\0') << "\n[1]\nnoise\n\n{\"iteration\":11}\n";
    JsonLines(path, 20);
    CHECK(read_file(path, 1000) == "{\"iteration\":10}\n{\"iteration\":11}\n");
  }
  SECTION("there may be nothing to resume") {
    JsonLines(path, 20).write(line(21, 0.0f));
    CHECK(read_file(path, 1000) == "{\"iteration\":21,\"loss\":0}\n");
  }
}

TEST_CASE("a log that cannot be written says so") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(JsonLines(folder / "none/metrics.jsonl"),
                    Contains(folder / "none/metrics.jsonl") && Contains("No such file"));
  const std::string path = folder / "metrics.jsonl";
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{60, 60};  // room for two lines and a half
    ::setrlimit(RLIMIT_FSIZE, &limit);
    JsonLines log(path);
    log.write(line(1, 0.5f));
    log.write(line(2, 0.5f));
    try {
      log.write(line(3, 0.5f));
    } catch (const Error& error) {
      ::_exit(std::string(error.what()).find(path) != std::string::npos ? 0 : 1);
    }
    ::_exit(2);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(read_file(path, 1000) == "{\"iteration\":1,\"loss\":0.5}\n{\"iteration\":2,\"loss\":0.5}\n");
}
