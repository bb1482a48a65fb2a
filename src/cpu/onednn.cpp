#include "onednn.hpp"

#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

namespace shrike::onednn {
namespace {

using dnnl::memory;
using dnnl::primitive_attr;
using Dims = memory::dims;

const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

dnnl::stream& stream() {
  thread_local dnnl::stream instance(engine());
  return instance;
}

// The difference between versions: 2 has an operation's description apart from the primitive's, 3 has not.
template <class P, class... Arguments>
typename P::primitive_desc describe(const primitive_attr& attributes, const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), arguments..., attributes};
#else
  return {typename P::desc(arguments...), attributes, engine()};
#endif
}

// The same for backward passes, which want a forward pass as a hint.
template <class P, class Hint, class... Arguments>
typename P::primitive_desc describe_backward(const Hint& hint, const primitive_attr& attributes,
                                             const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), arguments..., hint, attributes};
#else
  return {typename P::desc(arguments...), attributes, engine(), hint};
#endif
}

void append_relu(dnnl::post_ops& ops) {
#if DNNL_VERSION_MAJOR >= 3
  ops.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#else
  ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#endif
}

primitive_attr attributes(bool relu) {
  primitive_attr result;
  result.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (relu) {
    dnnl::post_ops ops;
    append_relu(ops);
    result.set_post_ops(ops);
  }
  return result;
}

memory::desc plain(const Dims& dims, const Dims& strides) { return {dims, memory::data_type::f32, strides}; }
memory::desc any(const Dims& dims) { return {dims, memory::data_type::f32, memory::format_tag::any}; }

// The last `capacity` primitives used.
template <class Key> class Cache {
 public:
  std::shared_ptr<const Primitive> get(const Key& key, Primitive (*make)(const Key&)) {
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = index_.find(key); found != index_.end()) {
        order_.splice(order_.begin(), order_, found->second);
        return found->second->second;
      }
    }
    auto made = std::make_shared<const Primitive>(make(key));
    const std::lock_guard lock(mutex_);
    if (const auto found = index_.find(key); found != index_.end()) return found->second->second;
    order_.emplace_front(key, made);
    index_.emplace(key, order_.begin());
    if (order_.size() > capacity) {
      index_.erase(order_.back().first);
      order_.pop_back();
    }
    return made;
  }

 private:
  static constexpr std::size_t capacity = 1024;
  std::mutex mutex_;
  std::list<std::pair<Key, std::shared_ptr<const Primitive>>> order_;
  std::map<Key, typename std::list<std::pair<Key, std::shared_ptr<const Primitive>>>::iterator> index_;
};

template <class F> auto translate(const char* what, const F& f) {
  try {
    return f();
  } catch (const dnnl::error& error) {
    fail("oneDNN ", what, ": ", error.what());
  }
}

struct Descriptions {
  memory::desc x, weight, y, bias;
};

Descriptions plain_descriptions(const Convolution& key) {
  const std::int64_t c = key.c / key.groups;
  const Dims weight_dims =
      key.groups == 1 ? Dims{key.k, c, key.r, key.s} : Dims{key.groups, key.k / key.groups, c, key.r, key.s};
  Dims weight_strides{key.r * key.s * c, 1, key.s * c, c};
  if (key.groups > 1) weight_strides.insert(weight_strides.begin(), key.k / key.groups * weight_strides[0]);
  return {plain({key.n, key.c, key.h, key.w}, {key.h * key.w * key.c, 1, key.w * key.c, key.c}),
          plain(weight_dims, weight_strides),
          plain({key.n, key.k, key.p, key.q}, {key.p * key.q * key.k, 1, key.q * key.k, key.k}),
          key.bias ? plain({key.k}, {1}) : memory::desc()};
}

#if DNNL_VERSION_MAJOR >= 3
Dims dims_of(const memory::desc& desc) { return desc.get_dims(); }
#else
Dims dims_of(const memory::desc& desc) { return desc.dims(); }
#endif

