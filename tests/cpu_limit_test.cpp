// Processors that quotas leave, on made-up trees of control groups.
#include "src/core/cpu_limit.hpp"

#include <filesystem>
#include <fstream>

#include "catch.hpp"
#include "shrike/core/threads.hpp"
#include "temporary_folder.hpp"

using shrike::cpu_limit;

namespace {

constexpr int machine = 8;  // processors of the made-up machine

struct Tree {
  TemporaryFolder folder;

  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = folder.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void version_2(const std::string& mounted, const std::string& group) {
    write("proc/self/mountinfo",
          "21 27 0:20 / /proc rw,nosuid shared:12 - proc proc rw\n"
          "31 23 0:26 " +
              mounted + " /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n");
    write("proc/self/cgroup", "0::" + group + "\n");
  }
  void version_1(const std::string& mounted, const std::string& group) {
    write("proc/self/mountinfo",
          "31 23 0:26 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
          "32 23 0:27 " +
              mounted +
              " /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
              "33 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    write("proc/self/cgroup", "9:name=systemd:/else\n4:cpuset:/else\n3:cpu,cpuacct:" + group + "\n0::/else\n");
  }
  // Of a group of version 2, and of version 1.
  void max(const std::string& group, const std::string& text) { write("sys/fs/cgroup" + group + "/cpu.max", text); }
  void quota(const std::string& group, const std::string& time, const std::string& period) {
    write("sys/fs/cgroup/cpu,cpuacct" + group + "/cpu.cfs_quota_us", time);
    write("sys/fs/cgroup/cpu,cpuacct" + group + "/cpu.cfs_period_us", period);
  }
  int limit(int processors = machine) const { return cpu_limit(folder.path().string(), processors); }
};

}  // namespace

TEST_CASE("without files there is no limit") {
  Tree tree;
  CHECK(tree.limit() == machine);
  tree.version_2("/", "/a");
  CHECK(tree.limit() == machine);
  tree.version_1("/", "/a");
  CHECK(tree.limit() == machine);
  CHECK(tree.limit(1) == 1);
}

TEST_CASE("a quota counts, rounded up, and no more than the machine has") {
  Tree tree;
  tree.version_2("/", "/user/a");
  const auto with = [&](const std::string& text) {
    tree.max("/user/a", text);
    return tree.limit();
  };
  CHECK(with("100000 100000\n") == 1);
  CHECK(with("150000 100000\n") == 2);
  CHECK(with("200000 100000") == 2);
  CHECK(with("210000 100000\n") == 3);
  CHECK(with("30000 10000\n") == 3);
  CHECK(with("1000 100000\n") == 1);
  CHECK(with("1000000 100000\n") == machine);
  CHECK(with("max 100000\n") == machine);
  CHECK(with(" 100000\t100000 \n150000 100000\n") == 1);
}

TEST_CASE("what is no quota sets no limit") {
  Tree tree;
  tree.version_2("/", "/a");
  for (const char* text : {"", "\n", "100000\n", "0 100000\n", "-1 100000\n", "100000 0\n", "100000 -5\n", "inf 100000\n",
                           "nan 100000\n", "100000 100000 100000\n", "abc def\n", "1e999 100000\n", "100000x 100000\n",
                           "0x10 100000\n", "99999999999999999999999999 1\n", "max max\n"}) {
    INFO(text);
    tree.max("/a", text);
    CHECK(tree.limit() == machine);
  }
  tree.max("/a", "100000" + std::string(1 << 20, ' ') + "100000\n");
  CHECK(tree.limit() == machine);
  std::filesystem::remove(tree.folder.path() / "sys/fs/cgroup/a/cpu.max");
  std::filesystem::create_directory(tree.folder.path() / "sys/fs/cgroup/a/cpu.max");
  CHECK(tree.limit() == machine);
}

TEST_CASE("the least quota of a group and those above it counts") {
  Tree tree;
  tree.version_2("/", "/a/b/c");
  tree.max("/a/b/c", "600000 100000\n");
  CHECK(tree.limit() == 6);
  tree.max("/a/b", "max 100000\n");
  CHECK(tree.limit() == 6);
  tree.max("/a", "200000 100000\n");
  CHECK(tree.limit() == 2);
  tree.max("/a/b/c", "100000 100000\n");
  CHECK(tree.limit() == 1);
  tree.max("/a/b/c/d", "1 100000\n");  // below, beside
  tree.max("/other", "1 100000\n");
  CHECK(tree.limit() == 1);
  tree.max("/a/b/c", "max 100000\n");
  CHECK(tree.limit() == 2);
  tree.max("", "100000 100000\n");
  CHECK(tree.limit() == 1);
}

TEST_CASE("version 1's quotas") {
  Tree tree;
  tree.version_1("/", "/a/b");
  tree.quota("/a/b", "250000\n", "100000\n");
  CHECK(tree.limit() == 3);
  tree.quota("/a", "100000\n", "100000\n");
  CHECK(tree.limit() == 1);
  tree.quota("/a", "-1\n", "100000\n");
  CHECK(tree.limit() == 3);
  tree.quota("/a/b", "-1\n", "100000\n");
  CHECK(tree.limit() == machine);
  tree.quota("/else", "100000\n", "100000\n");  // the group of other controllers
  CHECK(tree.limit() == machine);
  std::filesystem::remove(tree.folder.path() / "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us");
  CHECK(tree.limit() == machine);
}

TEST_CASE("in a container the mount begins at its group") {
  Tree tree;
  tree.version_1("/docker/ab", "/docker/ab");
  tree.quota("", "200000\n", "100000\n");
  CHECK(tree.limit() == 2);
  tree.version_1("/docker/ab", "/docker/ab/inner");
  tree.quota("/inner", "100000\n", "100000\n");
  CHECK(tree.limit() == 1);
  tree.quota("/c/inner", "1\n", "100000\n");
  tree.version_1("/docker/ab", "/docker/abc/inner");  // not below the mount
  CHECK(tree.limit() == 2);
  tree.version_1("/docker/ab", "/");
  CHECK(tree.limit() == 2);

  Tree other;
  other.max("", "300000 100000\n");
  for (const char* mounted : {"/", "/..", "/../..", "/system.slice/x"}) {
    for (const char* group : {"/", "/not/shown/here", "/../outside", "/..", "", "no path", "/system.slice/x", "/a/"}) {
      INFO(mounted << " " << group);
      other.version_2(mounted, group);
      CHECK(other.limit() == 3);
    }
  }
}

TEST_CASE("odd lines of mountinfo and cgroup are passed over") {
  Tree tree;
  tree.max("/a", "200000 100000\n");
  const std::string good = "31 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
  tree.write("proc/self/cgroup", "\n:\n::\nx\n0:\n1:cpu\n0::/a\n");
  tree.write("proc/self/mountinfo",
             "\n- - -\n-\n1 2 3\n31 23 0:26 / /sys/fs/cgroup rw -\n31 - cgroup2\n" + std::string(1 << 16, 'x') + "\n" + good);
  CHECK(tree.limit() == machine);  // "::" names the group of no controller first: the mount's root
  tree.write("proc/self/cgroup", "\n:\nx\n0:\n1:cpu\n0::/a\n");
  CHECK(tree.limit() == 2);

  Tree spaces;
  spaces.write("proc/self/mountinfo", "31 23 0:26 / /sys/my\\040groups\\134 rw - cgroup2  rw\n");
  spaces.write("proc/self/cgroup", "0::/a group\n");
  spaces.write("sys/my groups\\/a group/cpu.max", "200000 100000\n");
  CHECK(spaces.limit() == 2);
}

TEST_CASE("a quota that changes is seen at the next look") {
  Tree tree;
  tree.version_2("/", "/a");
  tree.max("/a", "400000 100000\n");
  CHECK(tree.limit() == 4);
  tree.max("/a", "100000 100000\n");
  CHECK(tree.limit() == 1);
  std::filesystem::remove_all(tree.folder.path() / "sys");
  CHECK(tree.limit() == machine);
}

TEST_CASE("this machine gives at least one processor") {
  CHECK(cpu_limit() >= 1);
  CHECK(cpu_limit() == shrike::available_threads());
}
