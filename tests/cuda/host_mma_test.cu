// Tensor-core products, ldmatrix and cp.async on the host against plain matrices. The layouts are spelled out element by
// element here, as the PTX manual's formulas do, and not as kernels/host/mma.cpp computes them.
#include "kernels/mma.hpp"

#include "reference.hpp"

using namespace shrike;

namespace {

template <class T> std::vector<T> random_bytes(std::size_t n, Random& random) {
  std::vector<T> values(n);
  for (T& v : values) v = static_cast<T>(random.bits());
  values[0] = static_cast<T>(-128);  // the extremes
  values[n - 1] = static_cast<T>(127);
  return values;
}

// The fragments of 32 lanes, in device memory.
struct Fragments {
  cuda::Scratch a{32 * 4 * 4}, b{32 * 2 * 4}, d{32 * 4 * 4};
};

__global__ void k32_kernel(bool a_signed, const unsigned* a, const unsigned* b, int* d) {
  unsigned ra[4], rb[2];
  int rd[4];
  for (int r = 0; r < 4; ++r) ra[r] = a[threadIdx.x * 4 + r];
  for (int r = 0; r < 2; ++r) rb[r] = b[threadIdx.x * 2 + r];
  for (int r = 0; r < 4; ++r) rd[r] = d[threadIdx.x * 4 + r];
  if (a_signed) {
    cuda::mma_m16n8k32_s8s8(rd, ra, rb);
  } else {
    cuda::mma_m16n8k32_u8s8(rd, ra, rb);
  }
  for (int r = 0; r < 4; ++r) d[threadIdx.x * 4 + r] = rd[r];
}

__global__ void k16_kernel(bool a_signed, const unsigned* a, const unsigned* b, int* d) {
  int rd[2] = {d[threadIdx.x * 2], d[threadIdx.x * 2 + 1]};
  if (a_signed) {
    cuda::mma_m8n8k16_s8s8(rd, a[threadIdx.x], b[threadIdx.x]);
  } else {
    cuda::mma_m8n8k16_u8s8(rd, a[threadIdx.x], b[threadIdx.x]);
  }
  d[threadIdx.x * 2] = rd[0];
  d[threadIdx.x * 2 + 1] = rd[1];
}

enum class Floats { tf32, bf16, f16, f16_k8 };

__global__ void floats_kernel(Floats type, const unsigned* a, const unsigned* b, float* d) {
  unsigned ra[4], rb[2];
  float rd[4];
  for (int r = 0; r < 4; ++r) ra[r] = a[threadIdx.x * 4 + r];
  for (int r = 0; r < 2; ++r) rb[r] = b[threadIdx.x * 2 + r];
  for (int r = 0; r < 4; ++r) rd[r] = d[threadIdx.x * 4 + r];
  const unsigned first[2] = {ra[0], ra[1]};
  switch (type) {
    case Floats::tf32: cuda::mma_m16n8k8_tf32(rd, ra, rb); break;
    case Floats::bf16: cuda::mma_m16n8k16_bf16(rd, ra, rb); break;
    case Floats::f16: cuda::mma_m16n8k16_f16(rd, ra, rb); break;
    case Floats::f16_k8: cuda::mma_m16n8k8_f16(rd, first, rb[0]); break;
  }
  for (int r = 0; r < 4; ++r) d[threadIdx.x * 4 + r] = rd[r];
}

// A by rows, B by columns of K; element i of a lane's A, B and D.
template <class A> void check_k32(bool a_signed) {
  Random random(3, RandomStream::test);
  const auto a = random_bytes<A>(16 * 32, random);
  const auto b = random_bytes<std::int8_t>(8 * 32, random);
  const Fragments f;
  auto* fa = f.a.data<std::uint8_t>();
  auto* fb = f.b.data<std::uint8_t>();
  auto* fd = f.d.data<int>();
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 16; ++i) {
      const int row = i < 4 || (i >= 8 && i < 12) ? group : group + 8, column = in_group * 4 + (i & 3) + (i >= 8 ? 16 : 0);
      fa[lane * 16 + i] = static_cast<std::uint8_t>(a[static_cast<std::size_t>(row * 32 + column)]);
    }
    for (int i = 0; i < 8; ++i) {
      fb[lane * 8 + i] =
          static_cast<std::uint8_t>(b[static_cast<std::size_t>(group * 32 + in_group * 4 + (i & 3) + (i >= 4 ? 16 : 0))]);
    }
    for (int i = 0; i < 4; ++i) fd[lane * 4 + i] = 1000 * lane + i;
  }
  cuda::launch(k32_kernel, 1, 32, 0, a_signed, f.a.data<unsigned>(), f.b.data<unsigned>(), fd);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = (lane >> 2) + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
      int expected = 1000 * lane + i;
      for (int k = 0; k < 32; ++k)
        expected += a[static_cast<std::size_t>(row * 32 + k)] * b[static_cast<std::size_t>(column * 32 + k)];
      REQUIRE(fd[lane * 4 + i] == expected);
    }
  }
}

