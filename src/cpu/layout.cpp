#include "shrike/ops/layout.hpp"

#include "shrike/core/threads.hpp"

namespace shrike::kernels {
namespace {

constexpr std::int64_t grain_bytes = 1 << 17;

template <class T> void permute_elements(const PermuteSizes& s, const T* x, T* y) {
  const int last = s.rank - 1;
  const std::int64_t width = s.rank > 0 ? s.sizes[last] : 1;
  const std::int64_t step = s.rank > 0 ? s.strides[last] : 1;
  std::int64_t rows = 1;
  for (int i = 0; i < last; ++i) rows *= s.sizes[i];
  if (rows * width == 0) return;
  parallel_for(rows, std::max<std::int64_t>(1, (1 << 14) / width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t rest = row;
      const T* from = x;
      for (int i = last - 1; i >= 0; --i) {
        from += rest % s.sizes[i] * s.strides[i];
        rest /= s.sizes[i];
      }
      T* to = y + row * width;
      if (step == 1) {
        std::copy(from, from + width, to);
      } else {
        for (std::int64_t i = 0; i < width; ++i) to[i] = from[i * step];
      }
    }
  });
}

}  // namespace

void copy_rows(Cpu, const RowCopySizes& s, const void* from, void* to) {
  if (s.bytes == 0) return;
  parallel_for(s.rows, std::max<std::int64_t>(1, grain_bytes / s.bytes), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::memcpy(static_cast<char*>(to) + row * s.to_stride, static_cast<const char*>(from) + row * s.from_stride,
                  static_cast<std::size_t>(s.bytes));
    }
  });
}

void permute_forward(Cpu, const PermuteSizes& s, const void* x, void* y) {
  switch (s.element) {
    case 1: return permute_elements(s, static_cast<const std::uint8_t*>(x), static_cast<std::uint8_t*>(y));
    case 2: return permute_elements(s, static_cast<const std::uint16_t*>(x), static_cast<std::uint16_t*>(y));
    case 4: return permute_elements(s, static_cast<const std::uint32_t*>(x), static_cast<std::uint32_t*>(y));
    case 8: return permute_elements(s, static_cast<const std::uint64_t*>(x), static_cast<std::uint64_t*>(y));
    default: fail("permute: elements of ", s.element, " bytes");
  }
}

void index_rows_forward(Cpu, const IndexRowsSizes& s, const void* x, const std::int32_t* index, void* y) {
  if (s.width == 0) return;
  const auto width = static_cast<std::size_t>(s.width);
  parallel_for(s.picked, std::max<std::int64_t>(1, grain_bytes / s.width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      char* to = static_cast<char*>(y) + k * s.width;
      if (index[k] >= 0 && index[k] < s.rows) {
        std::memcpy(to, static_cast<const char*>(x) + index[k] * s.width, width);
      } else {
        std::memset(to, 0, width);
      }
    }
  });
}

// Each thread owns some columns of dx, so that repeated rows add up in order.
void index_rows_backward(Cpu, const IndexRowsSizes& s, const float* dy, const std::int32_t* index, float* dx) {
  parallel_for(s.width, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = 0; row < s.rows; ++row) std::fill(dx + row * s.width + begin, dx + row * s.width + end, 0.0f);
    for (std::int64_t k = 0; k < s.picked; ++k) {
      if (index[k] < 0 || index[k] >= s.rows) continue;
      const float* __restrict from = dy + k * s.width;
      float* __restrict to = dx + index[k] * s.width;
      for (std::int64_t i = begin; i < end; ++i) to[i] += from[i];
    }
  });
}

}  // namespace shrike::kernels
