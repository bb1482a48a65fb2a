// Which of several ways to compute the same thing is the fastest for a shape: measured once, remembered on disk.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace shrike::cuda {

// What a choice depends on. `extent` are the sizes that follow the image (height and width of a map, rows of a matrix); the
// others stand in `fixed`: channels, filter, stride, flags, whether TF32 is allowed.
struct TuneKey {
  std::string pass;  // "conv2d_forward"
  std::vector<std::int64_t> fixed;
  std::array<std::int64_t, 2> extent{1, 1};

  auto operator<=>(const TuneKey&) const = default;
};

// Runs the call once and gives the seconds that it took on the device.
using Stopwatch = std::function<double(const std::function<void()>&)>;

// Chooses by timing. Each candidate writes the same result, all of it, so that running one twice does no harm. Thread-safe; one
// thread measures at a time.
//
// Images come in many sizes, and each would be a shape to measure. So extents are rounded up to classes 1/8 apart, all of a
// class share one choice, and a family (all but the extent) is measured at most `family_limit` times: beyond that the choice of
// the nearest extent serves. The entries on disk count too, so that the answer is the same in the next run: choices depend on
// the file and on nothing else once a shape's family was met. They are on disk before they are first used, which is why a run
// that is killed and resumed computes by the same kernels as one that was not.
class Autotuner {
 public:
  static constexpr std::size_t family_limit = 24;
  static constexpr int rounds = 5;  // timed runs of each candidate, after one that is not counted

  // `path` is a JSON file that need not exist; empty: nothing is kept. `environment` names whatever makes measurements
  // comparable: device, driver, library versions. A file that is damaged, or that is no tuning file, is ignored with one line
  // on standard error, and the latter is left as it is.
  Autotuner(std::string path, std::string environment, Stopwatch stopwatch);

  // The index of the candidate to use, among `names`, of which the first is the one to take where nothing is known; `run(i)`
  // runs candidate i. A candidate that throws Error drops out, with note_failure(); if all do, the Error of the first in
  // `names` is thrown. Where `may_measure` is false (while a stream is being captured) what is not known is not measured.
  std::size_t choose(const TuneKey& key, const std::vector<std::string>& names, const std::function<void(std::size_t)>& run,
                     bool may_measure = true);

  // The extents rounded up: see above.
  static TuneKey bucket(const TuneKey& key);

  std::size_t size() const;  // choices known for this environment

 private:
  struct Choice {
    std::string winner;
    std::map<std::string, double> microseconds;  // of every candidate that ran
  };
  using Choices = std::map<TuneKey, Choice>;

  Choice measure(const std::vector<std::string>& names, const std::function<void(std::size_t)>& run) const;
  const Choice* nearest(const TuneKey& key) const;
  void load();
  void save();

  const std::string path_;
  const std::string environment_;
  const Stopwatch stopwatch_;
  mutable std::mutex mutex_;
  std::map<std::string, Choices> choices_;  // by environment; the others' are written back as they were
  bool writable_ = true;
  bool complained_ = false;  // of a damaged file
};

// Says on standard error why a candidate is not taken, once for each name in a process.
void note_failure(const std::string& name, const std::string& error);

// Where choices are kept: $SHRIKE_TUNE_CACHE if it is set (empty: nowhere), else shrike/tune.json in $XDG_CACHE_HOME or
// ~/.cache; empty if none of these is known.
std::string tune_cache_path();

// The tuner of this process's device.
Autotuner& autotuner();

}  // namespace shrike::cuda
