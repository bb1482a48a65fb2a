// The sizes of a tensor, outermost first. Rank 0 is a scalar with one element.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <vector>

#include "shrike/core/check.hpp"

namespace shrike {

class Shape {
 public:
  static constexpr int max_rank = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) : Shape(sizes.begin(), sizes.size()) {}
  explicit Shape(const std::vector<std::int64_t>& sizes) : Shape(sizes.data(), sizes.size()) {}

  int rank() const { return rank_; }

  // Size of dimension `i`; negative counts from the end. Throws Error when out of range.
  std::int64_t operator[](int i) const {
    const int k = i < 0 ? i + rank_ : i;
    SHRIKE_CHECK(k >= 0 && k < rank_, "dimension ", i, " of a shape of rank ", rank_);
    return sizes_[static_cast<std::size_t>(k)];
  }

  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= sizes_[static_cast<std::size_t>(i)];
    return n;
  }

  const std::int64_t* begin() const { return sizes_.data(); }
  const std::int64_t* end() const { return sizes_.data() + rank_; }
  std::vector<std::int64_t> to_vector() const { return {begin(), end()}; }

  friend bool operator==(const Shape& a, const Shape& b) {
    return a.rank_ == b.rank_ && std::equal(a.begin(), a.end(), b.begin());
  }

  // Written as [2, 3, 4].
  friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    out << '[';
    for (int i = 0; i < shape.rank_; ++i) out << (i ? ", " : "") << shape[i];
    return out << ']';
  }

 private:
  Shape(const std::int64_t* sizes, std::size_t rank) : rank_(static_cast<int>(rank)) {
    SHRIKE_CHECK(rank <= max_rank, "a shape has rank ", rank, ": at most ", max_rank, " is supported");
    std::int64_t n = 1;
    for (std::size_t i = 0; i < rank; ++i) {
      SHRIKE_CHECK(sizes[i] >= 0, "a shape has a negative size: ", sizes[i]);
      SHRIKE_CHECK(!__builtin_mul_overflow(n, sizes[i], &n) || sizes[i] == 0, "a shape has more than 2^63 elements");
      sizes_[i] = sizes[i];
    }
  }

  std::array<std::int64_t, max_rank> sizes_{};
  int rank_ = 0;
};

}  // namespace shrike
