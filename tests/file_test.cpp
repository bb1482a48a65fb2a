#include "shrike/io/file.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "catch.hpp"
#include "shrike/core/check.hpp"
#include "shrike/core/random.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
using Catch::Matchers::Contains;

namespace {

std::size_t entries(const TemporaryFolder& folder) {
  const std::filesystem::directory_iterator begin(folder.path());
  return static_cast<std::size_t>(std::distance(begin, std::filesystem::directory_iterator()));
}

// Runs f in a child process and returns its exit status; f returns the code to exit with.
template <class F> int in_child(const F& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 99;
    try {
      code = f();
    } catch (...) {
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("a file reads back as it was written") {
  const TemporaryFolder folder;
  const std::string path = folder / "a.bin";
  const std::string bytes("zero \0 and newline \n", 20);
  write_file_atomically(path, bytes);
  CHECK(read_file(path, 20) == bytes);
  write_file_atomically(path, "");
  CHECK(read_file(path, 0).empty());
  write_file_atomically(path, [](AtomicFile& file) {
    file.write("part one, ");
    file.write("part two");
  });
  CHECK(read_file(path, 100) == "part one, part two");
  CHECK(entries(folder) == 1);
}

TEST_CASE("what cannot be read is an error that names the path and the reason") {
  const TemporaryFolder folder;
  write_file_atomically(folder / "big", std::string(11, 'x'));
  CHECK_THROWS_WITH(read_file(folder / "none", 10), Contains(folder / "none") && Contains("No such file"));
  CHECK_THROWS_WITH(read_file(folder / "big", 10), Contains(folder / "big") && Contains("has 11 bytes, at most 10"));
  CHECK_THROWS_WITH(read_file(folder.path().string(), 10), Contains("is a folder"));
  CHECK_THROWS_WITH(read_file("/dev/zero", 10), Contains("not a regular file"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(read_file(folder / "pipe", 10), Contains("not a regular file"));

  const InputFile file(folder / "big");
  char bytes[12];
  file.read(8, bytes, 3);
  CHECK_THROWS_WITH(file.read(8, bytes, 4), Contains("ends at byte 11, 1 bytes more were expected"));
}

TEST_CASE("what cannot be written is an error that names the path and the reason") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(write_file_atomically(folder / "none/a", "x"), Contains(folder / "none/a") && Contains("No such file"));
  CHECK_THROWS_WITH(write_file_atomically(folder.path().string(), "x"), Contains("not a regular file"));
  CHECK_THROWS_WITH(write_file_atomically("/dev/full", "x"), Contains("/dev/full") && Contains("not a regular file"));
  CHECK(entries(folder) == 0);
}

TEST_CASE("a failure while writing leaves the old file and nothing else") {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  write_file_atomically(path, "old");
  SECTION("the writer throws") {
    CHECK_THROWS_WITH(write_file_atomically(path,
                                            [](AtomicFile& file) {
                                              file.write("half of it");
                                              fail("changed my mind");
                                            }),
                      Contains("changed my mind"));
  }
  SECTION("there is no more room") {
    // A limit on the size of files behaves as a full disk does: first a short write, then an error.
    CHECK(in_child([&] {
            ::signal(SIGXFSZ, SIG_IGN);
            const rlimit limit{1000, 1000};
            ::setrlimit(RLIMIT_FSIZE, &limit);
            try {
              write_file_atomically(path, std::string(5000, 'x'));
            } catch (const Error& error) {
              const std::string what = error.what();
              return what.find(path) != std::string::npos && what.find("File too large") != std::string::npos ? 0 : 1;
            }
            return 2;
          }) == 0);
  }
  CHECK(read_file(path, 10) == "old");
  CHECK(entries(folder) == 1);
}

TEST_CASE("a write to a full device is reported") {
  const int descriptor = ::open("/dev/full", O_WRONLY);
  if (descriptor < 0) return;  // not every system has one
  CHECK(write_all(descriptor, "x", 1) == ENOSPC);
  ::close(descriptor);
}

TEST_CASE("two writers of one file do not mix") {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  AtomicFile first(path);
  first.write("first");
  CHECK_THROWS_WITH(AtomicFile(path), Contains(path) && Contains("being written"));
  first.commit();
  CHECK(read_file(path, 10) == "first");
  write_file_atomically(path, "second");
  CHECK(read_file(path, 10) == "second");
}

TEST_CASE("what a killed writer left is overwritten") {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  std::ofstream(path + ".tmp") << "a long rest of an earlier process";
  write_file_atomically(path, "new");
  CHECK(read_file(path, 10) == "new");
  CHECK(entries(folder) == 1);
}

TEST_CASE("a kill at any moment leaves one version or another") {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  write_file_atomically(path, std::string(20000, 'a'));
  Random random(7, RandomStream::test);
  for (int round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (char letter = 'a';; letter = letter == 'z' ? 'a' : static_cast<char>(letter + 1)) {
        try {
          write_file_atomically(path, [&](AtomicFile& file) {
            for (int part = 0; part < 20; ++part) file.write(std::string(1000, letter));
          });
        } catch (...) {
          ::_exit(1);
        }
      }
    }
    ::usleep(random.below(15000));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    const std::string bytes = read_file(path, 20000);
    REQUIRE(bytes.size() == 20000);
    REQUIRE(bytes == std::string(20000, bytes[0]));
  }
  write_file_atomically(path, "done");
  CHECK(entries(folder) == 1);
}
