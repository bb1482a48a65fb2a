#include "shrike/ops/layout.hpp"

#include "reference.hpp"
#include "threads.hpp"

using namespace shrike;
using reference::Doubles;

namespace {

template <class T> Tensor counting(const Shape& shape, int from = 0) {
  const Tensor x(shape, dtype_of<T>);
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data<T>()[i] = static_cast<T>(from + static_cast<int>(i));
  return x;
}

// y[i] = x[from(i)]: what any operation here does, read off from its action on 0, 1, 2, ...
reference::Reference moves(const Tensor& places) {
  const auto from = places.to_vector<float>();
  return [from](const std::vector<Doubles>& in) {
    Doubles all, y;
    for (const Doubles& x : in) all.insert(all.end(), x.begin(), x.end());
    for (const float i : from) y.push_back(all[static_cast<std::size_t>(i)]);
    return y;
  };
}

}  // namespace

TEST_CASE("concat joins along any dimension and hands each its gradient") {
  CHECK(concat({tensor<float>({2, 1}, {1, 2}), tensor<float>({2, 2}, {3, 4, 5, 6})}, 1).to_vector<float>() ==
        std::vector<float>{1, 3, 4, 2, 5, 6});
  CHECK(concat({counting<std::int32_t>({2, 2}), counting<std::int32_t>({0, 2}), counting<std::int32_t>({1, 2}, 9)}, -2)
            .to_vector<std::int32_t>() == std::vector<std::int32_t>{0, 1, 2, 3, 9, 10});
  Random random(1, RandomStream::test);
  for (const int dim : {0, 1, 2, -1}) {
    Tensors parts;
    Tensors counts;
    int next = 0;
    for (const std::int64_t size : {3, 1, 0, 2}) {
      Shape shape = detail::with_size({2, 4, 3}, dim < 0 ? dim + 3 : dim, size);
      parts.push_back(reference::random_tensor(shape, random));
      counts.push_back(counting<float>(shape, next));
      next += static_cast<int>(shape.numel());
    }
    reference::check_gradients([&](const Tensors& in) { return concat(in, dim); }, moves(concat(counts, dim)), parts, random);
  }
}

TEST_CASE("slice takes a range of any dimension") {
  CHECK(slice(counting<std::uint8_t>({2, 3}), 1, 1, 3).to_vector<std::uint8_t>() == std::vector<std::uint8_t>{1, 2, 4, 5});
  CHECK(slice(counting<float>({2, 3}), 0, 2, 2).shape() == Shape{0, 3});
  Random random(2, RandomStream::test);
  for (const int dim : {0, 1, -1}) {
    const auto operation = [&](const Tensors& in) { return slice(in[0], dim, 1, 3); };
    const Tensor x = reference::random_tensor({4, 3, 5}, random);
    reference::check_gradients(operation, moves(operation({counting<float>({4, 3, 5})})), {x}, random);
  }
}

TEST_CASE("reshape and flatten share elements and hand the gradient back in the old shape") {
  const Tensor x = counting<float>({2, 3, 4}).set_requires_grad(true);
  const Tensor y = reshape(flatten(x), {4, 6});
  CHECK(y.raw() == x.raw());
  CHECK(flatten(x).shape() == Shape{2, 12});
  CHECK(flatten(x, 0).shape() == Shape{24});
  CHECK(flatten(zeros({0, 7, 7, 8})).shape() == Shape{0, 392});
  backward({y}, {counting<float>({4, 6}, 5)});
  CHECK(x.grad().shape() == x.shape());
  CHECK(x.grad().to_vector<float>() == counting<float>({24}, 5).to_vector<float>());
  Reshape op;
  op.shape = {3, -1};
  CHECK(call(op, {x})[0].shape() == Shape{3, 8});
  CHECK(to_string(op) == "reshape shape=[3, -1]");
}

