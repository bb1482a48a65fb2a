// Operations that move elements without changing them: concat, slice, reshape, flatten, permute, index_rows. All take any
// dtype; gradients flow through f32.
#pragma once

#include "shrike/core/autograd.hpp"

namespace shrike {

namespace kernels {

// `rows` runs of `bytes` bytes; their starts are from_stride and to_stride bytes apart.
struct RowCopySizes {
  std::int64_t rows, bytes, from_stride, to_stride;
};
SHRIKE_KERNEL(copy_rows, const RowCopySizes& sizes, const void* from, void* to);

// Sizes of the output; strides of the input, in elements, in the order of the output's dimensions; bytes of an element.
struct PermuteSizes {
  int rank;
  std::int64_t element;
  std::int64_t sizes[Shape::max_rank], strides[Shape::max_rank];
};
SHRIKE_KERNEL(permute_forward, const PermuteSizes& sizes, const void* x, void* y);

// x has `rows` rows, y `picked`; a row is `width` elements (forward: bytes).
struct IndexRowsSizes {
  std::int64_t rows, picked, width;
};
SHRIKE_KERNEL(index_rows_forward, const IndexRowsSizes& sizes, const void* x, const std::int32_t* index, void* y);
// dx = the sum, in order of k, of dy[k] over index[k] == row.
SHRIKE_KERNEL(index_rows_backward, const IndexRowsSizes& sizes, const float* dy, const std::int32_t* index, float* dx);

}  // namespace kernels

// The inputs one after another along `dim`.
struct Concat : Op {
  std::int64_t dim = 0;

  const char* name() const override { return "concat"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  void visit(Fields& fields) override { fields("dim", dim); }
};

// Indices begin .. end-1 of dimension `dim`.
struct Slice : Op {
  std::int64_t dim = 0, begin = 0, end = 0;

  const char* name() const override { return "slice"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  void visit(Fields& fields) override {
    fields("dim", dim);
    fields("begin", begin);
    fields("end", end);
  }
};

// The same elements under another shape, in which one size may be -1: whatever is left.
struct Reshape : Op {
  std::vector<std::int64_t> shape;

  const char* name() const override { return "reshape"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  void visit(Fields& fields) override { fields("shape", shape); }
};

// Dimensions from..rank-1 made one.
struct Flatten : Op {
  std::int64_t from = 1;

  const char* name() const override { return "flatten"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  void visit(Fields& fields) override { fields("from", from); }
};

// Dimension i of the output is dimension dims[i] of the input.
struct Permute : Op {
  std::vector<std::int64_t> dims;

