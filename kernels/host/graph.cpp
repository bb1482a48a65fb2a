// Graphs where the host plays the device: what was recorded is a list of calls with their arguments.
#include <map>

#include "src/cuda/graph.hpp"

namespace shrike::cuda {

namespace host {
thread_local Recorded* recorded = nullptr;
}

struct Graph::Executable {
  host::Recorded work;
  std::map<void*, std::size_t> blocks;  // of the graph's memory, and their sizes
};

namespace {

// The calls of this thread go to `work`, until the end of the scope.
class Capture {
 public:
  explicit Capture(host::Recorded& work) { host::recorded = &work; }
  ~Capture() { host::recorded = nullptr; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
};

}  // namespace

Graph::Graph(const std::function<void()>& work)
    // In a replay, blocks come and go in the eyes of the address sanitizer as they did in the recording.
    : memory_(allocator(Cuda{}),
              [this](void* block, std::size_t used, std::size_t size) {
                if (host::recorded == nullptr) return;
                executable_->blocks[block] = size;
                host::recorded->calls.push_back([=] { CachingAllocator::mark_used(block, used, size); });
              }),
      executable_(std::make_unique<Executable>()) {
  {
    const Capture capture(executable_->work);
    work();
  }
  memory_.end();
}

Graph::~Graph() = default;

void Graph::launch() const {
  check_not_capturing("launch of a graph");
  for (const auto& call : executable_->work.calls) call();
  // What was scratch here may be another graph's input, which is written before that graph is launched.
  for (const auto& [block, size] : executable_->blocks) CachingAllocator::mark_used(block, size, size);
}

std::size_t Graph::nodes() const { return executable_->work.nodes; }

bool capturing() { return host::recorded != nullptr; }

}  // namespace shrike::cuda