TEST_CASE("permute moves dimensions of any element type, and its gradient moves them back") {
  CHECK(permute(counting<std::int8_t>({2, 3}), {1, 0}).to_vector<std::int8_t>() == std::vector<std::int8_t>{0, 3, 1, 4, 2, 5});
  CHECK(permute(counting<std::int64_t>({1, 2, 2}), {2, 0, 1}).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{0, 2, 1, 3});
  CHECK(permute(full(Shape{}, 3.0f), {}).item() == 3.0f);
  CHECK(permute(zeros({2, 0, 3}), {2, 1, 0}).shape() == Shape{3, 0, 2});
  const Tensor nchw = counting<float>({2, 3, 4, 5});
  const Tensor nhwc = permute(nchw, {0, 2, 3, 1});
  REQUIRE(nhwc.shape() == Shape{2, 4, 5, 3});
  for (std::int64_t i = 0; i < 120; ++i) {
    const std::int64_t n = i / 60, h = i / 15 % 4, w = i / 3 % 5, c = i % 3;
    CHECK(nhwc.data<float>()[i] == nchw.data<float>()[((n * 3 + c) * 4 + h) * 5 + w]);
  }
  Random random(3, RandomStream::test);
  for (const std::vector<std::int64_t>& dims : {std::vector<std::int64_t>{0, 1, 2, 3}, {3, 1, 0, 2}, {-1, 0, 1, 2}}) {
    const auto operation = [&](const Tensors& in) { return permute(in[0], dims); };
    const Tensor x = reference::random_tensor({2, 3, 1, 4}, random);
    reference::check_gradients(operation, moves(operation({counting<float>(x.shape())})), {x}, random);
  }
}

TEST_CASE("index_rows picks rows; repeated ones add their gradients up, absent ones are zero") {
  const Tensor index = tensor<std::int32_t>({6}, {4, 0, 4, -1, 5, 4});
  CHECK(index_rows(counting<std::int32_t>({5, 2}), index).to_vector<std::int32_t>() ==
        std::vector<std::int32_t>{8, 9, 0, 1, 8, 9, 0, 0, 0, 0, 8, 9});
  CHECK(index_rows(counting<float>({5}), index).to_vector<float>() == std::vector<float>{4, 0, 4, 0, 0, 4});
  CHECK(index_rows(zeros({5, 2, 3}), zeros({0}, Dtype::s32)).shape() == Shape{0, 2, 3});
  const Tensor x = counting<float>({5, 2}).set_requires_grad(true);
  backward({index_rows(x, index)}, {counting<float>({6, 2}, 1)});
  CHECK(x.grad().to_vector<float>() == std::vector<float>{3, 4, 0, 0, 0, 0, 0, 0, 1 + 5 + 11, 2 + 6 + 12});
  Random random(4, RandomStream::test);
  const Tensor wide = reference::random_tensor({9, 300}, random);
  const Tensor often(Shape{100}, Dtype::s32);
  for (int i = 0; i < 100; ++i) often.data<std::int32_t>()[i] = static_cast<std::int32_t>(random.below(9));
  const Tensor dy = reference::random_tensor({100, 300}, random);
  CHECK(same_on_any_threads([&] {
    const Tensor leaf = wide.clone().set_requires_grad(true);
    backward({index_rows(leaf, often)}, {dy});
    return leaf.grad();
  }));
}

TEST_CASE("layouts that do not fit are refused") {
  const auto says = [](const char* text) { return Catch::Matchers::Contains(text); };
  CHECK_THROWS_WITH(concat({}, 0), says("no tensors"));
  CHECK_THROWS_WITH(concat({zeros({2, 3}), zeros({3, 2})}, 0), says("[3, 2]"));
  CHECK_THROWS_WITH(concat({zeros({2}), zeros({2}, Dtype::s32)}, 0), says("s32 [2]"));
  CHECK_THROWS_WITH(concat({zeros({2})}, 1), says("dimension 1 of shape [2]"));
  CHECK_THROWS_WITH(slice(zeros({2, 3}), 1, 2, 4), says("2 to 4"));
  CHECK_THROWS_WITH(reshape(zeros({2, 3}), {4}), says("[2, 3]"));
  CHECK_THROWS_WITH(permute(zeros({2, 3}), {0}), says("[2, 3]"));
  CHECK_THROWS_WITH(permute(zeros({2, 3}), {1, 1}), says("twice"));
  CHECK_THROWS_WITH(index_rows(zeros({2, 3}), zeros({1, 1}, Dtype::s32)), says("[1, 1]"));
  CHECK_THROWS_WITH(index_rows(zeros({2, 3}), zeros({1})), says("f32"));
}
