// Processors that a process may use, after sched_setaffinity(2), cgroups(7) and the kernel's Documentation on cgroup-v2
// (cpu.max) and sched-bwc (cpu.cfs_quota_us).
#include "cpu_limit.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

namespace shrike {
namespace {

// Of the process's first thread, so that the answer does not depend on who asks: a program may have bound some of its threads.
int affinity() {
#if defined(__linux__)
  // The mask of a machine with more processors than cpu_set_t holds needs a larger one.
  for (int most = CPU_SETSIZE; most <= 1 << 20; most *= 4) {
    std::vector<cpu_set_t> set(static_cast<std::size_t>(CPU_ALLOC_SIZE(most)) / sizeof(cpu_set_t) + 1);
    const std::size_t bytes = set.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(getpid(), bytes, set.data()) == 0) return std::max(CPU_COUNT_S(bytes, set.data()), 1);
  }
#endif
  return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
}

std::vector<std::string> words(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> result;
  for (std::string word; in >> word;) result.push_back(word);
  return result;
}

// The words of a file's first line, of which no more than a few are wanted.
std::vector<std::string> first_words(const std::string& path) {
  std::ifstream file(path);
  char line[128] = {};
  file.getline(line, sizeof line);
  return file ? words(line) : std::vector<std::string>{};
}

std::optional<double> number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

// Processors that one group may use: quota / period, where both say so.
std::optional<double> quota_of(const std::string& folder, bool version_2) {
  std::vector<std::string> both;  // "max 100000" or "150000 100000"
  if (version_2) {
    both = first_words(folder + "/cpu.max");
  } else {
    both = first_words(folder + "/cpu.cfs_quota_us");  // -1: none
    for (const std::string& word : first_words(folder + "/cpu.cfs_period_us")) both.push_back(word);
  }
  if (both.size() != 2) return std::nullopt;
  const auto time = number(both[0]), of = number(both[1]);
  if (!time || !of || *time <= 0 || *of <= 0) return std::nullopt;
  return *time / *of;
}

// The group of this process in a hierarchy, from /proc/self/cgroup: lines of "number:controllers:path".
std::string group_of(const std::string& root, const std::string& controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controllers.find("," + controller + ",") != std::string::npos) return line.substr(second + 1);
  }
  return "";
}

// Where a group is below a mount that shows the hierarchy from the group `mounted` on: "" for the mount itself, which is also
// the answer where the mount does not show the group, as in some containers.
std::string below_mount(const std::string& group, const std::string& mounted) {
  const std::string above = mounted == "/" ? "" : mounted;
  const bool inside = group.size() > above.size() + 1 && group.rfind(above + "/", 0) == 0;
  return inside && group.find("/..") == std::string::npos ? group.substr(above.size()) : "";
}

// The least quota of a group and the groups above it, up to the mount's root.
void limit_by(const std::string& mount, std::string group, bool version_2, double& least) {
  for (;;) {
    if (const auto quota = quota_of(mount + group, version_2)) least = std::min(least, *quota);
    if (group.empty()) return;
    group.erase(group.rfind('/'));  // it begins with one
  }
}

// mountinfo writes spaces and the like in a path as \040.
std::string plain(const std::string& path) {
  std::string result;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const auto digit = [&](std::size_t at) { return at < path.size() && path[at] >= '0' && path[at] <= '7'; };
    if (path[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      result += static_cast<char>((path[i + 1] - '0') * 64 + (path[i + 2] - '0') * 8 + (path[i + 3] - '0'));
      i += 3;
    } else {
      result += path[i];
    }
  }
  return result;
}

}  // namespace

int cpu_limit() { return cpu_limit("", affinity()); }

int cpu_limit(const std::string& root, int processors) {
  double least = processors;
  std::ifstream mounts(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    // "31 23 0:26 / /sys/fs/cgroup/cpu rw ... - cgroup cgroup rw,cpu,cpuacct"
    const auto parts = words(line);
    const auto dash = std::find(parts.begin(), parts.end(), "-");
    if (dash - parts.begin() < 5 || parts.end() - dash < 2) continue;
    const bool version_2 = dash[1] == "cgroup2";
    const bool cpu = dash[1] == "cgroup" && ("," + parts.back() + ",").find(",cpu,") != std::string::npos;
    if (!version_2 && !cpu) continue;
    const std::string group = below_mount(group_of(root, version_2 ? "" : "cpu"), plain(parts[3]));
    limit_by(root + plain(parts[4]), group, version_2, least);
  }
  return std::max(static_cast<int>(std::ceil(least - 1e-9)), 1);
}

}  // namespace shrike
