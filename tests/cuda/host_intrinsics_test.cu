// CUDA's device functions on the host against plain code.
#include <set>

#include "error_of.hpp"
#include "kernels/cuda.hpp"
#include "kernels/mma.hpp"
#include "reference.hpp"

using namespace shrike;

namespace {

// Device memory of n elements that the test reads and writes directly: the host's heap.
template <class T> class Array {
 public:
  explicit Array(std::size_t n, T value = T{}) : scratch_(n * sizeof(T)) { std::fill(data(), data() + n, value); }
  T* data() const { return scratch_.template data<T>(); }
  T& operator[](std::size_t i) const { return data()[i]; }

 private:
  cuda::Scratch scratch_;
};

constexpr unsigned all = 0xffffffffu;

__global__ void indices_kernel(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = static_cast<int>(block * 1000 + thread);
}

__global__ void shuffles_kernel(const int* in, int width, int* out) {
  const int v = in[threadIdx.x];
  int* mine = out + 4 * threadIdx.x;
  mine[0] = __shfl_sync(all, v, 37, width);
  mine[1] = __shfl_up_sync(all, v, 3, width);
  mine[2] = __shfl_down_sync(all, v, 5, width);
  mine[3] = __shfl_xor_sync(all, v, 6, width);
}

__global__ void votes_kernel(unsigned* out) {
  const unsigned lane = threadIdx.x % 32, half = lane < 16 ? 0xffffu : 0xffff0000u;
  out[3 * threadIdx.x] = __ballot_sync(half, lane % 3 == 0);  // two groups of one warp
  out[3 * threadIdx.x + 1] = static_cast<unsigned>(__any_sync(all, lane == 7));
  out[3 * threadIdx.x + 2] = static_cast<unsigned>(__all_sync(all, lane < 31));
}

// The last warp may have fewer than 32 lanes, which must be a power of two.
__global__ void warp_sum_kernel(double* out) {
  const unsigned first = threadIdx.x / 32 * 32, lanes = blockDim.x - first < 32 ? blockDim.x - first : 32;
  double v = threadIdx.x + 0.5;
  for (unsigned distance = lanes / 2; distance > 0; distance /= 2) {
    v += __shfl_xor_sync(lanes == 32 ? all : (1u << lanes) - 1, v, static_cast<int>(distance));
  }
  out[threadIdx.x] = v;
}

__global__ void counts_kernel(int* out) {
  const int thread = static_cast<int>(threadIdx.x);
  out[3 * thread] = __syncthreads_count(thread % 2);
  out[3 * thread + 1] = __syncthreads_or(thread == 70);
  out[3 * thread + 2] = __syncthreads_and(thread < 95);
}

__global__ void atomics_kernel(int* i, unsigned* u, unsigned long long* l, float* f, int* order) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  order[atomicAdd(&i[0], 1)] = t;
  atomicMax(&i[1], t);
  atomicMin(&i[2], -t);
  atomicSub(&i[3], 2);
  atomicOr(&u[0], 1u << (t % 32));
  atomicAnd(&u[1], ~(1u << (t % 16)));
  atomicXor(&u[2], static_cast<unsigned>(t));
  atomicAdd(&l[0], 1ull << 33);
  atomicAdd(f, 0.5f);
  int seen = atomicAdd(&i[4], 0);
  for (int assumed = seen - 1; assumed != seen;) {
    assumed = seen;
    seen = atomicCAS(&i[4], assumed, assumed + 3);
  }
}

// Every block sums its own part; the last one to finish sums the parts.
__global__ void last_block_kernel(int* parts, unsigned* finished, int* total) {
  SHRIKE_SHARED(int, last, [1]);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
    __threadfence();
    last[0] = atomicAdd(finished, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last[0] != 0 && threadIdx.x == 0) {
    __threadfence();
    for (unsigned b = 0; b < gridDim.x; ++b) *total += parts[b];
  }
}

template <int N> __device__ int* scratch() {
  SHRIKE_SHARED(int, values, [N]);
  return values;
}