  const char* name() const override { return "permute"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override { fields("dims", dims); }
};

// y[k] = x[index[k]]. Inputs x [N, ...], index s32 [K].
struct IndexRows : Op {
  const char* name() const override { return "index_rows"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
};

namespace detail {

inline std::int64_t product(const Shape& shape, int begin, int end) {
  std::int64_t n = 1;
  for (int i = begin; i < end; ++i) n *= shape[i];
  return n;
}

// A dimension given from the front, or from the back when negative, as one from the front.
inline int dimension(const char* op, std::int64_t dim, const Shape& shape) {
  const std::int64_t rank = shape.rank();
  SHRIKE_CHECK(dim >= -rank && dim < rank, op, ": dimension ", dim, " of shape ", shape);
  return static_cast<int>(dim < 0 ? dim + rank : dim);
}

inline Shape with_size(const Shape& shape, int dim, std::int64_t size) {
  std::vector<std::int64_t> sizes = shape.to_vector();
  sizes[static_cast<std::size_t>(dim)] = size;
  return Shape(sizes);
}

// Copies all of `part` to, or from, the place `offset` of dimension `dim` of `whole`.
inline void copy_part(const Tensor& part, const Tensor& whole, int dim, std::int64_t offset, bool to_whole) {
  const auto element = static_cast<std::int64_t>(size_of(part.dtype()));
  const std::int64_t inner = product(part.shape(), dim + 1, part.rank()) * element;
  const std::int64_t part_bytes = part.size(dim) * inner;
  const std::int64_t whole_bytes = whole.size(dim) * inner;
  char* at = static_cast<char*>(whole.raw()) + offset * inner;
  const std::int64_t rows = product(part.shape(), 0, dim);
  if (rows * part_bytes == 0) return;
  dispatch(part.device(), [&](auto d) {
    if (to_whole) {
      kernels::copy_rows(d, {rows, part_bytes, part_bytes, whole_bytes}, part.raw(), at);
    } else {
      kernels::copy_rows(d, {rows, part_bytes, whole_bytes, part_bytes}, at, part.raw());
    }
  });
}

}  // namespace detail

inline Tensors Concat::forward(const Tensors& in) const {
  SHRIKE_CHECK(!in.empty(), "concat: no tensors");
  const Shape& first = in[0].shape();
  const int d = detail::dimension("concat", dim, first);
  std::int64_t total = 0;
  for (const Tensor& x : in) {
    const bool fits = x.rank() == first.rank() && detail::with_size(x.shape(), d, first[d]) == first;
    SHRIKE_CHECK(fits && x.dtype() == in[0].dtype(), "concat: ", shrike::name(x.dtype()), ' ', x.shape(), " does not continue ",
                 shrike::name(in[0].dtype()), ' ', first, " along dimension ", d);
    total += x.size(d);
  }
  const Tensor y(detail::with_size(first, d, total), in[0].dtype(), in[0].device());
  std::int64_t offset = 0;
  for (const Tensor& x : in) {
    detail::copy_part(x, y, d, offset, true);
    offset += x.size(d);
  }
  return {y};
}

inline Tensors Concat::backward(const BackwardContext& context) const {
  const Tensor& dy = context.grads[0];
  const int d = detail::dimension("concat", dim, dy.shape());
  Tensors grads;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < context.inputs.size(); ++i) {
    const Tensor& x = context.inputs[i];
    Tensor dx;
    if (context.needed[i]) {
      dx = Tensor(x.shape(), Dtype::f32, dy.device());
      detail::copy_part(dx, dy, d, offset, false);
    }
    offset += x.size(d);
    grads.push_back(dx);
  }
  return grads;
}

inline Tensors Slice::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  const int d = detail::dimension("slice", dim, x.shape());
  SHRIKE_CHECK(0 <= begin && begin <= end && end <= x.size(d), "slice: indices ", begin, " to ", end, " of dimension ", d,
               " of shape ", x.shape());
  const Tensor y(detail::with_size(x.shape(), d, end - begin), x.dtype(), x.device());
  detail::copy_part(y, x, d, begin, false);
  return {y};
}

inline Tensors Slice::backward(const BackwardContext& context) const {
  const Tensor dx = zeros(context.inputs[0].shape(), Dtype::f32, context.grads[0].device());
  detail::copy_part(context.grads[0], dx, detail::dimension("slice", dim, dx.shape()), begin, true);
  return {dx};
}

inline Tensors Reshape::forward(const Tensors& in) const {
  std::vector<std::int64_t> sizes = shape;
  std::int64_t known = 1;
  std::int64_t* unknown = nullptr;
  for (std::int64_t& size : sizes) {
    SHRIKE_CHECK(size >= 0 || (size == -1 && unknown == nullptr), "reshape: a size of ", size, ": at most one may be -1");
    if (size < 0) {
      unknown = &size;
    } else {
      known *= size;
    }
  }
  if (unknown != nullptr) *unknown = known > 0 ? in[0].numel() / known : 0;
  return {in[0].view(Shape(sizes))};
}

inline Tensors Reshape::backward(const BackwardContext& context) const {
  return {context.grads[0].view(context.inputs[0].shape())};
}

inline Tensors Flatten::forward(const Tensors& in) const {
  const Shape& shape = in[0].shape();
  const int d = detail::dimension("flatten", from, shape);
  std::vector<std::int64_t> sizes(shape.begin(), shape.begin() + d);
  sizes.push_back(detail::product(shape, d, shape.rank()));
  return {in[0].view(Shape(sizes))};
}

inline Tensors Flatten::backward(const BackwardContext& context) const {
  return {context.grads[0].view(context.inputs[0].shape())};
}

inline Tensors Permute::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  const int rank = x.rank();
  SHRIKE_CHECK(static_cast<int>(dims.size()) == rank, "permute: ", dims.size(), " dimensions for shape ", x.shape());
  kernels::PermuteSizes sizes{rank, static_cast<std::int64_t>(size_of(x.dtype())), {}, {}};
  std::vector<std::int64_t> shape;
  std::vector<bool> seen(dims.size());
  for (int i = 0; i < rank; ++i) {
    const int d = detail::dimension("permute", dims[static_cast<std::size_t>(i)], x.shape());
    SHRIKE_CHECK(!seen[static_cast<std::size_t>(d)], "permute: dimension ", d, " appears twice");
    seen[static_cast<std::size_t>(d)] = true;
    shape.push_back(x.size(d));
    sizes.sizes[i] = x.size(d);
    sizes.strides[i] = detail::product(x.shape(), d + 1, rank);
  }
  const Tensor y(Shape(shape), x.dtype(), x.device());
  dispatch(x.device(), [&](auto d) { kernels::permute_forward(d, sizes, x.raw(), y.raw()); });
  return {y};
}

inline Tensors Permute::backward(const BackwardContext& context) const {
  Permute inverse;
  inverse.dims.resize(dims.size());
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const int d = detail::dimension("permute", dims[i], context.grads[0].shape());
    inverse.dims[static_cast<std::size_t>(d)] = static_cast<std::int64_t>(i);
  }
  return inverse.forward({context.grads[0]});
}

inline Tensors IndexRows::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  const Tensor& index = in[1];
  SHRIKE_CHECK(x.rank() >= 1 && index.rank() == 1, "index_rows: x of shape ", x.shape(), " and index of shape ", index.shape(),
               ": expected [N, ...] and [K]");
  const Tensor y(detail::with_size(x.shape(), 0, index.size(0)), x.dtype(), x.device());
  const std::int64_t width = detail::product(x.shape(), 1, x.rank()) * static_cast<std::int64_t>(size_of(x.dtype()));
  dispatch(x.device(), [&](auto d) {
    kernels::index_rows_forward(d, {x.size(0), index.size(0), width}, x.raw(), index.data<std::int32_t>(), y.raw());
  });
  return {y};
}

inline Tensors IndexRows::backward(const BackwardContext& context) const {
  const Tensor& x = context.inputs[0];
  const Tensor& index = context.inputs[1];
  const Tensor dx(x.shape(), Dtype::f32, x.device());
  const std::int64_t width = detail::product(x.shape(), 1, x.rank());
  dispatch(x.device(), [&](auto d) {
    kernels::index_rows_backward(d, {x.size(0), index.size(0), width}, context.grads[0].data<float>(),
                                 index.data<std::int32_t>(), dx.data<float>());
  });
  return {dx, Tensor()};
}

// Tensors of one dtype whose shapes differ in `dim` only, one after another along it.
inline Tensor concat(const Tensors& tensors, int dim) {
  Concat op;
  op.dim = dim;
  return call(std::move(op), tensors)[0];
}

// Indices begin .. end-1 of dimension `dim`, copied.
inline Tensor slice(const Tensor& x, int dim, std::int64_t begin, std::int64_t end) {
  Slice op;
  op.dim = dim;
  op.begin = begin;
  op.end = end;
  return call(std::move(op), {x})[0];
}

// The same elements, shared and not copied, under a shape of as many.
inline Tensor reshape(const Tensor& x, const Shape& shape) {
  Reshape op;
  op.shape = shape.to_vector();
  return call(std::move(op), {x})[0];
}

// [N, H, W, C] to [N, H*W*C] and the like; shared, not copied.
inline Tensor flatten(const Tensor& x, int from = 1) {
  Flatten op;
  op.from = from;
  return call(std::move(op), {x})[0];
}

inline Tensor permute(const Tensor& x, std::vector<std::int64_t> dims) {
  Permute op;
  op.dims = std::move(dims);
  return call(std::move(op), {x})[0];
}

// Rows index[0], index[1], ... of x [N, ...]; index s32 [K]. A row outside 0 .. N-1 reads as zeros and gets no gradient.
inline Tensor index_rows(const Tensor& x, const Tensor& index) { return call<IndexRows>({}, {x, index})[0]; }

}  // namespace shrike
