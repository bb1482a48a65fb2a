// oneDNN's convolutions, with nothing around them.
#include "benchmarks/support/onednn.hpp"

#include <omp.h>

#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "benchmarks/support/random.hpp"

namespace shrike::bench::onednn {
namespace {

using dnnl::memory;
using Dims = memory::dims;

const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

dnnl::primitive_attr attributes() {
  dnnl::primitive_attr result;
  result.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return result;
}

// The difference between versions: 2 has an operation's description apart from the primitive's, 3 has not.
template <class P, class... Arguments> typename P::primitive_desc describe(const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), arguments..., attributes()};
#else
  return {typename P::desc(arguments...), attributes(), engine()};
#endif
}

// The same for backward passes, which want a forward pass as a hint.
template <class P, class Hint, class... Arguments>
typename P::primitive_desc describe_backward(const Hint& hint, const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), arguments..., hint, attributes()};
#else
  return {typename P::desc(arguments...), attributes(), engine(), hint};
#endif
}

memory::desc any(const Dims& dims) { return {dims, memory::data_type::f32, memory::format_tag::any}; }

// What a call needs: the primitive, its arguments, and the tensors that these lie in.
struct Call {
  dnnl::primitive primitive;
  dnnl::stream stream{engine()};
  std::unordered_map<int, memory> arguments;
  std::vector<Tensor> tensors;

  void add(int name, const memory::desc& desc) {
    const std::size_t bytes = desc.get_size();
    if (bytes == 0) return;
    tensors.push_back(random_tensor({static_cast<std::int64_t>((bytes + sizeof(float) - 1) / sizeof(float))}));
    arguments.emplace(name, memory(desc, engine(), tensors.back().data<float>()));
  }

  void operator()() {
    primitive.execute(stream, arguments);
    stream.wait();
  }
};

struct Problem {
  memory::desc x, weight, bias, y;
  Dims strides, dilation, begin, end;
};

Problem problem(const kernels::Conv2dSizes& z) {
  const std::int64_t c = z.c / z.groups;
  const Dims weight = z.groups == 1 ? Dims{z.k, c, z.r, z.s} : Dims{z.groups, z.k / z.groups, c, z.r, z.s};
  // The padding below and on the right: what the outputs' windows reach over.
  const auto reach = [&](std::int64_t outputs, std::int64_t kernel, std::int64_t inputs) {
    return (outputs - 1) * z.stride + z.dilation * (kernel - 1) + 1 - inputs - z.padding;
  };
  return {any({z.n, z.c, z.h, z.w}),
          any(weight),
          any({z.k}),
          any({z.n, z.k, z.p, z.q}),
          {z.stride, z.stride},
          {z.dilation - 1, z.dilation - 1},
          {z.padding, z.padding},
          {reach(z.p, z.r, z.h), reach(z.q, z.s, z.w)}};
}

Call make_call(const kernels::Conv2dSizes& sizes, Pass pass, bool winograd) {
  const Problem z = problem(sizes);
  const auto algorithm = winograd ? dnnl::algorithm::convolution_winograd : dnnl::algorithm::convolution_direct;
  const auto kind = pass == Pass::forward ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
  const auto forward =
      describe<dnnl::convolution_forward>(kind, algorithm, z.x, z.weight, z.bias, z.y, z.strides, z.dilation, z.begin, z.end);
  Call call;
  if (pass == Pass::forward) {
    call.primitive = dnnl::convolution_forward(forward);
    call.add(DNNL_ARG_SRC, forward.src_desc());
    call.add(DNNL_ARG_WEIGHTS, forward.weights_desc());
    call.add(DNNL_ARG_BIAS, forward.bias_desc());
    call.add(DNNL_ARG_DST, forward.dst_desc());
    call.add(DNNL_ARG_SCRATCHPAD, forward.scratchpad_desc());
  } else if (pass == Pass::data) {
    const auto data = describe_backward<dnnl::convolution_backward_data>(forward, algorithm, z.x, z.weight, z.y, z.strides,
                                                                         z.dilation, z.begin, z.end);
    call.primitive = dnnl::convolution_backward_data(data);
    call.add(DNNL_ARG_DIFF_SRC, data.diff_src_desc());
    call.add(DNNL_ARG_WEIGHTS, data.weights_desc());
    call.add(DNNL_ARG_DIFF_DST, data.diff_dst_desc());
    call.add(DNNL_ARG_SCRATCHPAD, data.scratchpad_desc());
  } else {
    const auto weight = describe_backward<dnnl::convolution_backward_weights>(forward, algorithm, z.x, z.weight, z.bias, z.y,
                                                                              z.strides, z.dilation, z.begin, z.end);
    call.primitive = dnnl::convolution_backward_weights(weight);
    call.add(DNNL_ARG_SRC, weight.src_desc());
    call.add(DNNL_ARG_DIFF_WEIGHTS, weight.diff_weights_desc());
    call.add(DNNL_ARG_DIFF_BIAS, weight.diff_bias_desc());
    call.add(DNNL_ARG_DIFF_DST, weight.diff_dst_desc());
    call.add(DNNL_ARG_SCRATCHPAD, weight.scratchpad_desc());
  }
  return call;
}

template <class F> auto translate(const F& f) {
  try {
    return f();
  } catch (const dnnl::error& error) {
    fail("oneDNN convolution: ", error.what());
  }
}

}  // namespace

std::string version() {
  const dnnl_version_t* linked = dnnl_version();
  return message(linked->major, ".", linked->minor, ".", linked->patch);
}

void set_threads(int threads) { omp_set_num_threads(threads); }

std::function<void()> convolution(const kernels::Conv2dSizes& sizes, Pass pass, bool winograd) {
  const auto call = std::make_shared<Call>(translate([&] { return make_call(sizes, pass, winograd); }));
  return [call] { translate([&] { (*call)(); }); };
}

}  // namespace shrike::bench::onednn