template <class F> auto with_convolution(const Convolution& key, const F& f) {
  const Descriptions plain_desc = plain_descriptions(key);
  const auto chosen = [](Layout layout, const memory::desc& desc) { return layout == Layout::any ? any(dims_of(desc)) : desc; };
  const memory::desc x = chosen(key.x, plain_desc.x);
  const memory::desc weight = chosen(key.weight, plain_desc.weight);
  const memory::desc y = chosen(key.y, plain_desc.y);
  const Dims strides{key.stride, key.stride}, padding{key.padding, key.padding}, dilation{key.dilation - 1, key.dilation - 1};
  const Dims end{(key.p - 1) * key.stride + key.dilation * (key.r - 1) + 1 - key.h - key.padding,
                 (key.q - 1) * key.stride + key.dilation * (key.s - 1) + 1 - key.w - key.padding};
  const auto algorithm = key.winograd ? dnnl::algorithm::convolution_winograd : dnnl::algorithm::convolution_direct;
  const auto forward = [&](dnnl::prop_kind kind, const primitive_attr& attr) {
    return describe<dnnl::convolution_forward>(attr, kind, algorithm, x, weight, plain_desc.bias, y, strides, dilation, padding,
                                               end);
  };
  if (key.pass == Pass::forward) {
    const auto desc = forward(dnnl::prop_kind::forward_inference, attributes(key.relu));
    return f(desc, dnnl::convolution_forward(desc), desc.src_desc(), desc.weights_desc(), desc.dst_desc());
  }
  const auto hint = forward(dnnl::prop_kind::forward_training, attributes(false));
  if (key.pass == Pass::backward_data) {
    const auto desc = describe_backward<dnnl::convolution_backward_data>(hint, attributes(false), algorithm, x, weight, y,
                                                                         strides, dilation, padding, end);
    return f(desc, dnnl::convolution_backward_data(desc), desc.diff_src_desc(), desc.weights_desc(), desc.diff_dst_desc());
  }
  const auto desc = describe_backward<dnnl::convolution_backward_weights>(hint, attributes(false), algorithm, x, weight,
                                                                          plain_desc.bias, y, strides, dilation, padding, end);
  return f(desc, dnnl::convolution_backward_weights(desc), desc.src_desc(), desc.diff_weights_desc(), desc.diff_dst_desc());
}

Primitive make_convolution(const Convolution& key) {
  return translate("convolution", [&] {
    return with_convolution(key, [&](const auto& desc, const auto& handle, const memory::desc& x, const memory::desc& weight,
                                     const memory::desc& y) {
      const Descriptions plain_desc = plain_descriptions(key);
      return Primitive{handle,          x,
                       weight,          y,
                       plain_desc.bias, desc.scratchpad_desc(),
                       plain_desc.x,    plain_desc.weight,
                       plain_desc.y,    desc.impl_info_str()};
    });
  });
}

memory wrap(const memory::desc& desc, const void* data) { return {desc, engine(), const_cast<void*>(data)}; }

void run(const char* what, const Primitive& primitive, std::unordered_map<int, memory> arguments) {
  const Scratch scratchpad(primitive.scratchpad.get_size());
  arguments.emplace(DNNL_ARG_SCRATCHPAD, wrap(primitive.scratchpad, scratchpad.data()));
  translate(what, [&] {
    primitive.handle.execute(stream(), arguments);
    stream().wait();
  });
}

}  // namespace

std::shared_ptr<const Primitive> primitive(const Convolution& key) {
  static Cache<Convolution> cache;
  return cache.get(key, make_convolution);
}

void execute(const Convolution& key, const Primitive& primitive, const float* x, const float* weight, const float* bias,
             const float* y) {
  const bool forward = key.pass == Pass::forward;
  const bool to_x = key.pass == Pass::backward_data;
  const bool to_weight = key.pass == Pass::backward_weight;
  std::unordered_map<int, memory> arguments{
      {to_x ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, wrap(primitive.x, x)},
      {to_weight ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, wrap(primitive.weight, weight)},
      {forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, wrap(primitive.y, y)}};
  if (key.bias) arguments.emplace(forward ? DNNL_ARG_BIAS : DNNL_ARG_DIFF_BIAS, wrap(primitive.bias, bias));
  run("convolution", primitive, std::move(arguments));
}

void multiply(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
              const float* b, float* y) {
  const dnnl_status_t status = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0f, a,
                                          transpose_a ? m : k, b, transpose_b ? k : n, 0.0f, y, n);
  SHRIKE_CHECK(status == dnnl_success, "oneDNN matrix product of ", m, "x", k, " and ", k, "x", n, ": status ",
               static_cast<int>(status));
}

void reorder(const memory::desc& from, const float* source, const memory::desc& to, float* target) {
  translate("reorder", [&] {
    primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::reorder::primitive_desc desc(engine(), from, engine(), to, attr);
    const Scratch scratchpad(desc.scratchpad_desc().get_size());
    dnnl::reorder(desc).execute(stream(), {{DNNL_ARG_FROM, wrap(from, source)},
                                           {DNNL_ARG_TO, wrap(to, target)},
                                           {DNNL_ARG_SCRATCHPAD, wrap(desc.scratchpad_desc(), scratchpad.data())}});
    stream().wait();
  });
}

std::string version() {
  const dnnl_version_t* linked = dnnl_version();
  return message(linked->major, ".", linked->minor, ".", linked->patch);
}

}  // namespace shrike::onednn