template <class A> void check_k16(bool a_signed) {
  Random random(4, RandomStream::test);
  const auto a = random_bytes<A>(8 * 16, random);
  const auto b = random_bytes<std::int8_t>(8 * 16, random);
  const Fragments f;
  auto* fd = f.d.data<int>();
  for (std::size_t i = 0; i < 128; ++i) {  // lane 4 row + k / 4 holds four bytes: simply the matrices themselves
    f.a.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(a[i]);
    f.b.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(b[i]);
  }
  for (int i = 0; i < 64; ++i) fd[i] = i - 30;
  cuda::launch(k16_kernel, 1, 32, 0, a_signed, f.a.data<unsigned>(), f.b.data<unsigned>(), fd);
  for (int i = 0; i < 64; ++i) {
    const int row = i / 8, column = i % 8;  // two to a lane, four lanes to a row
    int expected = i - 30;
    for (int k = 0; k < 16; ++k)
      expected += a[static_cast<std::size_t>(row * 16 + k)] * b[static_cast<std::size_t>(column * 16 + k)];
    REQUIRE(fd[i] == expected);
  }
}

void check_floats(Floats type) {
  Random random(5, RandomStream::test);
  const bool tf32 = type == Floats::tf32;
  const int depth = tf32 || type == Floats::f16_k8 ? 8 : 16;
  const auto at = [&](int row, int k) { return static_cast<std::size_t>(row * depth + k); };
  std::vector<float> a(static_cast<std::size_t>(16 * depth)), b(static_cast<std::size_t>(8 * depth));
  for (float& v : a) v = static_cast<float>(random.below(255)) - 127.0f;  // exact in all formats
  for (float& v : b) v = static_cast<float>(random.below(255)) - 127.0f;
  const Fragments f;
  auto* fa = f.a.data<unsigned>();
  auto* fb = f.b.data<unsigned>();
  auto* fd = f.d.data<float>();
  const auto bits = [&](float v) { return type == Floats::bf16 ? std::bit_cast<unsigned>(v) >> 16 : unsigned{Half(v).bits()}; };
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, in_group = lane % 4;
    if (tf32) {
      for (int i = 0; i < 4; ++i) {  // the bits below TF32's are ignored
        const int row = i == 0 || i == 2 ? group : group + 8, column = i < 2 ? in_group : in_group + 4;
        fa[lane * 4 + i] = std::bit_cast<unsigned>(a[at(row, column)]) | 0x1fffu;
      }
      for (int i = 0; i < 2; ++i) fb[lane * 2 + i] = std::bit_cast<unsigned>(b[at(group, in_group + 4 * i)]) | 0x1000u;
    } else {
      for (int i = 0; i < depth / 2; i += 2) {
        const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8, column = in_group * 2 + (i >= 4 ? 8 : 0);
        fa[lane * 4 + i / 2] = bits(a[at(row, column)]) | bits(a[at(row, column + 1)]) << 16;
      }
      for (int i = 0; i < depth / 4; i += 2) {
        const int row = in_group * 2 + (i >= 2 ? 8 : 0);
        fb[lane * 2 + i / 2] = bits(b[at(group, row)]) | bits(b[at(group, row + 1)]) << 16;
      }
    }
    for (int i = 0; i < 4; ++i) fd[lane * 4 + i] = static_cast<float>(lane - i);
  }
  cuda::launch(floats_kernel, 1, 32, 0, type, fa, fb, fd);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = (lane >> 2) + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
      float expected = static_cast<float>(lane - i);
      for (int k = 0; k < depth; ++k) expected += a[at(row, k)] * b[at(column, k)];
      REQUIRE(fd[lane * 4 + i] == expected);
    }
  }
}

constexpr int pitch = 24;  // 16-bit elements from row to row: 48 bytes

