#include "kernels/cuda.hpp"

#if !SHRIKE_CUDA_HOST
#include <array>
#include <map>
#include <optional>

#include "cudnn_call.hpp"
#include "cudnn_int8.hpp"

namespace shrike::cuda::cudnn {
namespace {

// One object of the graph API: attributes are set, then it is finalized, and then read.
class Descriptor {
 public:
  Descriptor(cudnnBackendDescriptorType_t type, const Conv2dSizes& z) {
    cudnnBackendDescriptor_t made = nullptr;
    check(cudnnBackendCreateDescriptor(type, &made), "cudnnBackendCreateDescriptor", z);
    owned_.reset(made);
  }

  cudnnBackendDescriptor_t get() const { return owned_.get(); }

  template <class T> void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                              std::initializer_list<T> values, const Conv2dSizes& z) {
    check(cudnnBackendSetAttribute(get(), name, type, static_cast<std::int64_t>(values.size()), std::data(values)),
          "cudnnBackendSetAttribute", z);
  }
  void finalize(const char* what, const Conv2dSizes& z) {
    check(cudnnBackendFinalize(get()), message("cudnnBackendFinalize of: ", what).c_str(), z);
  }

  // Up to `room` values; how many there are.
  template <class T> std::int64_t read(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t room,
                                       T* values, const Conv2dSizes& z) const {
    std::int64_t count = 0;
    check(cudnnBackendGetAttribute(get(), name, type, room, &count, values), "cudnnBackendGetAttribute", z);
    return count;
  }

 private:
  std::unique_ptr<void, Destroy<cudnnBackendDestroyDescriptor>> owned_;
};

enum Id : std::int64_t { id_x = 1, id_weight, id_y };

// Of sizes in the order NCHW, channels innermost in memory. Not finalized yet.
Descriptor tensor(Id id, cudnnDataType_t type, const std::array<std::int64_t, 4>& sizes, const Conv2dSizes& z) {
  const auto [n, c, h, w] = sizes;
  Descriptor result(CUDNN_BACKEND_TENSOR_DESCRIPTOR, z);
  result.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, {type}, z);
  result.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, {n, c, h, w}, z);
  result.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, {h * w * c, std::int64_t{1}, w * c, c}, z);
  result.set<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, {id}, z);
  result.set<std::int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, {16}, z);
  return result;
}

Descriptor convolution(const Conv2dSizes& z) {
  Descriptor result(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, z);
  result.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, {CUDNN_DATA_INT32}, z);
  result.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, {CUDNN_CROSS_CORRELATION}, z);
  result.set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, {2}, z);
  result.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, {z.padding, z.padding}, z);
  result.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, {z.padding, z.padding}, z);
  result.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, {z.stride, z.stride}, z);
  result.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, {z.dilation, z.dilation}, z);
  return result;
}

// Whether an engine can be told our tensors as they are, and adds up integers.
bool usable(const Descriptor& engine, const Conv2dSizes& z) {
  cudnnBackendBehaviorNote_t behavior[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
  const auto behaviors =
      engine.read(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, behavior, z);
  const bool reorders = std::any_of(behavior, behavior + behaviors, [](cudnnBackendBehaviorNote_t note) {
    return note == CUDNN_BEHAVIOR_NOTE_REQUIRES_FILTER_INT8x32_REORDER ||
           note == CUDNN_BEHAVIOR_NOTE_REQUIRES_BIAS_INT8x32_REORDER;
  });
  cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  const auto numericals =
      engine.read(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, numerical, z);
  const bool plain = std::all_of(numerical, numerical + numericals, [](cudnnBackendNumericalNote_t note) {
    return note == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || note == CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP ||
           note == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;  // the order of additions, which does not matter here
  });
  return !reorders && plain;
}

// An engine made ready for a shape.
struct Plan {
  Descriptor plan;
  std::size_t workspace = 0;

  Plan(const Descriptor& configuration, const Conv2dSizes& z) : plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, z) {
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, {handle(z)}, z);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, {configuration.get()}, z);
    plan.finalize("plan", z);
    std::int64_t bytes = 0;
    plan.read(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &bytes, z);
    workspace = static_cast<std::size_t>(bytes);
    check(workspace <= workspace_limit ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED, "workspace above 256 MiB", z);
  }
};

// The computation, and plans for what cuDNN's heuristics propose for it.
class Graph {
 public:
  explicit Graph(const Conv2dSizes& z);
  const Plan& plan(int choice, const Conv2dSizes& z);

 private:
  struct Proposal {
    std::int64_t engine;
    Descriptor configuration;
    std::optional<Plan> plan;
  };

