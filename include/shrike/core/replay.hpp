// Work that comes again with the same shapes: on Device::cuda it is recorded once and then launched as one CUDA graph, which
// costs the host a few microseconds instead of some for each of hundreds of kernels.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "shrike/core/cuda.hpp"
#include "shrike/core/tensor.hpp"

namespace shrike {

// The first run of a shape is an ordinary one, in which kernels are measured and chosen and memory is found; the second is
// recorded and launched, later ones are launched. Graphs of the shapes used last are kept, `most_shapes` at most, and a shape
// is only recorded if it comes again while it is among them: shapes that never return cost nothing. Graphs share their memory,
// and give it back when the device has no other. What cannot be recorded runs as ever, after one line on standard error.
// Thread-safe.
class Replay {
 public:
  static constexpr std::size_t most_shapes = 8;

  // From the inputs alone, on their device, reading nothing back: whatever else decides what is computed is in Dependencies.
  using Work = std::function<Tensors(const Tensors& inputs)>;

  // Graphs are of use as long as these stay the same. Tensors may change their elements, not their place.
  struct Dependencies {
    Tensors tensors;                                   // weights
    std::vector<std::shared_ptr<const void>> objects;  // whose code and fields the work runs
  };

  struct Counts {
    std::int64_t run = 0, launched = 0;     // calls that ran the work, or launched a graph
    std::int64_t recorded = 0, failed = 0;  // attempts to record
  };

  // work(inputs), as tensors of the caller's own. `settings` are the numbers that the work depends on, beside the inputs'
  // shapes and dtypes. Other dependencies than in the last call drop all graphs; until then graphs keep these alive. All inputs
  // are on one device. On the CPU, without cuda_settings().graphs, or while a graph is recorded already, the work is simply
  // run.
  Tensors operator()(const std::vector<double>& settings, const Dependencies& dependencies, const Tensors& inputs,
                     const Work& work) {
    if (inputs.empty() || inputs[0].device() == Device::cpu || !cuda_settings().graphs) return work(inputs);
    return dispatch(inputs[0].device(), [&](auto d) { return run(d, settings, dependencies, inputs, work); });
  }

  Counts counts() const;
  std::size_t graphs() const;  // kept now

  // Drops the graphs of every Replay, so that their memory is free; false when there were none.
  static bool release_all();

 private:
  struct State;

  Tensors run(Cpu, const std::vector<double>&, const Dependencies&, const Tensors& inputs, const Work& work) {
    return work(inputs);
  }
  Tensors run(Cuda, const std::vector<double>& settings, const Dependencies& dependencies, const Tensors& inputs,
              const Work& work);

  std::shared_ptr<State> state_;
};

}  // namespace shrike