__global__ void ldmatrix_kernel(int matrices, bool transposed, unsigned* out) {
  SHRIKE_SHARED_ALIGNED(16, std::uint16_t, rows, [32][pitch]);
  for (int i = 0; i < 8; ++i) rows[threadIdx.x][i] = static_cast<std::uint16_t>(threadIdx.x * 100 + i);
  __syncthreads();
  unsigned d[4] = {}, d1[1], d2[2];
  const void* row = rows[threadIdx.x];
  if (matrices == 1) {
    cuda::ldmatrix_x1(d1, row);
    d[0] = d1[0];
  } else if (matrices == 2) {
    cuda::ldmatrix_x2(d2, row);
    d[0] = d2[0];
    d[1] = d2[1];
  } else if (transposed) {
    cuda::ldmatrix_x4_trans(d, row);
  } else {
    cuda::ldmatrix_x4(d, row);
  }
  for (int m = 0; m < 4; ++m) out[threadIdx.x * 4 + m] = d[m];
}

// Sums `tiles` tiles of 128 floats through a ring of three stages; reversed within the tile, so that another thread's copy is
// read. Beyond n, zeros.
__global__ void pipeline_kernel(const float* x, int n, int tiles, bool small, float* y) {
  SHRIKE_SHARED_ALIGNED(16, float, ring, [3][128]);
  const int t = static_cast<int>(threadIdx.x);
  const auto fetch = [&](int tile) {
    if (tile < tiles) {
      for (int i = 0; i < (small ? 4 : 1); ++i) {
        const int to = small ? 32 * i + t : 4 * t, from = tile * 128 + to;
        if (small) {
          cuda::cp_async_4(&ring[tile % 3][to], from < n ? x + from : x, from < n);
        } else {
          cuda::cp_async_16(&ring[tile % 3][to], from < n ? x + from : x, from < n);
        }
      }
    }
    cuda::cp_async_commit();  // empty at the end, so that the wait counts alike
  };
  float sum[4] = {};
  fetch(0);
  fetch(1);
  for (int tile = 0; tile < tiles; ++tile) {
    cuda::cp_async_wait<1>();
    __syncthreads();
    fetch(tile + 2);
    for (int i = 0; i < 4; ++i) sum[i] += ring[tile % 3][127 - (32 * i + t)];
  }
  for (int i = 0; i < 4; ++i) y[32 * i + t] = sum[i];
}

}  // namespace

TEST_CASE("mma of bytes is exact, by the manual's layout") {
  check_k32<std::int8_t>(true);
  check_k32<std::uint8_t>(false);
  check_k16<std::int8_t>(true);
  check_k16<std::uint8_t>(false);
}

TEST_CASE("mma of TF32, bf16 and f16 is exact on integers, by the manual's layout") {
  for (const Floats type : {Floats::tf32, Floats::bf16, Floats::f16, Floats::f16_k8}) check_floats(type);
}

TEST_CASE("ldmatrix hands out rows, and columns where transposed") {
  const cuda::Scratch out(32 * 4 * 4);
  const auto* d = out.data<unsigned>();
  for (const int matrices : {1, 2, 4}) {
    for (const bool transposed : {false, true}) {
      if (transposed && matrices < 4) continue;
      cuda::launch(ldmatrix_kernel, 1, 32, 0, matrices, transposed, out.data<unsigned>());
      for (unsigned lane = 0; lane < 32; ++lane) {
        for (unsigned m = 0; m < static_cast<unsigned>(matrices); ++m) {
          const unsigned g = lane / 4, c = lane % 4 * 2;
          const auto element = [&](unsigned row, unsigned column) { return (8 * m + row) * 100 + column; };
          const unsigned low = transposed ? element(c, g) : element(g, c),
                         high = transposed ? element(c + 1, g) : element(g, c + 1);
          REQUIRE(d[lane * 4 + m] == (low | high << 16));
        }
      }
    }
  }
}

TEST_CASE("a pipeline of cp.async delivers what was asked for") {
  Random random(6, RandomStream::test);
  for (const bool small : {false, true}) {
    for (const int n : {4, 128, 1100, 1536}) {
      const int tiles = (n + 127) / 128;
      const Tensor x = reference::random_integers({n}, random), y({128}, Dtype::f32, Device::cuda);
      const Tensor on_device = x.to(Device::cuda);
      cuda::launch(pipeline_kernel, 1, 32, 0, on_device.data<float>(), n, tiles, small, y.data<float>());
      std::vector<float> expected(128, 0.0f);
      for (int i = 0; i < n; ++i) expected[static_cast<std::size_t>(127 - i % 128)] += x.data<float>()[i];
      CHECK(y.to_vector<float>() == expected);
    }
  }
}
