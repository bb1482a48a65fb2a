// Gathers the pixels that windows meet.
#include "pixel_rows.hpp"

#include <algorithm>
#include <cstring>

#include "../gemm/gradients.hpp"

namespace shrike::cpu {

bool PixelRows::in_place() const {
  return r * s == 1 && stride == 1 && top == 0 && left == 0 && p == h && q == w && mask == nullptr;
}

// May write up to 15 floats too many, as rows of copies allow; what belongs there is written later.
void PixelRows::copy(const float* from, std::int64_t count, float* to) const {
  if (mask != nullptr) {
    copy_where_positive(count, from, mask + (from - x), to);
  } else if (count <= 64 && from + 64 <= x + n * h * w * c) {
    for (std::int64_t i = 0; i < count; i += 16) std::memcpy(to + i, from + i, 64);
  } else if (count > 0) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
  }
}

// Elements [k0, k1) of a row, a piece at a time: side by side in x are all taps of a line where they are neighbours, else one
// tap's channels.
void PixelRows::pixel(std::int64_t number, std::int64_t k0, std::int64_t k1, float* to) const {
  const std::int64_t j = number % q, i = number / q % p, image = number / q / p;
  const bool lines = side_by_side();
  const std::int64_t width = lines ? s : 1, piece = width * channels;
  for (std::int64_t number_of_piece = k0 / piece; number_of_piece * piece < k1; ++number_of_piece) {
    const std::int64_t a = lines ? number_of_piece : number_of_piece / s, b = lines ? 0 : number_of_piece % s;
    const std::int64_t y = i * stride + top + a * dilation, column = j * stride + left + b * dilation;
    const std::int64_t begin = std::max<std::int64_t>(k0 - number_of_piece * piece, 0),
                       end = std::min(k1 - number_of_piece * piece, piece);
    std::int64_t low = end, high = end;  // inside of x
    if (y >= 0 && y < h) {
      low = std::clamp(std::clamp<std::int64_t>(-column, 0, width) * channels, begin, end);
      high = std::clamp(std::clamp<std::int64_t>(w - column, 0, width) * channels, low, end);
    }
    float* const at = to + number_of_piece * piece - k0;
    std::fill(at + begin, at + low, 0.0f);
    if (low < high) copy(x + ((image * h + y) * w + column) * c + channel + low, high - low, at + low);
    std::fill(at + high, at + end, 0.0f);
  }
}

Located PixelRows::rows(std::int64_t first, std::int64_t count, std::int64_t k0, std::int64_t k1, float* to) const {
  if (in_place()) return {x + first * c + channel + k0, c};
  const std::int64_t row = copy_stride(k1 - k0);
  for (std::int64_t i = 0; i < count; ++i) pixel(first + i, k0, k1, to + i * row);
  return {to, row};
}

// Whether the windows of outputs [begin, end) of a line lie within x.
bool PixelRows::inside(std::int64_t line, std::int64_t begin, std::int64_t end) const {
  const std::int64_t y = line % p * stride + top, column = begin * stride + left;
  return y >= 0 && y + r <= h && column >= 0 && (end - 1) * stride + left + s <= w;
}

// Each line of outputs is cut into tiles; those whose windows lie within x are in place.
void PixelRows::runs(std::int64_t first, std::int64_t count, std::int64_t k0, std::int64_t k1, std::int64_t tile, float* to,
                     std::vector<Run>& result) const {
  if (in_place() || !side_by_side() || mask != nullptr) {
    return LeftOperand::runs(first, count, k0, k1, tile, to, result);
  }
  result.clear();
  const std::int64_t width = copy_stride(k1 - k0), piece = s * channels, line_stride = w * c;
  bool copied = false;  // the last run
  for (std::int64_t row = first; row < first + count;) {
    const std::int64_t line = row / q, from = row % q, last = std::min(q, from + first + count - row);
    const std::int64_t tiles = (last - from + tile - 1) / tile;
    for (std::int64_t t = 0; t < tiles; ++t) {
      const std::int64_t begin = from + (last - from) * t / tiles, end = from + (last - from) * (t + 1) / tiles;
      const std::int64_t n_rows = end - begin, number = line * q + begin;
      const bool in_x = inside(line, begin, end);
      if (!in_x) rows(number, n_rows, k0, k1, to + (number - first) * width);
      const bool joins = !result.empty() && copied != in_x && (copied || begin > from);
      copied = !in_x;
      if (joins) {
        result.back().count += n_rows;
        continue;
      }
      if (in_x) {
        const std::int64_t y = line % p * stride + top + k0 / piece, image = line / p;
        const float* const at = x + ((image * h + y) * w + begin * stride + left) * c + k0 % piece;
        result.push_back({number, n_rows, at, stride * c, line_stride});
      } else {
        result.push_back({number, n_rows, to + (number - first) * width, width, piece});
      }
    }
    row += last - from;
  }
}

}  // namespace shrike::cpu
