// Results must not depend on the number of threads.
#pragma once

#include <functional>

#include "catch.hpp"
#include "shrike/core/tensor.hpp"
#include "shrike/core/threads.hpp"

// Whether f() gives the same bytes with 1, 2, 3, 5 and 8 threads.
inline bool same_on_any_threads(const std::function<shrike::Tensor()>& f) {
  const int before = shrike::num_threads();
  shrike::set_num_threads(1);
  const shrike::Tensor expected = f();
  bool same = true;
  for (const int threads : {2, 3, 5, 8}) {
    shrike::set_num_threads(threads);
    const shrike::Tensor got = f();
    same = same && got.shape() == expected.shape() && std::memcmp(got.raw(), expected.raw(), got.bytes()) == 0;
  }
  shrike::set_num_threads(before);
  return same;
}
