// Vectors of floats as the compiler offers them, and the exponential on them.
#pragma once
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__AVX512F__)
constexpr int W = 16;  // lanes
#else
constexpr int W = 8;
#endif
typedef float vec __attribute__((vector_size(W * sizeof(float))));
typedef int32_t ivec __attribute__((vector_size(W * sizeof(float))));

inline vec load(const float* p) {
  vec x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

inline void store(float* p, vec x) { std::memcpy(p, &x, sizeof x); }

inline vec broadcast(float x) { return x - vec{}; }

inline vec max(vec a, vec b) { return a > b ? a : b; }
inline vec min(vec a, vec b) { return a < b ? a : b; }

// Lane i with lane i ^ step, so that log2(W) of them reduce all lanes.
inline vec swapped(vec x, int step) {
#if defined(__clang__)
  vec y;
  for (int i = 0; i < W; ++i) y[i] = x[i ^ step];
  return y;
#else
  ivec lanes;
  for (int i = 0; i < W; ++i) lanes[i] = i ^ step;
  return __builtin_shuffle(x, lanes);
#endif
}

inline float max_of(vec x) {
#pragma GCC unroll 4
  for (int step = W / 2; step > 0; step /= 2) x = max(x, swapped(x, step));
  return x[0];
}

inline float sum_of(vec x) {
#pragma GCC unroll 4
  for (int step = W / 2; step > 0; step /= 2) x += swapped(x, step);
  return x[0];
}

// exp(x) for |x| <= 87, to about one unit in the last place. With n = round(x / ln 2) and
// r = x - n ln 2 it is 2^n (1 + r + r^2 p(r)); p is the minimax polynomial of the relative error on
// |r| <= ln 2 / 2 (3e-9). Adding 1.5 2^23 rounds, and leaves n in the low bits of the mantissa.
inline vec exp_inside(vec x) {
  const vec shifted = x * 1.44269504088896341f + 12582912.0f;
  const vec n = shifted - 12582912.0f;
  const vec r = (x - n * 0.693145751953125f) - n * 1.42860682030941723e-6f;  // ln 2 in two parts
  vec p = r * 1.3814598e-3f + 8.3687169e-3f;
  p = p * r + 4.16683880e-2f;
  p = p * r + 1.66665206e-1f;
  p = p * r + 4.99999934e-1f;
  p = p * r * r + r + 1.0f;
  return (vec)((ivec)p + ((ivec)shifted << 23));
}

// exp(x) for x <= 87; 0 below -80, where only denormal numbers would come of it, which are slow.
inline vec exp_or_zero(vec x) {
  const vec e = exp_inside(x);
  return x < -80.0f ? vec{} : e;
}

// Memory that begins where a cache line does: vectors then never lie in two of them.
template <class X>
struct Aligned {
  typedef X value_type;
  X* allocate(size_t n) { return static_cast<X*>(::operator new(n * sizeof(X), LINE)); }
  void deallocate(X* p, size_t) { ::operator delete(p, LINE); }
  bool operator==(const Aligned&) const { return true; }
  bool operator!=(const Aligned&) const { return false; }
  static constexpr std::align_val_t LINE{64};
};
typedef std::vector<float, Aligned<float>> Floats;
