#include "shrike/io/weights.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>

#include "shrike/core/threads.hpp"
#include "shrike/io/json.hpp"

namespace shrike {
namespace {

// Both conversions exchange channels and area inside each output: (out, C, area) in the file, (out, area, C) in memory.
struct Order {
  std::int64_t out = 1, channels = 1, area = 1;
  bool differs() const { return channels > 1 && area > 1; }
};

Order order_of(const std::string& name, const Shape& shape, const WeightOptions& options) {
  if (options.layout == WeightLayout::shrike) return {};
  if (const auto found = options.flatten.find(name); found != options.flatten.end()) {
    const auto [c, h, w] = found->second;
    SHRIKE_CHECK(shape.rank() == 2 && shape[1] == c * h * w, "tensor ", json_quote(name), " of shape ", shape,
                 " cannot follow a flattened map of ", c, " x ", h, " x ", w);
    return {shape[0], c, h * w};
  }
  if (shape.rank() == 4) return {shape[0], shape[3], shape[1] * shape[2]};
  return {};
}

Shape shape_in_file(const Shape& shape, const WeightOptions& options) {
  if (options.layout == WeightLayout::shrike || shape.rank() != 4) return shape;
  return {shape[0], shape[3], shape[1], shape[2]};
}

// y (out, columns, rows) = x (out, rows, columns), each a matrix of the outermost index transposed.
template <class From, class To>
void transpose_each(std::int64_t out, std::int64_t rows, std::int64_t columns, const From* x, To* y) {
  const std::int64_t size = rows * columns;
  parallel_for(out, std::max<std::int64_t>(1, (1 << 15) / std::max<std::int64_t>(size, 1)),
               [=](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t k = begin; k < end; ++k) {
                   for (std::int64_t column = 0; column < columns; ++column) {
                     for (std::int64_t row = 0; row < rows; ++row) {
                       y[k * size + column * rows + row] = static_cast<To>(x[k * size + row * columns + column]);
                     }
                   }
                 }
               });
}

// Calls f with a null pointer to the tensor's element type.
template <class F> void with_type(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::f32: return f(static_cast<float*>(nullptr));
    case Dtype::f16: return f(static_cast<Half*>(nullptr));
    case Dtype::s8: return f(static_cast<std::int8_t*>(nullptr));
    case Dtype::u8: return f(static_cast<std::uint8_t*>(nullptr));
    case Dtype::s32: return f(static_cast<std::int32_t*>(nullptr));
    case Dtype::s64: return f(static_cast<std::int64_t*>(nullptr));
  }
}

// The f32 values of an f16 tensor; other tensors as they are.
Tensor widened(const Tensor& tensor) {
  if (tensor.dtype() != Dtype::f16) return tensor;
  const Tensor wide(tensor.shape(), Dtype::f32);
  transpose_each(1, tensor.numel(), 1, tensor.data<Half>(), wide.data<float>());
  return wide;
}

// The tensor's elements under another shape, with the two inner indices exchanged.
Tensor transposed(const Tensor& tensor, std::int64_t out, std::int64_t rows, std::int64_t columns, const Shape& shape) {
  const Tensor result(shape, tensor.dtype());
  with_type(tensor.dtype(), [&]<class T>(T*) { transpose_each(out, rows, columns, tensor.data<T>(), result.data<T>()); });
  return result;
}

template <class T> void check_finite(const Tensor& tensor, const std::string& name, const std::string& file) {
  const T* values = tensor.data<T>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    const float value = static_cast<float>(values[i]);
    SHRIKE_CHECK(std::isfinite(value), file, ": tensor ", json_quote(name), " has ", value, " at element ", i,
                 ", expected finite weights");
  }
}

// `name` with the first fitting prefix of `from` replaced by its partner.
std::string renamed(const std::string& name, const WeightOptions& options, bool to_model) {
  for (const auto& [file, model] : options.prefixes) {
    const std::string& from = to_model ? file : model;
    if (name.starts_with(from)) return (to_model ? model : file) + name.substr(from.size());
  }
  return name;
}

// "2 missing: "a", "b"": a count and the first few.
void describe(std::string& text, const std::vector<std::string>& items, const char* what) {
  constexpr std::size_t most = 3;
  if (items.empty()) return;
  text += message(text.empty() ? "" : "; ", items.size(), " ", what, ": ");
  for (std::size_t i = 0; i < std::min(items.size(), most); ++i) text += (i ? ", " : "") + items[i];
  if (items.size() > most) text += ", ...";
}

