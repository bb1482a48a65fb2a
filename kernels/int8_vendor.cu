// The kernels before and after a vendor's product of s8 codes. Bandwidth is the bound of all of them.
#include "kernels/int8_vendor.hpp"

#include "kernels/int8.cuh"
#include "kernels/reduce.cuh"

namespace shrike::kernels::int8 {
namespace {

constexpr int threads = 256, sum_threads = 128;
constexpr unsigned shift = 0x80808080u;  // x ^ 128 of four codes; and four codes 0, shifted

// V words of four codes.
template <int V> using Codes = cuda::Pack<unsigned, V>;

template <int V> __device__ __forceinline__ Codes<V> shifted(Codes<V> codes) {
#pragma unroll
  for (unsigned& word : codes.v) word ^= shift;
  return codes;
}

template <int V> __device__ __forceinline__ Codes<V> shifted_zeros() {
  Codes<V> codes;
#pragma unroll
  for (unsigned& word : codes.v) word = shift;
  return codes;
}

// a [pixels + 1, channels] = the codes - 128, and a last row of codes 0 - 128. A thread writes V words at a time, i, i +
// threads of the grid, ...; `filled` of `all` come from x. Reads and writes a byte for each code.
template <int V> __global__ void __launch_bounds__(threads)
    int8_shift_kernel(std::int64_t filled, std::int64_t all, const unsigned* __restrict__ x, unsigned* __restrict__ a) {
  for (std::int64_t i = cuda::first_index(); i < all; i += cuda::index_stride()) {
    cuda::store<V>(a + i * V, i < filled ? shifted<V>(cuda::load<V>(x + i * V)) : shifted_zeros<V>());
  }
}

// to [images, height, width, channels] = the map's codes - 128, moved by its padding, and codes 0 - 128 around them. A thread
// writes V words at a time, i, i + threads of the grid, ... of `all`. Reads and writes a byte for each code.
template <int V> __global__ void __launch_bounds__(threads)
    int8_pad_kernel(Product p, int height, int width, std::int64_t all, unsigned* __restrict__ to) {
  const int across = p.map.channels / (4 * V);
  const auto* const x = reinterpret_cast<const unsigned*>(p.map.data);
  for (std::int64_t i = cuda::first_index(); i < all; i += cuda::index_stride()) {
    const std::int64_t pixel = i / across, line = pixel / width, image = line / height;
    const int h = static_cast<int>(line - image * height) - p.map.padding;
    const int w = static_cast<int>(pixel - line * width) - p.map.padding;
    const bool inside = static_cast<unsigned>(h) < static_cast<unsigned>(p.map.height) &&
                        static_cast<unsigned>(w) < static_cast<unsigned>(p.map.width);
    const std::int64_t from = ((image * p.map.height + h) * p.map.width + w) * across + (i - pixel * across);
    cuda::store<V>(to + i * V, inside ? shifted<V>(cuda::load<V>(x + from * V)) : shifted_zeros<V>());
  }
}

// zeros[n] = sum (0 - 128) w over filter n, which is block n's. Reads the weights once.
__global__ void __launch_bounds__(sum_threads)
    int8_zero_sums_kernel(int words, const int* __restrict__ weight, std::int32_t* __restrict__ zeros) {
  SHRIKE_SHARED(double, slots, [32]);
  const int* const filter = weight + static_cast<std::int64_t>(blockIdx.x) * words;
  int sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < words; i += sum_threads) {
    sum = cuda::dp4a_s8s8(filter[i], static_cast<int>(shift), sum);
  }
  const double all = cuda::block_sum(sum, slots);  // of integers below 2^53: exact
  if (threadIdx.x == 0) zeros[blockIdx.x] = static_cast<std::int32_t>(all);
}

// y from sums [pixels, filters] less zeros [filters], if there are any. A thread makes four neighbouring outputs at a time.
// Reads 4 bytes for each output, and writes 1 or 4.
__global__ void __launch_bounds__(threads)
    int8_requantize_kernel(Product p, const std::int32_t* __restrict__ sums, const std::int32_t* __restrict__ zeros) {
  const int across = p.filters / 4;
  const std::int64_t all = static_cast<std::int64_t>(p.map.pixels) * across;
  for (std::int64_t i = cuda::first_index(); i < all; i += cuda::index_stride()) {
    const std::int64_t row = i / across;
    const int column = static_cast<int>(i - row * across) * 4;
    const auto sum = cuda::load<4>(sums + i * 4);
    cuda::Pack<std::int32_t, 4> zero{};
    if (zeros != nullptr) zero = cuda::load<4>(zeros + column);
    cuda::Pack<float, 4> y;
#pragma unroll
    for (int j = 0; j < 4; ++j) y.v[j] = finish(p, sum.v[j] - zero.v[j], row, column + j);
    if (p.to.y == Dtype::f32) {
      cuda::store<4>(static_cast<float*>(p.y) + i * 4, y);
    } else {
      cuda::Pack<std::uint8_t, 4> codes;
#pragma unroll
      for (int j = 0; j < 4; ++j) codes.v[j] = to_element(p, y.v[j]);
      cuda::store<4>(static_cast<std::uint8_t*>(p.y) + i * 4, codes);
    }
  }
}

void requantize_sums(const Product& p, const std::int32_t* sums, const std::int32_t* zeros) {
  const std::int64_t fours = std::int64_t{p.map.pixels} * (p.filters / 4);
  cuda::launch(int8_requantize_kernel, cuda::loop_blocks(fours, threads), threads, 0, p, sums, zeros);
}

std::size_t sum_bytes(std::int64_t rows, const Product& p) {
  return static_cast<std::size_t>(rows * p.filters) * sizeof(std::int32_t);
}

const std::int8_t* as_s8(const void* codes) { return static_cast<const std::int8_t*>(codes); }

bool shifts(const Product& p) { return p.to.x == Dtype::u8; }

}  // namespace

