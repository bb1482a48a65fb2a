#include "autotune.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <utility>

#include "shrike/core/check.hpp"
#include "shrike/io/file.hpp"
#include "shrike/io/json.hpp"

namespace shrike::cuda {
namespace {

constexpr const char* format = "shrike tuning 1";
constexpr std::uint64_t max_file = std::uint64_t{16} << 20;
// A later candidate must be faster by more than this, so that noise does not decide between equals.
constexpr double worthwhile = 0.98;

// Like the allocator's size classes: eight to each doubling.
std::int64_t extent_class(std::int64_t extent) {
  if (extent <= 8) return std::max<std::int64_t>(extent, 1);
  const auto step = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(extent)) / 8);
  return (extent + step - 1) / step * step;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

bool same_family(const TuneKey& a, const TuneKey& b) { return a.pass == b.pass && a.fixed == b.fixed; }

// How far apart two extents are, as a ratio of sizes, in logarithms.
double distance(const TuneKey& a, const TuneKey& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.extent.size(); ++i) {
    sum += std::abs(std::log(static_cast<double>(a.extent[i])) - std::log(static_cast<double>(b.extent[i])));
  }
  return sum;
}

void note(const std::string& text) { std::fprintf(stderr, "shrike: %s\n", text.c_str()); }

}  // namespace

void note_failure(const std::string& name, const std::string& error) {
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard lock(mutex);
  if (said.insert(name).second) note(message(name, " is left out: ", error));
}

Autotuner::Autotuner(std::string path, std::string environment, Stopwatch stopwatch)
    : path_(std::move(path)), environment_(std::move(environment)), stopwatch_(std::move(stopwatch)) {
  const std::lock_guard lock(mutex_);
  load();
}

TuneKey Autotuner::bucket(const TuneKey& key) {
  TuneKey result = key;
  for (std::int64_t& extent : result.extent) extent = extent_class(extent);
  return result;
}

std::size_t Autotuner::size() const {
  const std::lock_guard lock(mutex_);
  const auto found = choices_.find(environment_);
  return found == choices_.end() ? 0 : found->second.size();
}

std::size_t Autotuner::choose(const TuneKey& exact, const std::vector<std::string>& names,
                              const std::function<void(std::size_t)>& run, bool may_measure) {
  SHRIKE_CHECK(!names.empty(), exact.pass, ": no kernel can compute this");
  if (names.size() == 1) return 0;
  const TuneKey key = bucket(exact);
  const auto index_of = [&](const std::string& winner) {
    return static_cast<std::size_t>(std::find(names.begin(), names.end(), winner) - names.begin());
  };
  const std::lock_guard lock(mutex_);
  Choices& known = choices_[environment_];
  // A winner that is not among the candidates any more was another version's: measured again.
  if (const auto found = known.find(key); found != known.end()) {
    if (const std::size_t index = index_of(found->second.winner); index < names.size()) return index;
  }
  if (!may_measure) return 0;
  load();  // another process may have chosen meanwhile
  if (const auto found = known.find(key); found != known.end()) {
    if (const std::size_t index = index_of(found->second.winner); index < names.size()) return index;
  }
  if (const Choice* near = nearest(key); near != nullptr) {
    const std::size_t index = index_of(near->winner);
    return index < names.size() ? index : 0;
  }
  Choice choice = measure(names, run);
  const std::size_t index = index_of(choice.winner);
  known[key] = std::move(choice);
  save();
  return index;
}

// The choice that serves for `key` because its family was measured often enough; nullptr while it was not. Of two at the same
// distance, the first in the map's order.
const Autotuner::Choice* Autotuner::nearest(const TuneKey& key) const {
  const Choice* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  std::size_t members = 0;
  for (const auto& [other, choice] : choices_.at(environment_)) {
    if (!same_family(key, other) || other == key) continue;
    ++members;
    if (const double d = distance(key, other); d < least) {
      least = d;
      best = &choice;
    }
  }
  return members >= family_limit ? best : nullptr;
}