// A flattened map of a name that the model lacks would leave some weight in the wrong order, unnoticed.
void check_flatten(const NamedTensors& model, const WeightOptions& options) {
  for (const auto& entry : options.flatten) {
    const bool known = std::any_of(model.begin(), model.end(), [&](const auto& named) { return named.first == entry.first; });
    SHRIKE_CHECK(known, "the model has no tensor ", json_quote(entry.first), " to follow a flattened map");
  }
}

struct Match {
  const std::string* name;  // in the file
  Tensor from, to;
  Order order;
};

}  // namespace

LoadedWeights load_named(const TensorFile& file, const NamedTensors& model, const WeightOptions& options) {
  check_flatten(model, options);
  std::map<std::string, const std::pair<const std::string, Tensor>*> sources;  // by name in the model
  for (const auto& named : file.tensors) {
    if (named.first.ends_with("num_batches_tracked")) continue;
    const auto [at, fresh] = sources.emplace(renamed(named.first, options, true), &named);
    SHRIKE_CHECK(fresh, file.name, ": tensors ", json_quote(at->second->first), " and ", json_quote(named.first), " are both ",
                 json_quote(at->first), " in the model");
  }

  LoadedWeights result;
  std::vector<Match> matches;
  std::vector<std::string> ill_fitting, missing, extra;  // as shown
  std::set<std::string> seen;
  for (const auto& [name, to] : model) {
    SHRIKE_CHECK(seen.insert(name).second, "the model has two tensors named ", json_quote(name));
    const auto found = sources.find(name);
    if (found == sources.end()) {
      result.missing.push_back(name);
      missing.push_back(json_quote(renamed(name, options, false)));
      continue;
    }
    const Tensor& from = found->second->second;
    const Shape expected = shape_in_file(to.shape(), options);
    const Dtype dtype = from.dtype() == Dtype::f16 && to.dtype() == Dtype::f32 ? Dtype::f32 : from.dtype();
    if (from.shape() != expected || dtype != to.dtype()) {
      ill_fitting.push_back(message(json_quote(found->second->first), " is ", shrike::name(from.dtype()), " ", from.shape(),
                                    " in the file, expected ", shrike::name(to.dtype()), " ", expected));
    } else {
      matches.push_back({&found->second->first, from, to, order_of(name, to.shape(), options)});
      result.loaded.push_back(name);
    }
    sources.erase(found);
  }
  for (const auto& [name, source] : sources) {
    result.extra.push_back(source->first);
    extra.push_back(json_quote(source->first));
  }

  std::string faults;
  if (!options.allow_missing) describe(faults, missing, "missing");
  if (!options.allow_extra) describe(faults, extra, "extra");
  describe(faults, ill_fitting, "of another shape or type");
  SHRIKE_CHECK(faults.empty(), file.name, ": the tensors do not fit the model: ", faults);
  for (const Match& match : matches) {
    if (match.from.dtype() == Dtype::f32) check_finite<float>(match.from, *match.name, file.name);
    if (match.from.dtype() == Dtype::f16) check_finite<Half>(match.from, *match.name, file.name);
  }

  for (const Match& match : matches) {
    const Order& order = match.order;
    Tensor from = match.to.dtype() == Dtype::f32 ? widened(match.from) : match.from;
    if (order.differs()) from = transposed(from, order.out, order.channels, order.area, match.to.shape());
    match.to.copy_from(from.view(match.to.shape()));
  }
  return result;
}

TensorFile export_named(const NamedTensors& model, const WeightOptions& options) {
  check_flatten(model, options);
  TensorFile file;
  for (const auto& [name, tensor] : model) {
    const Order order = order_of(name, tensor.shape(), options);
    const Shape shape = shape_in_file(tensor.shape(), options);
    const Tensor host = tensor.to(Device::cpu).detach();
    const bool fresh =
        file.tensors
            .emplace(renamed(name, options, false),
                     order.differs() ? transposed(host, order.out, order.area, order.channels, shape) : host.view(shape))
            .second;
    SHRIKE_CHECK(fresh, "two tensors of the model are named ", json_quote(renamed(name, options, false)), " in the file");
  }
  return file;
}

}  // namespace shrike