bool is_matrix(const Product& p) { return p.map.length == p.map.channels && p.map.stride == 1 && p.map.padding == 0; }

bool can_hand_over(const Product& p) {
  const auto aligned = [](const void* pointer) { return cuda::aligned(pointer, 16); };
  return p.map.channels % 4 == 0 && p.filters % 4 == 0 && aligned(p.map.data) && aligned(p.weight) && aligned(p.y);
}

void multiply_by(const cuda::CodeProduct& multiply, const Product& p) {
  const std::int64_t m = p.map.pixels, n = p.filters, k = p.map.channels;
  if (!shifts(p)) {
    const cuda::Scratch sums(sum_bytes(m, p));
    multiply(m, n, k, as_s8(p.map.data), p.weight, sums.data<std::int32_t>());
    return requantize_sums(p, sums.data<std::int32_t>(), nullptr);
  }
  // One row more, of codes 0, gives the sums that are taken off.
  const cuda::Scratch a(static_cast<std::size_t>((m + 1) * k)), sums(sum_bytes(m + 1, p));
  const auto* const x = reinterpret_cast<const unsigned*>(p.map.data);
  if (k % 16 == 0) {
    cuda::launch(int8_shift_kernel<4>, cuda::loop_blocks((m + 1) * k / 16, threads), threads, 0, m * k / 16, (m + 1) * k / 16,
                 x, a.data<unsigned>());
  } else {
    cuda::launch(int8_shift_kernel<1>, cuda::loop_blocks((m + 1) * k / 4, threads), threads, 0, m * k / 4, (m + 1) * k / 4, x,
                 a.data<unsigned>());
  }
  multiply(m + 1, n, k, a.data<std::int8_t>(), p.weight, sums.data<std::int32_t>());
  requantize_sums(p, sums.data<std::int32_t>(), sums.data<std::int32_t>() + m * n);
}

Conv2dSizes convolution_sizes(const Product& p) {
  const auto& map = p.map;
  const std::int64_t taps_h = map.length / map.channels / map.taps_w;
  Conv2dSizes z{map.pixels / (map.rows * map.columns),
                map.height,
                map.width,
                map.channels,
                p.filters,
                taps_h,
                map.taps_w,
                map.rows,
                map.columns,
                map.stride,
                map.padding,
                map.dilation,
                1,
                false};
  if (!shifts(p)) return z;
  // What padding would add is code 128: so the map is padded before, as far as the filters reach.
  z.padding = 0;
  z.h = (z.p - 1) * z.stride + (z.r - 1) * z.dilation + 1;
  z.w = (z.q - 1) * z.stride + (z.s - 1) * z.dilation + 1;
  return z;
}

void convolve_by(const cuda::CodeConvolution& convolve, const Product& p) {
  const Conv2dSizes z = convolution_sizes(p);
  const cuda::Scratch sums(sum_bytes(p.map.pixels, p));
  if (!shifts(p)) {
    convolve(z, as_s8(p.map.data), p.weight, sums.data<std::int32_t>());
    return requantize_sums(p, sums.data<std::int32_t>(), nullptr);
  }
  const cuda::Scratch x(static_cast<std::size_t>(z.n * z.h * z.w * z.c)), zeros(sum_bytes(1, p));
  const int height = static_cast<int>(z.h), width = static_cast<int>(z.w);
  if (z.c % 16 == 0) {
    const std::int64_t all = z.n * z.h * z.w * z.c / 16;
    cuda::launch(int8_pad_kernel<4>, cuda::loop_blocks(all, threads), threads, 0, p, height, width, all, x.data<unsigned>());
  } else {
    const std::int64_t all = z.n * z.h * z.w * z.c / 4;
    cuda::launch(int8_pad_kernel<1>, cuda::loop_blocks(all, threads), threads, 0, p, height, width, all, x.data<unsigned>());
  }
  cuda::launch(int8_zero_sums_kernel, static_cast<unsigned>(p.filters), sum_threads, 0, p.map.length / 4,
               reinterpret_cast<const int*>(p.weight), zeros.data<std::int32_t>());
  convolve(z, x.data<std::int8_t>(), p.weight, sums.data<std::int32_t>());
  requantize_sums(p, sums.data<std::int32_t>(), zeros.data<std::int32_t>());
}

void add_vendor_ways(std::vector<cuda::Way>& ways, const Product& p) {
  if (!can_hand_over(p)) return;
  if (is_matrix(p)) {
    cuda::add_vendor_code_product(ways, p.filters, p.map.channels,
                                  [&p](const cuda::CodeProduct& multiply) { multiply_by(multiply, p); });
  } else {
    cuda::add_vendor_code_convolution(ways, convolution_sizes(p),
                                      [&p](const cuda::CodeConvolution& convolve) { convolve_by(convolve, p); });
  }
}

}  // namespace shrike::kernels::int8
