// Moving elements on the device beside the CPU.
#include "shrike/ops/layout.hpp"
#include "cuda/pointwise.hpp"

using namespace shrike;

TEST_CASE("permutations on the device are the CPU's") {
  std::uint64_t number = 0;
  const std::vector<std::pair<Shape, std::vector<std::int64_t>>> cases = {{{2, 5, 7, 3}, {0, 3, 1, 2}},
                                                                          {{2, 3, 5, 7}, {0, 2, 3, 1}},
                                                                          {{33, 65}, {1, 0}},
                                                                          {{4, 6, 8}, {1, 0, 2}},
                                                                          {{4, 6, 8}, {2, 1, 0}},
                                                                          {{1, 1, 1}, {2, 0, 1}},
                                                                          {{2, 3, 2, 3, 2}, {4, 1, 3, 0, 2}},
                                                                          {{3, 0, 2}, {2, 0, 1}},
                                                                          {{2, 1, 3, 1, 4, 5}, {5, 3, 1, 0, 4, 2}},
                                                                          {{5}, {0}},
                                                                          {Shape{}, {}},
                                                                          {{40, 3, 33}, {0, 2, 1}}};
  for (const auto& [shape, dims] : cases) {
    INFO(message(shape));
    Random random(8, RandomStream::test, number++);
    const Tensor x = reference::random_tensor(shape, random);
    x.set_requires_grad(true);
    const auto operation = [d = dims](const Tensors& in) { return permute(in[0], d); };
    pointwise::check(operation, {x}, reference::random_tensor(operation({x.detach()}).shape(), random));
    const Tensor bytes(shape, Dtype::u8);
    for (std::int64_t i = 0; i < bytes.numel(); ++i) bytes.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(random.bits());
    pointwise::check(operation, {bytes}, {});
  }
}

TEST_CASE("concat and slice on the device are the CPU's") {
  Random random(9, RandomStream::test);
  for (const int dim : {0, 1, 2}) {
    std::vector<std::int64_t> other = {3, 4, 8};
    other[static_cast<std::size_t>(dim)] = 5;
    const Tensor a = reference::random_tensor({3, 4, 8}, random), b = reference::random_tensor(Shape(other), random);
    a.set_requires_grad(true);
    b.set_requires_grad(true);
    const auto join = [=](const Tensors& in) { return concat({in[0], in[1]}, dim); };
    pointwise::check(join, {a, b}, reference::random_tensor(join({a.detach(), b.detach()}).shape(), random));
    for (const auto& [begin, end] : {std::pair{0, 3}, {1, 2}, {2, 2}}) {
      const auto cut = [=, from = begin, to = end](const Tensors& in) { return slice(in[0], dim, from, to); };
      pointwise::check(cut, {a}, reference::random_tensor(cut({a.detach()}).shape(), random));
    }
  }
}

TEST_CASE("picked rows on the device are the CPU's, in order and to the bit") {
  std::uint64_t number = 0;
  for (const auto& [rows, picked, width] :
       {std::array{7, 20, 5}, {3, 600, 4}, {1, 1, 1}, {300, 40, 300}, {5, 0, 3}, {0, 4, 2}}) {
    INFO(rows << " rows, " << picked << " picked, of " << width);
    Random random(10, RandomStream::test, number++);
    const Tensor x = reference::random_tensor({rows, width}, random);
    x.set_requires_grad(true);
    std::vector<std::int32_t> index;
    for (int k = 0; k < picked; ++k)
      index.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(rows) + 2)) - 1);
    pointwise::check([](const Tensors& in) { return index_rows(in[0], in[1]); }, {x, tensor({picked}, index)},
                     reference::random_tensor({picked, width}, random));
  }
}
