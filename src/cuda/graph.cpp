#include "graph.hpp"

#if !SHRIKE_CUDA_HOST

#include <type_traits>

namespace shrike::cuda {
namespace {

thread_local cudaStream_t stream_of_capture = nullptr;

// From construction to end() or destruction, whichever comes first.
class Capture {
 public:
  Capture() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream to record");
    const cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) cudaStreamDestroy(stream_);
    check(error, "cudaStreamBeginCapture");
    stream_of_capture = stream_;
  }
  ~Capture() {
    if (stream_of_capture == stream_) {  // the work threw; a capture that it broke ends with an error, of which enough is said
      cudaGraph_t graph = nullptr;
      if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess && graph != nullptr) cudaGraphDestroy(graph);
      static_cast<void>(cudaGetLastError());
      stream_of_capture = nullptr;
    }
    cudaStreamDestroy(stream_);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cudaGraph_t end() {
    stream_of_capture = nullptr;
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    return graph;
  }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace

struct Graph::Executable {
  cudaGraphExec_t exec = nullptr;
  std::size_t nodes = 0;

  ~Executable() {
    if (exec != nullptr) cudaGraphExecDestroy(exec);  // one that is running is freed when it is done
  }
};

Graph::Graph(const std::function<void()>& work) : memory_(allocator(Cuda{})), executable_(std::make_unique<Executable>()) {
  static_cast<void>(stream());  // made now if this is the first use of the device
  struct Destroy {
    void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
  };
  std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, Destroy> graph;
  {
    Capture capture;
    work();
    graph.reset(capture.end());
  }
  memory_.end();
  check(cudaGraphGetNodes(graph.get(), nullptr, &executable_->nodes), "cudaGraphGetNodes");
  check(cudaGraphInstantiateWithFlags(&executable_->exec, graph.get(), 0), "cudaGraphInstantiate");
  check(cudaGraphUpload(executable_->exec, stream()), "cudaGraphUpload");  // or the first launch would ask for memory
}

Graph::~Graph() = default;

void Graph::launch() const {
  check_not_capturing("launch of a graph");
  check(cudaGraphLaunch(executable_->exec, stream()), "cudaGraphLaunch");
}

std::size_t Graph::nodes() const { return executable_->nodes; }

bool capturing() { return stream_of_capture != nullptr; }

cudaStream_t capture_stream() { return stream_of_capture; }

RelaxedCapture::RelaxedCapture() : mode_(cudaStreamCaptureModeRelaxed) {
  check(cudaThreadExchangeStreamCaptureMode(&mode_), "cudaThreadExchangeStreamCaptureMode");
}

RelaxedCapture::~RelaxedCapture() { static_cast<void>(cudaThreadExchangeStreamCaptureMode(&mode_)); }

}  // namespace shrike::cuda
#endif