// Candidates take turns, so that a clock that drifts treats them alike.
Autotuner::Choice Autotuner::measure(const std::vector<std::string>& names, const std::function<void(std::size_t)>& run) const {
  std::vector<std::vector<double>> times(names.size());
  std::vector<std::string> errors(names.size());  // of those that dropped out
  for (int round = -1; round < rounds; ++round) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!errors[i].empty()) continue;
      try {
        const double seconds = stopwatch_([&] { run(i); });
        if (round >= 0) times[i].push_back(seconds);
      } catch (const Error& error) {
        errors[i] = error.what();
      }
    }
  }
  Choice choice;
  double best = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!errors[i].empty()) continue;
    const double seconds = median(times[i]);
    choice.microseconds[names[i]] = 1e6 * seconds;
    if (choice.winner.empty() || seconds < best * worthwhile) {
      choice.winner = names[i];
      best = seconds;
    }
  }
  SHRIKE_CHECK(!choice.winner.empty(), errors[0]);
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!errors[i].empty()) note_failure(names[i], errors[i]);
  }
  return choice;
}

void Autotuner::load() {
  if (path_.empty() || !std::filesystem::exists(path_)) return;
  std::string text;
  try {
    text = read_file(path_, max_file);
  } catch (const Error& error) {
    writable_ = false;
    return note(message(error.what(), "; nothing is remembered of what is measured"));
  }
  if (text.find(format) > 64) {  // also where it is not found
    writable_ = false;
    return note(message(path_, ": not a tuning file of this version; it is left as it is, and nothing is remembered"));
  }
  try {
    std::map<std::string, Choices> read;
    const nlohmann::json root = nlohmann::json::parse(text);
    for (const auto& [environment, entries] : root.at("environments").items()) {
      for (const nlohmann::json& entry : entries) {
        TuneKey key{entry.at("pass").get<std::string>(), entry.at("fixed").get<std::vector<std::int64_t>>(),
                    entry.at("extent").get<std::array<std::int64_t, 2>>()};
        SHRIKE_CHECK(key.extent[0] > 0 && key.extent[1] > 0, "extent ", key.extent[0], "x", key.extent[1]);
        read[environment][key] = {entry.at("winner").get<std::string>(),
                                  entry.at("microseconds").get<std::map<std::string, double>>()};
      }
    }
    choices_.merge(read);  // what this process chose already stays
    for (auto& [environment, entries] : read) choices_[environment].merge(entries);
  } catch (const std::exception& error) {
    if (!std::exchange(complained_, true)) {
      note(message(path_, ": damaged tuning file, measured anew: ", error.what()));
    }
  }
}

// Takes over what other processes have written since, then writes all of it. A file that cannot be written costs no more than a
// line: the choices stay in memory.
void Autotuner::save() {
  if (path_.empty() || !writable_) return;
  load();
  if (!writable_) return;
  JsonWriter json;
  json.begin_object().field("format", format).key("environments").begin_object();
  for (const auto& [environment, entries] : choices_) {
    json.key(environment).begin_array();
    for (const auto& [key, choice] : entries) {
      json.begin_object().field("pass", key.pass).key("fixed").begin_array();
      for (const std::int64_t value : key.fixed) json.value(value);
      json.end_array().key("extent").begin_array().value(key.extent[0]).value(key.extent[1]).end_array();
      json.field("winner", choice.winner).key("microseconds").begin_object();
      for (const auto& [name, value] : choice.microseconds) json.field(name, value);
      json.end_object().end_object();
    }
    json.end_array();
  }
  json.end_object().end_object();
  std::string problem;
  for (int attempt = 0; attempt < 20; ++attempt) {  // another process may be writing right now
    try {
      std::error_code ignored;
      if (const auto folder = std::filesystem::path(path_).parent_path(); !folder.empty()) {
        std::filesystem::create_directories(folder, ignored);
      }
      return write_file_atomically(path_, json.str() + "\n");
    } catch (const Error& error) {
      problem = error.what();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  writable_ = false;
  note(message(problem, "; nothing is remembered of what is measured"));
}

std::string tune_cache_path() {
  if (const char* path = std::getenv("SHRIKE_TUNE_CACHE"); path != nullptr) return path;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') return std::string(cache) + "/shrike/tune.json";  // the standard ignores relative ones
  const char* home = std::getenv("HOME");
  return home != nullptr && *home != '\0' ? std::string(home) + "/.cache/shrike/tune.json" : std::string();
}

}  // namespace shrike::cuda
