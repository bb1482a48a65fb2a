// CUDA's words and built-in types, for a C++ compiler.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))
#define __shared__ static thread_local  // one copy per worker, which runs one block at a time; SHRIKE_SHARED is checked better

// Vectors with CUDA's alignment: T2 and T4 as a whole, at most 16 bytes; T1 and T3 as their element.
#define SHRIKE_VECTOR_TYPES(T, name, bytes)                          \
  struct alignas(bytes) name##1 {                                    \
    T x;                                                             \
  };                                                                 \
  struct alignas(2 * bytes) name##2 {                                \
    T x, y;                                                          \
  };                                                                 \
  struct alignas(bytes) name##3 {                                    \
    T x, y, z;                                                       \
  };                                                                 \
  struct alignas(4 * bytes > 16 ? 16 : 4 * bytes) name##4 {          \
    T x, y, z, w;                                                    \
  };                                                                 \
  inline name##1 make_##name##1(T x) { return {x}; }                 \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

SHRIKE_VECTOR_TYPES(signed char, char, 1)
SHRIKE_VECTOR_TYPES(unsigned char, uchar, 1)
SHRIKE_VECTOR_TYPES(short, short, 2)
SHRIKE_VECTOR_TYPES(unsigned short, ushort, 2)
SHRIKE_VECTOR_TYPES(int, int, 4)
SHRIKE_VECTOR_TYPES(unsigned, uint, 4)
SHRIKE_VECTOR_TYPES(float, float, 4)
SHRIKE_VECTOR_TYPES(double, double, 8)
SHRIKE_VECTOR_TYPES(long long, longlong, 8)
SHRIKE_VECTOR_TYPES(unsigned long long, ulonglong, 8)
#undef SHRIKE_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct shrike_host_stream;
using cudaStream_t = shrike_host_stream*;
