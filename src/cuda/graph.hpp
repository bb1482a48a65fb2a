// Work of the device that is recorded once and launched as a whole: a CUDA graph.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "kernels/cuda.hpp"

namespace shrike::cuda {

// A recording takes what one thread gives to stream(): kernels, copies within the device, fills. The capture has a stream of
// its own, which stream() gives to that thread meanwhile, so that other threads' work goes on and is not recorded. Launches go
// to the library's one stream, in order with everything else.
//
// What the work allocates belongs to the graph: CachingAllocator::Recording. Blocks that are free when it is recorded are taken
// first, so that after a run that was not recorded hardly any memory is asked for; where it is, cudaMalloc is called with the
// thread put into relaxed mode for this one call. Everything else that a capture could not contain (waiting for the device,
// cudaFree, memory that a library allocates) stays forbidden to the thread, and fails rather than be missing from the graph.
//
// Arguments of kernels, addresses included, are kept as they were: all memory that the work uses and did not allocate must be
// there as long as the graph is launched. Of what it did allocate, only what tensors still hold has a value after a launch,
// until the next launch of any graph.
class Graph {
 public:
  // Records what work() does. Throws Error when it cannot be recorded, as when it reads from the device or copies from the
  // host; the stream and the memory are then as before, and what work() throws goes on to the caller.
  explicit Graph(const std::function<void()>& work);
  ~Graph();  // launches under way run to their end
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Gives the work to stream(), which must not be recording.
  void launch() const;

  std::size_t nodes() const;  // kernels, copies and fills
  std::size_t bytes() const { return memory_.bytes(); }

 private:
  struct Executable;

  CachingAllocator::Recording memory_;
  std::unique_ptr<Executable> executable_;
};

// Whether this thread records: what it gives to the stream does not run now.
bool capturing();

// Throws Error, as CUDA does (cudaErrorStreamCaptureUnsupported), while this thread records.
inline void check_not_capturing(const char* what) {
  SHRIKE_CHECK(!capturing(), "CUDA: ", what, " while a graph is recorded (cudaErrorStreamCaptureUnsupported)");
}

#if !SHRIKE_CUDA_HOST
// The stream that this thread records from, or nullptr.
cudaStream_t capture_stream();

// Until the end of the scope this thread may call what its capture does not record.
class RelaxedCapture {
 public:
  RelaxedCapture();
  ~RelaxedCapture();
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_;  // that of before
};
#endif

}  // namespace shrike::cuda