  void propose(cudnnBackendHeurMode_t mode, const Conv2dSizes& z);

  std::vector<Descriptor> parts_;  // what graph_ refers to
  Descriptor graph_;
  std::vector<Proposal> proposals_;  // usable ones of different engines, most promising first
};

Graph::Graph(const Conv2dSizes& z) : graph_(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, z) {
  const auto keep = [&](Descriptor part, const char* what) {
    part.finalize(what, z);
    return parts_.emplace_back(std::move(part)).get();
  };
  const auto x = keep(tensor(id_x, CUDNN_DATA_INT8, {z.n, z.c, z.h, z.w}, z), "tensor x");
  const auto weight = keep(tensor(id_weight, CUDNN_DATA_INT8, {z.k, z.c, z.r, z.s}, z), "tensor weight");
  const auto y = keep(tensor(id_y, CUDNN_DATA_INT32, {z.n, z.k, z.p, z.q}, z), "tensor y");
  const auto how = keep(convolution(z), "convolution");
  Descriptor convolve(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, z);
  convolve.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, {x}, z);
  convolve.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, {weight}, z);
  convolve.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, {y}, z);
  convolve.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, {how}, z);
  convolve.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, {1.0f}, z);
  convolve.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, {0.0f}, z);
  const auto operation = keep(std::move(convolve), "operation");
  graph_.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, {operation}, z);
  graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, {handle(z)}, z);
  graph_.finalize("graph of operations", z);
  try {
    propose(CUDNN_HEUR_MODE_A, z);
  } catch (const Error&) {  // the fallback's is the one to give
  }
  if (proposals_.empty()) propose(CUDNN_HEUR_MODE_FALLBACK, z);
  check(proposals_.empty() ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS, "engines for s8", z);
}

void Graph::propose(cudnnBackendHeurMode_t mode, const Conv2dSizes& z) {
  constexpr std::int64_t looked_at = 16;
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, z);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, {graph_.get()}, z);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, {mode}, z);
  heuristics.finalize("heuristics", z);
  std::vector<Descriptor> configurations;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (std::int64_t i = 0; i < looked_at; ++i) {
    handles.push_back(configurations.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, z).get());
  }
  const std::int64_t count =
      heuristics.read(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, looked_at, handles.data(), z);
  for (std::size_t i = 0; i < static_cast<std::size_t>(std::min(count, looked_at)); ++i) {
    if (proposals_.size() == code_choices) return;
    const Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR, z);
    cudnnBackendDescriptor_t of_engine = engine.get();
    configurations[i].read(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &of_engine, z);
    std::int64_t number = 0;
    engine.read(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &number, z);
    const bool known =
        std::any_of(proposals_.begin(), proposals_.end(), [&](const Proposal& other) { return other.engine == number; });
    if (!known && usable(engine, z)) proposals_.push_back({number, std::move(configurations[i]), std::nullopt});
  }
}

const Plan& Graph::plan(int choice, const Conv2dSizes& z) {
  Proposal& proposal = proposals_[std::min(static_cast<std::size_t>(choice), proposals_.size() - 1)];
  if (!proposal.plan) proposal.plan.emplace(proposal.configuration, z);
  return *proposal.plan;
}

// A thread's graphs. When they are very many, image sizes come and go, and all are made anew.
Graph& graph(const Conv2dSizes& z) {
  using Key = std::array<std::int64_t, 10>;
  constexpr std::size_t most = 4096;
  static_cast<void>(handle(z));  // made before what depends on it, destroyed after
  thread_local std::map<Key, Graph> graphs;
  const Key key{z.n, z.h, z.w, z.c, z.k, z.r, z.s, z.stride, z.padding, z.dilation};
  if (const auto found = graphs.find(key); found != graphs.end()) return found->second;
  if (graphs.size() == most) graphs.clear();
  return graphs.try_emplace(key, z).first->second;
}

}  // namespace

void convolve_codes(const Conv2dSizes& z, int choice, const std::int8_t* x, const std::int8_t* weight, std::int32_t* y) {
  const Plan& plan = graph(z).plan(choice, z);
  const cudnnHandle_t cudnn = handle(z);
  const Scratch workspace(plan.workspace);
  Descriptor arguments(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, z);
  arguments.set<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, {id_x, id_weight, id_y}, z);
  arguments.set<const void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, {x, weight, y}, z);
  arguments.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, {workspace.data<void>()}, z);
  arguments.finalize("arguments", z);
  check(cudnnBackendExecute(cudnn, plan.plan.get(), arguments.get()), "cudnnBackendExecute", z);
}

}  // namespace shrike::cuda::cudnn
#endif