// Static arrays, one for each instance of a template, dynamic ones, and plain __shared__, reversed through each.
__global__ void shared_kernel(int* out) {
  SHRIKE_DYNAMIC_SHARED(int, dynamic);
  SHRIKE_SHARED_ALIGNED(16, int, matrix, [4][16]);
  __shared__ int plain[64];
  const unsigned t = threadIdx.x, r = 63 - t;
  const int value = static_cast<int>(blockIdx.x * 64 + t);
  dynamic[t] = scratch<64>()[t] = matrix[t / 16][t % 16] = plain[t] = value;
  scratch<65>()[t] = 3 * value;
  __syncthreads();
  int* mine = out + 5 * value;
  mine[0] = dynamic[r];
  mine[1] = scratch<64>()[r];
  mine[2] = scratch<65>()[r];
  mine[3] = matrix[r / 16][r % 16];
  mine[4] = plain[r];
}

}  // namespace

TEST_CASE("every thread of every block runs once, with its indices") {
  for (const auto& [grid, block] :
       {std::pair<dim3, dim3>{{3, 2, 2}, {4, 3, 2}}, {{1}, {1}}, {{5}, {1024}}, {{2, 1, 3}, {1, 7, 5}}}) {
    const unsigned threads = block.x * block.y * block.z, blocks = grid.x * grid.y * grid.z;
    const Array<int> out(threads * blocks, -1);
    cuda::launch(indices_kernel, grid, block, 0, out.data());
    for (unsigned b = 0; b < blocks; ++b) {
      for (unsigned t = 0; t < threads; ++t) REQUIRE(out[b * threads + t] == static_cast<int>(b * 1000 + t));
    }
  }
  const Array<int> out(1, -1);
  cuda::launch(indices_kernel, 0, 32, 0, out.data());
  CHECK(out[0] == -1);
}

TEST_CASE("shuffles move values within groups of their width") {
  Random random(1, RandomStream::test);
  const Array<int> in(64), out(256);
  for (std::size_t i = 0; i < 64; ++i) in[i] = static_cast<int>(random.below(1000));
  for (const int width : {32, 16, 8, 4, 2, 1}) {
    cuda::launch(shuffles_kernel, 1, 64, 0, static_cast<const int*>(in.data()), width, out.data());
    for (int t = 0; t < 64; ++t) {
      const int first = t / width * width, lane = t - first;
      const auto at = [&](int source) { return in[static_cast<std::size_t>(first + source)]; };
      const int own = at(lane);
      const int* got = out.data() + 4 * t;
      INFO("width " << width << ", thread " << t);
      CHECK(got[0] == at(37 % width));
      CHECK(got[1] == (lane >= 3 ? at(lane - 3) : own));
      CHECK(got[2] == (lane + 5 < width ? at(lane + 5) : own));
      const int other = t % 32 ^ 6;  // of earlier groups too, but not of later ones
      CHECK(got[3] == (other < first % 32 + width ? in[static_cast<std::size_t>(t / 32 * 32 + other)] : own));
    }
  }
}

TEST_CASE("votes see the lanes of their mask, and barriers count") {
  const Array<unsigned> votes(3 * 64);
  cuda::launch(votes_kernel, 1, 64, 0, votes.data());
  for (unsigned t = 0; t < 64; ++t) {
    CHECK(votes[3 * t] == (t % 32 < 16 ? 0x9249u : 0x49240000u));
    CHECK(votes[3 * t + 1] == 1);
    CHECK(votes[3 * t + 2] == 0);
  }
  const Array<double> sums(48);
  cuda::launch(warp_sum_kernel, 1, 48, 0, sums.data());
  for (unsigned t = 0; t < 48; ++t) CHECK(sums[t] == (t < 32 ? 512.0 : 640.0));
  const Array<int> counts(3 * 96);
  cuda::launch(counts_kernel, 1, 96, 0, counts.data());
  for (unsigned t = 0; t < 96; ++t) {
    CHECK(counts[3 * t] == 48);
    CHECK(counts[3 * t + 1] == 1);
    CHECK(counts[3 * t + 2] == 0);
  }
}

TEST_CASE("atomics lose nothing, on any number of workers") {
  const int n = 40 * 256;
  const Array<int> i(5, 0), order(n, -1);
  const Array<unsigned> u(3, 0);
  const Array<unsigned long long> l(1, 0);
  const Array<float> f(1, 0.0f);
  u[1] = 0xffffffffu;
  cuda::launch(atomics_kernel, 40, 256, 0, i.data(), u.data(), l.data(), f.data(), order.data());
  CHECK(i[0] == n);
  CHECK(i[1] == n - 1);
  CHECK(i[2] == 1 - n);
  CHECK(i[3] == -2 * n);
  CHECK(i[4] == 3 * n);
  CHECK(u[0] == 0xffffffffu);
  CHECK(u[1] == 0xffff0000u);
  CHECK(u[2] == 0);
  CHECK(l[0] == static_cast<unsigned long long>(n) << 33);
  CHECK(f[0] == 0.5f * n);
  CHECK(std::set<int>(order.data(), order.data() + n).size() == static_cast<std::size_t>(n));
  const Array<int> parts(9), total(1, 0);
  const Array<unsigned> finished(1, 0);
  cuda::launch(last_block_kernel, 9, 32, 0, parts.data(), finished.data(), total.data());
  CHECK(total[0] == 45);
}

