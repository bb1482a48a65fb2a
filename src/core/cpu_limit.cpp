// Processors that a process may use, after sched_setaffinity(2), cgroups(7) and the kernel's Documentation on cgroup-v2 (cpu.max)
// and sched-bwc (cpu.cfs_quota_us).
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
#endif

namespace shrike {
namespace {

int affinity() {
#if defined(__linux__)
  // The mask of a machine with more processors than cpu_set_t holds needs a larger one.
  for (int most = CPU_SETSIZE; most <= 1 << 20; most *= 4) {
    std::vector<cpu_set_t> set(static_cast<std::size_t>(CPU_ALLOC_SIZE(most)) / sizeof(cpu_set_t) + 1);
    const std::size_t bytes = set.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, set.data()) == 0) return std::max(CPU_COUNT_S(bytes, set.data()), 1);
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

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<double> number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

// Processors that one group may use: quota / period, where both say so.
std::optional<double> quota_of(const std::string& folder, bool version_2) {
  std::string quota, period;
  if (version_2) {
    const auto parts = words(first_line(folder + "/cpu.max"));  // "max 100000" or "150000 100000"
    if (parts.size() != 2) return std::nullopt;
    quota = parts[0];
    period = parts[1];
  } else {
    const auto q = words(first_line(folder + "/cpu.cfs_quota_us")), p = words(first_line(folder + "/cpu.cfs_period_us"));
    if (q.size() != 1 || p.size() != 1) return std::nullopt;
    quota = q[0];
    period = p[0];
  }
  const auto time = number(quota), of = number(period);
  if (!time || !of || *time <= 0 || *of <= 0) return std::nullopt;
  return *time / *of;
}

// The least quota of a group and the groups above it.
void limit_by(const std::string& mount, const std::string& mounted, std::string group, bool version_2, double& least) {
  // In a container the hierarchy's mount shows this process's own group as its root.
  if (mounted != "/" && group.rfind(mounted, 0) == 0) group.erase(0, mounted.size());
  while (true) {
    if (const auto quota = quota_of(mount + group, version_2)) least = std::min(least, *quota);
    if (group.empty() || group == "/") return;
    group.erase(std::min(group.rfind('/'), group.size()));
  }
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
  return "/";
}

}  // namespace

int cpu_limit(const std::string& root) {
  double least = affinity();
  std::ifstream mounts(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    // "31 23 0:26 / /sys/fs/cgroup/cpu rw ... - cgroup cgroup rw,cpu,cpuacct"
    const auto parts = words(line);
    const auto dash = std::find(parts.begin(), parts.end(), "-");
    if (parts.size() < 5 || parts.end() - dash < 4) continue;
    const bool version_2 = dash[1] == "cgroup2";
    const bool cpu = dash[1] == "cgroup" && ("," + dash[3] + ",").find(",cpu,") != std::string::npos;
    if (version_2 || cpu) limit_by(root + parts[4], parts[3], group_of(root, version_2 ? "" : "cpu"), version_2, least);
  }
  return std::max(static_cast<int>(std::ceil(least - 1e-9)), 1);
}

}  // namespace shrike
