#include "shrike/ops/pool.hpp"

#include <limits>

#include "greatest_codes.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::kernels {
namespace {

// The part of a window that lies inside the input: [begin, end) in one dimension, `start` where it would begin without an edge.
struct Window {
  std::int64_t start, begin, end;
  Window(std::int64_t output, std::int64_t size, const PoolSizes& z)
      : start(output * z.stride - z.padding), begin(std::max<std::int64_t>(start, 0)), end(std::min(start + z.kernel, size)) {}
};

// The windows that see input position `i`: [begin, end) of `count` outputs.
struct Seers {
  std::int64_t begin, end;
  Seers(std::int64_t i, std::int64_t count, const PoolSizes& z)
      : begin(std::max<std::int64_t>(i + z.padding - z.kernel + z.stride, 0) / z.stride),
        end(std::min((i + z.padding) / z.stride + 1, count)) {}
};

// Calls f(image, row) for all rows of all images, in parallel.
template <class F> void for_rows(std::int64_t n, std::int64_t rows, std::int64_t row_size, const F& f) {
  parallel_for(n * rows, std::max<std::int64_t>(1, (1 << 14) / std::max<std::int64_t>(row_size, 1)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) f(i / rows, i % rows);
               });
}

// What a window's mean divides by: its size, cut off where the padding ends.
float mean_factor(const Window& rows, const Window& columns, const PoolSizes& z) {
  const std::int64_t height = std::min(rows.start + z.kernel, z.h + z.padding) - rows.start;
  const std::int64_t width = std::min(columns.start + z.kernel, z.w + z.padding) - columns.start;
  return 1.0f / static_cast<float>(height * width);
}

template <class T> void max_pool_codes(const PoolSizes& z, const T* x, T* y) {
  // Four codes for the time of a float.
  for_rows(z.n, z.p, z.q * z.c / 4, [=](std::int64_t image, std::int64_t p) {
    const Window rows(p, z.h, z);
    const T* const line = x + (image * z.h + rows.begin) * z.w * z.c;
    T* to = y + (image * z.p + p) * z.q * z.c;
    for (std::int64_t q = 0; q < z.q; ++q, to += z.c) {
      const Window columns(q, z.w, z);
      greatest_codes(rows.end - rows.begin, columns.end - columns.begin, z.w * z.c, z.c, line + columns.begin * z.c, to);
    }
  });
}

}  // namespace

void quantized_max_pool2d_forward(Cpu, const PoolSizes& z, Dtype dtype, const void* x, void* y) {
  if (dtype == Dtype::u8) {
    max_pool_codes(z, static_cast<const std::uint8_t*>(x), static_cast<std::uint8_t*>(y));
  } else if (dtype == Dtype::s8) {
    max_pool_codes(z, static_cast<const std::int8_t*>(x), static_cast<std::int8_t*>(y));
  } else {
    max_pool_codes(z, static_cast<const Half*>(x), static_cast<Half*>(y));
  }
}

// Channels in blocks, with positions as wide as the values, so that the compiler keeps both in vectors.
void max_pool2d_forward(Cpu, const PoolSizes& z, const float* x, float* y, std::uint8_t* argmax) {
  constexpr std::int64_t block = 64;
  const auto pool = [](const PoolSizes& sizes, const Window& rows, const Window& columns, const float* image,
                       std::int64_t channels, float* __restrict to, std::uint8_t* __restrict where) {
    alignas(64) float best[block];
    alignas(64) std::int32_t positions[block];
    for (std::int64_t c = 0; c < block; ++c) best[c] = -std::numeric_limits<float>::infinity();
    const auto start = static_cast<std::int32_t>((rows.begin - rows.start) * sizes.kernel + columns.begin - columns.start);
    for (std::int64_t c = 0; c < block; ++c) positions[c] = start;
    for (std::int64_t h = rows.begin; h < rows.end; ++h) {
      for (std::int64_t w = columns.begin; w < columns.end; ++w) {
        const float* __restrict from = image + (h * sizes.w + w) * sizes.c;
        const auto position = static_cast<std::int32_t>((h - rows.start) * sizes.kernel + w - columns.start);
        for (std::int64_t c = 0; c < channels; ++c) {
          const bool better = (from[c] > best[c]) | (from[c] != from[c]);
          positions[c] = better ? position : positions[c];
          best[c] = better ? from[c] : best[c];
        }
      }
    }
    for (std::int64_t c = 0; c < channels; ++c) to[c] = best[c];
    for (std::int64_t c = 0; c < channels; ++c) where[c] = static_cast<std::uint8_t>(positions[c]);
  };
  for_rows(z.n, z.p, z.q * z.c, [=](std::int64_t image, std::int64_t p) {
    const Window rows(p, z.h, z);
    for (std::int64_t q = 0; q < z.q; ++q) {
      const Window columns(q, z.w, z);
      const std::int64_t at = ((image * z.p + p) * z.q + q) * z.c;
      const float* from = x + image * z.h * z.w * z.c;
      std::int64_t c = 0;
      for (; c + block <= z.c; c += block) pool(z, rows, columns, from + c, block, y + at + c, argmax + at + c);
      if (c < z.c) pool(z, rows, columns, from + c, z.c - c, y + at + c, argmax + at + c);
    }
  });
}

