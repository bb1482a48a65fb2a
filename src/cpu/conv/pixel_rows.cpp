// Gathers the pixels that windows meet.
#include "pixel_rows.hpp"

#include <algorithm>
#include <cstring>

namespace shrike::cpu {

bool PixelRows::in_place() const {
  return r * s == 1 && stride == 1 && top == 0 && left == 0 && p == h && q == w && mask == nullptr;
}

// May write up to 15 floats too many, as rows of copies allow; what belongs there is written later.
void PixelRows::copy(const float* from, std::int64_t count, float* to) const {
  if (mask != nullptr) {
    const float* __restrict value = from;
    const float* __restrict output = mask + (from - x);
    float* __restrict result = to;
    for (std::int64_t i = 0; i < count; ++i) result[i] = output[i] > 0.0f ? value[i] : 0.0f;
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
  const bool lines = channels == c && dilation == 1;
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

}  // namespace shrike::cpu
