#include "shrike/core/replay.hpp"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <list>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "graph.hpp"
#include "shrike/core/autograd.hpp"

namespace shrike {
namespace {

using Key = std::vector<double>;

struct Layout {
  Shape shape;
  Dtype dtype = Dtype::f32;
};

struct Entry {
  Key key;
  std::optional<std::vector<Layout>> results;  // known after the first run
  Tensors inputs, outputs;                     // of the graph, in its memory
  std::unique_ptr<cuda::Graph> graph;
  bool failed = false;
};

bool same_places(const Tensors& a, const Tensors& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Tensor& x, const Tensor& y) {
    return x.raw() == y.raw() && x.dtype() == y.dtype() && x.shape() == y.shape();
  });
}

// The numbers that decide what is recorded.
Key full_key(const std::vector<double>& settings, const Tensors& inputs) {
  Key key = settings;
  key.push_back(cuda_settings().tf32 ? 1 : 0);
  key.push_back(static_cast<double>(cuda_settings().provider));
  for (const Tensor& input : inputs) {
    key.push_back(static_cast<double>(input.dtype()));
    key.push_back(input.rank());
    for (const std::int64_t size : input.shape()) key.push_back(static_cast<double>(size));
  }
  return key;
}

// Throws Error when the work cannot be recorded.
void record(Entry& entry, const Tensors& inputs, const Replay::Work& work) {
  entry.graph = std::make_unique<cuda::Graph>([&] {
    entry.inputs.clear();
    for (const Tensor& input : inputs) entry.inputs.emplace_back(input.shape(), input.dtype(), input.device());
    entry.outputs = work(entry.inputs);
  });
  const bool fits = std::equal(
      entry.outputs.begin(), entry.outputs.end(), entry.results->begin(), entry.results->end(),
      [](const Tensor& output, const Layout& had) { return output.shape() == had.shape && output.dtype() == had.dtype; });
  SHRIKE_CHECK(fits, "the same work gave other shapes the second time");
}

// Recording, launching and the copies around a launch are one step: graphs share their memory. Nothing is allocated under this
// lock but by recordings, which never call release_all().
std::mutex mutex;

}  // namespace

struct Replay::State {
  std::list<Entry> entries;  // the last used first
  Dependencies dependencies;
  Counts counts;

  static std::set<State*>& all() {
    static auto* instance = new std::set<State*>;  // never destroyed: detectors may be static
    return *instance;
  }
  State() { all().insert(this); }
  ~State() {
    const std::lock_guard lock(mutex);
    all().erase(this);
  }

  // Moves it to the front.
  Entry* find(const Key& key) {
    const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.key == key; });
    if (found == entries.end()) return nullptr;
    entries.splice(entries.begin(), entries, found);
    return &entries.front();
  }
};

Tensors Replay::run(Cuda, const std::vector<double>& settings, const Dependencies& dependencies, const Tensors& inputs,
                    const Work& work) {
  if (cuda::capturing()) return work(inputs);
  const NoGrad no_grad;
  const Key key = full_key(settings, inputs);
  std::list<Entry> dropped;  // this and the next are destroyed after the lock was given back
  Dependencies replaced;
  std::string complaint;
  std::unique_lock lock(mutex);
  if (state_ == nullptr) state_ = std::make_shared<State>();
  State& state = *state_;
  const auto current = [&] {
    return state.dependencies.objects == dependencies.objects && same_places(state.dependencies.tensors, dependencies.tensors);
  };
  if (!current()) {
    dropped.splice(dropped.end(), state.entries);
    replaced = std::exchange(state.dependencies, dependencies);
  }
  Entry* entry = state.find(key);
  if (entry == nullptr) {
    state.entries.emplace_front().key = key;
    if (state.entries.size() > most_shapes) dropped.splice(dropped.end(), state.entries, std::prev(state.entries.end()));
  } else if (entry->results && !entry->failed) {
    const std::vector<Layout> layouts = *entry->results;
    lock.unlock();
    Tensors results;
    for (const Layout& layout : layouts) results.emplace_back(layout.shape, layout.dtype, Device::cuda);
    lock.lock();
    entry = current() ? state.find(key) : nullptr;  // it may have been dropped for want of memory
    if (entry != nullptr && entry->graph == nullptr && !entry->failed) {
      try {
        record(*entry, inputs, work);
        ++state.counts.recorded;
      } catch (const Error& error) {
        complaint = error.what();
        entry->failed = true;
        entry->inputs.clear();
        entry->outputs.clear();
        entry->graph.reset();
        ++state.counts.failed;
      }
    }
    if (entry != nullptr && entry->graph != nullptr) {
      for (std::size_t i = 0; i < inputs.size(); ++i) entry->inputs[i].copy_from(inputs[i]);
      entry->graph->launch();
      for (std::size_t i = 0; i < results.size(); ++i) results[i].copy_from(entry->outputs[i]);
      ++state.counts.launched;
      return results;
    }
  }
  ++state.counts.run;
  lock.unlock();

  Tensors results = work(inputs);
  if (!complaint.empty()) {  // the work is not to blame
    static const bool said = [&] {
      std::cerr << "device cuda: no graph can be recorded, kernels are launched one by one: " << complaint << '\n';
      return true;
    }();
    static_cast<void>(said);
  }
  lock.lock();
  if (entry = current() ? state.find(key) : nullptr; entry != nullptr && !entry->results) {
    entry->results.emplace();
    for (const Tensor& result : results) entry->results->push_back({result.shape(), result.dtype()});
  }
  return results;
}

Replay::Counts Replay::counts() const {
  const std::lock_guard lock(mutex);
  return state_ == nullptr ? Counts{} : state_->counts;
}

std::size_t Replay::graphs() const {
  const std::lock_guard lock(mutex);
  if (state_ == nullptr) return 0;
  return static_cast<std::size_t>(
      std::count_if(state_->entries.begin(), state_->entries.end(), [](const Entry& entry) { return entry.graph != nullptr; }));
}

bool Replay::release_all() {
  std::list<Entry> dropped;
  std::list<Dependencies> replaced;
  // A recording may wait for a lock (the autotuner's) that the caller holds: better out of memory than for ever.
  std::unique_lock lock(mutex, std::defer_lock);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!lock.try_lock()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (State* state : State::all()) {
    dropped.splice(dropped.end(), state->entries);
    replaced.push_back(std::exchange(state->dependencies, {}));
  }
  return std::any_of(dropped.begin(), dropped.end(), [](const Entry& entry) { return entry.graph != nullptr; });
}

}  // namespace shrike