// Every input element gathers from the windows that chose it, so that windows may overlap and threads need not meet.
void max_pool2d_backward(Cpu, const PoolSizes& z, const std::uint8_t* argmax, const float* dy, float* dx) {
  for_rows(z.n, z.h, z.w * z.c, [=](std::int64_t image, std::int64_t h) {
    const Seers rows(h, z.p, z);
    for (std::int64_t w = 0; w < z.w; ++w) {
      const Seers columns(w, z.q, z);
      float* __restrict to = dx + ((image * z.h + h) * z.w + w) * z.c;
      bool first = true;
      for (std::int64_t p = rows.begin; p < rows.end; ++p) {
        for (std::int64_t q = columns.begin; q < columns.end; ++q) {
          const std::int64_t at = ((image * z.p + p) * z.q + q) * z.c;
          const float* __restrict from = dy + at;
          const std::uint8_t* __restrict where = argmax + at;
          const auto position =
              static_cast<std::uint8_t>((h - Window(p, z.h, z).start) * z.kernel + w - Window(q, z.w, z).start);
          if (first) {
            for (std::int64_t c = 0; c < z.c; ++c) to[c] = where[c] == position ? from[c] : 0.0f;
            first = false;
          } else {
            for (std::int64_t c = 0; c < z.c; ++c) to[c] += where[c] == position ? from[c] : 0.0f;
          }
        }
      }
      if (first) std::fill_n(to, z.c, 0.0f);
    }
  });
}

void avg_pool2d_forward(Cpu, const PoolSizes& z, const float* x, float* y) {
  for_rows(z.n, z.p, z.q * z.c, [=](std::int64_t image, std::int64_t p) {
    const Window rows(p, z.h, z);
    for (std::int64_t q = 0; q < z.q; ++q) {
      const Window columns(q, z.w, z);
      const float factor = mean_factor(rows, columns, z);
      float* __restrict to = y + ((image * z.p + p) * z.q + q) * z.c;
      std::fill_n(to, z.c, 0.0f);
      for (std::int64_t h = rows.begin; h < rows.end; ++h) {
        for (std::int64_t w = columns.begin; w < columns.end; ++w) {
          const float* __restrict from = x + ((image * z.h + h) * z.w + w) * z.c;
          for (std::int64_t c = 0; c < z.c; ++c) to[c] += from[c];
        }
      }
      for (std::int64_t c = 0; c < z.c; ++c) to[c] *= factor;
    }
  });
}

void avg_pool2d_backward(Cpu, const PoolSizes& z, const float* dy, float* dx) {
  for_rows(z.n, z.h, z.w * z.c, [=](std::int64_t image, std::int64_t h) {
    const Seers rows(h, z.p, z);
    for (std::int64_t w = 0; w < z.w; ++w) {
      const Seers columns(w, z.q, z);
      float* __restrict to = dx + ((image * z.h + h) * z.w + w) * z.c;
      std::fill_n(to, z.c, 0.0f);
      for (std::int64_t p = rows.begin; p < rows.end; ++p) {
        for (std::int64_t q = columns.begin; q < columns.end; ++q) {
          const float factor = mean_factor(Window(p, z.h, z), Window(q, z.w, z), z);
          const float* __restrict from = dy + ((image * z.p + p) * z.q + q) * z.c;
          for (std::int64_t c = 0; c < z.c; ++c) to[c] += factor * from[c];
        }
      }
    }
  });
}

}  // namespace shrike::kernels
