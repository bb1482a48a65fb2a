// Vectors as wide as the instruction set that a file is compiled for. GCC's vector types, intrinsics only where they say more.
//
// Files compiled with instructions that the machine may not have include nothing whose inline functions others could pick up;
// what is here lies in a namespace of the instruction set's name, so that each has its own.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define SHRIKE_SIMD avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define SHRIKE_SIMD avx2
#else
#define SHRIKE_SIMD plain
#endif

namespace shrike::simd {
inline namespace SHRIKE_SIMD {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

typedef float Vector __attribute__((vector_size(lanes * sizeof(float))));

inline Vector load(const float* from) {
  Vector result;
  memcpy(&result, from, sizeof(result));
  return result;
}
inline void store(float* to, const Vector& value) { memcpy(to, &value, sizeof(value)); }
inline Vector splat(float value) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(value);
#elif defined(__AVX2__) && defined(__FMA__)
  return _mm256_set1_ps(value);
#else
  return Vector{value, value, value, value};
#endif
}

// a * b + c, rounded once.
inline Vector fma(const Vector& a, const Vector& b, const Vector& c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__) && defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  Vector result;
  for (int i = 0; i < lanes; ++i) result[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return result;
#endif
}

// a * b + c: rounded once where there is an instruction for it, else twice.
inline Vector multiply_add(const Vector& a, const Vector& b, const Vector& c) {
#if defined(__FMA__)
  return fma(a, b, c);
#else
  return a * b + c;
#endif
}

}  // namespace SHRIKE_SIMD
}  // namespace shrike::simd
