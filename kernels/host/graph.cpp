// Graphs where the host plays the device: what was recorded is a list of calls with their arguments.
#include "src/cuda/graph.hpp"

namespace shrike::cuda {

namespace host {
thread_local Recorded* recorded = nullptr;
}

struct Graph::Executable {
  host::Recorded work;
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

// In a replay, blocks come and go in the eyes of the address sanitizer as they did in the recording.
void remember_use(void* block, std::size_t used, std::size_t size) {
  if (host::recorded == nullptr) return;
  host::recorded->calls.push_back([=] { CachingAllocator::mark_used(block, used, size); });
}

}  // namespace

Graph::Graph(const std::function<void()>& work)
    : memory_(allocator(Cuda{}), remember_use), executable_(std::make_unique<Executable>()) {
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
}

std::size_t Graph::nodes() const { return executable_->work.nodes; }

bool capturing() { return host::recorded != nullptr; }

}  // namespace shrike::cuda