TEST_CASE("shared memory is the block's own") {
  const Array<int> out(5 * 64 * 7);
  cuda::launch(shared_kernel, 7, 64, 64 * sizeof(int), out.data());
  for (int b = 0; b < 7; ++b) {
    for (int t = 0; t < 64; ++t) {
      const int* got = out.data() + 5 * (b * 64 + t);
      const int other = b * 64 + 63 - t;
      REQUIRE(std::vector<int>(got, got + 5) == std::vector<int>{other, other, 3 * other, other, other});
    }
  }
}

TEST_CASE("bits, conversions and arithmetic") {
  CHECK(__popc(0xf0f) == 8);
  CHECK(__popcll(~0ull) == 64);
  CHECK(__ffs(8) == 4);
  CHECK(__ffs(0) == 0);
  CHECK(__ffsll(1ll << 40) == 41);
  CHECK(__clz(1) == 31);
  CHECK(__clz(0) == 32);
  CHECK(__clzll(1) == 63);
  CHECK(__brev(0x80000001u) == 0x80000001u);
  CHECK(__brev(2) == 0x40000000u);
  CHECK(__byte_perm(0x33221100u, 0x77665544u, 0x7340u) == 0x77334400u);
  CHECK(__mulhi(-1, 1) == -1);
  CHECK(__umulhi(0xffffffffu, 0xffffffffu) == 0xfffffffeu);
  CHECK(__float2int_rn(2.5f) == 2);
  CHECK(__float2int_rn(-3.5f) == -4);
  CHECK(__float2int_rz(-3.9f) == -3);
  CHECK(__float2int_rd(-3.1f) == -4);
  CHECK(__float2int_ru(3.1f) == 4);
  CHECK(__float2int_rn(1e20f) == 2147483647);
  CHECK(__float2int_rn(-1e20f) == -2147483647 - 1);
  CHECK(__float2int_rn(NAN) == 0);
  CHECK(__float_as_uint(1.0f) == 0x3f800000u);
  CHECK(__saturatef(NAN) == 0.0f);
  CHECK(min(2, 3u) == 2u);
  CHECK(max(1.0f, NAN) == 1.0f);
  // (1 + 2^-12)^2 - 1 - 2^-11 = 2^-24 is lost where the product is rounded by itself.
  const float a = 1.0f + 1.0f / 4096, c = -1.0f - 1.0f / 2048;
  CHECK(__fadd_rn(__fmul_rn(a, a), c) == 0.0f);
  CHECK(__fmaf_rn(a, a, c) == 1.0f / 16777216);
  Random random(2, RandomStream::test);
  for (int i = 0; i < 1000; ++i) {
    const auto x = random.bits(), y = random.bits();
    const int z = static_cast<int>(random.below(1000));
    long long s = z, u = z;
    for (int k = 0; k < 32; k += 8) {
      s += static_cast<std::int8_t>(x >> k) * static_cast<std::int8_t>(y >> k);
      u += static_cast<std::uint8_t>(x >> k) * static_cast<std::int8_t>(y >> k);
    }
    REQUIRE(cuda::dp4a_s8s8(static_cast<int>(x), static_cast<int>(y), z) == s);
    REQUIRE(__dp4a(static_cast<int>(x), static_cast<int>(y), z) == s);
    REQUIRE(cuda::dp4a_u8s8(x, static_cast<int>(y), z) == u);
  }
  CHECK(cuda::to_tf32(1.0f) == 0x3f800000u);
  CHECK(cuda::to_tf32(__uint_as_float(0x3f801000u)) == 0x3f802000u);  // a tie, away from zero
  CHECK(cuda::to_tf32(__uint_as_float(0xbf800fffu)) == 0xbf800000u);
  CHECK(cuda::to_tf32(HUGE_VALF) == 0x7f800000u);
}
