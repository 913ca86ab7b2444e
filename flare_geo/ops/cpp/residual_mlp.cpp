// Residual MLPs h <- h + g(W h + b), last h <- h + W h + b, on packed points: see residual_mlp.py.
// A tile of points goes through all layers of an MLP while it is in the cache.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "vector.h"

namespace {

constexpr int T = 48;  // points of a tile
enum Activation { GELU_TANH, SILU };

// done(t, c, sum over k of a[t][k] b[k][c]) for T rows and C columns; the sums of R rows and V
// vectors of columns are in registers at a time.
template <int R, int V, class Done>
inline void product_by(const float* a, const float* b, int C, Done done) {
  for (int c = 0; c < C; c += V * W)
    for (int t = 0; t < T; t += R) {
      vec sum[R][V] = {};
      for (int k = 0; k < C; ++k)
        for (int v = 0; v < V; ++v) {
          const vec b_k = load(b + k * C + c + v * W);
          for (int r = 0; r < R; ++r) sum[r][v] += a[(t + r) * C + k] * b_k;
        }
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) done(t + r, c + v * W, sum[r][v]);
    }
}

template <class Done>
inline void product(const float* a, const float* b, int C, Done done) {
#if defined(__AVX512F__)
  if (C % (4 * W) == 0) return product_by<6, 4>(a, b, C, done);
#endif
  if (C % (2 * W) == 0) return product_by<4, 2>(a, b, C, done);
  product_by<8, 1>(a, b, C, done);
}

// dw[o][i] += sum over t of d[t][o] h[t][i], for C x C entries and T points.
template <int R, int V>
inline void add_outer_by(const float* d, const float* h, int C, float* dw) {
  for (int i = 0; i < C; i += V * W)
    for (int o = 0; o < C; o += R) {
      vec sum[R][V] = {};
      for (int t = 0; t < T; ++t)
        for (int v = 0; v < V; ++v) {
          const vec h_t = load(h + t * C + i + v * W);
          for (int r = 0; r < R; ++r) sum[r][v] += d[t * C + o + r] * h_t;
        }
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) {
          float* at = dw + (o + r) * C + i + v * W;
          store(at, load(at) + sum[r][v]);
        }
    }
}

inline void add_outer(const float* d, const float* h, int C, float* dw) {
#if defined(__AVX512F__)
  if (C % (4 * W) == 0) return add_outer_by<4, 4>(d, h, C, dw);
#endif
  if (C % (2 * W) == 0) return add_outer_by<4, 2>(d, h, C, dw);
  add_outer_by<8, 1>(d, h, C, dw);
}

inline void add_rows(const float* d, int C, float* db) {
  for (int c = 0; c < C; c += W) {
    vec sum = load(db + c);
    for (int t = 0; t < T; ++t) sum += load(d + t * C + c);
    store(db + c, sum);
  }
}

// g(u) = u s, s = 1 / (1 + exp(-w(u))): w = sqrt(8 / pi) (u + 0.044715 u^3), or u for SiLU.
inline vec gate(vec u, int act) {
  vec w = act == SILU ? u : u * (1.5957691216057308f + 0.0713548162726f * u * u);
  w = min(max(w, broadcast(-80.0f)), broadcast(80.0f));
  return 1.0f / (1.0f + exp_inside(-w));
}

inline vec slope(vec u, vec s, int act) {  // g'(u) = s + u s (1 - s) w'(u)
  const vec dw = act == SILU ? broadcast(1.0f) : 1.5957691216057308f + 0.2140644488178f * u * u;
  return s + u * s * (1.0f - s) * dw;
}

// Rows of a tile to mean 0 and variance 1, and the factors that did it.
void normalise(float* tile, int C, float eps, float* factors) {
  for (int t = 0; t < T; ++t) {
    float* row = tile + t * C;
    vec sum = {}, squares = {};
    for (int c = 0; c < C; c += W) sum += load(row + c);
    const float mean = sum_of(sum) / C;
    for (int c = 0; c < C; c += W) {
      const vec d = load(row + c) - mean;
      squares += d * d;
    }
    factors[t] = 1.0f / std::sqrt(sum_of(squares) / C + eps);
    for (int c = 0; c < C; c += W) store(row + c, (load(row + c) - mean) * factors[t]);
  }
}

// h = gamma * tile + beta.
void scale_and_shift(const float* tile, const float* norm, int C, float* h) {
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < C; c += W)
      store(h + t * C + c, load(tile + t * C + c) * load(norm + c) + load(norm + C + c));
}

// From dh, gradients of gamma and beta (added) and of what was normalised (in place of dh).
void normalise_backward(const float* tile, const float* factors, const float* norm, int C,
                        float* dh, float* dnorm) {
  for (int t = 0; t < T; ++t) {
    const float* n = tile + t * C;
    float* d = dh + t * C;
    vec sum = {}, inner = {};
    for (int c = 0; c < C; c += W) {
      const vec d_c = load(d + c), n_c = load(n + c), g = d_c * load(norm + c);
      store(dnorm + c, load(dnorm + c) + d_c * n_c);
      store(dnorm + C + c, load(dnorm + C + c) + d_c);
      store(d + c, g);
      sum += g;
      inner += g * n_c;
    }
    const float mean = sum_of(sum) / C, along = sum_of(inner) / C;
    for (int c = 0; c < C; c += W)
      store(d + c, (load(d + c) - mean - load(n + c) * along) * factors[t]);
  }
}

void copy_tile(const float* from, int64_t rows, int C, float* tile) {
  std::copy(from, from + rows * C, tile);
  std::fill(tile + rows * C, tile + T * C, 0.0f);
}

Floats transposed(const float* w, int C, int count) {
  Floats wt((int64_t)count * C * C);
  for (int64_t i = 0; i < count; ++i)
    for (int o = 0; o < C; ++o)
      for (int k = 0; k < C; ++k) wt[(i * C + k) * C + o] = w[(i * C + o) * C + k];
  return wt;
}

}  // namespace

// x [N, C], w [G, L, C, C] (out, in), b [G, L, C] to y [G, N, C]. C is a multiple of 16. With
// `norm` [2, C] the MLPs begin with a LayerNorm of these factors and shifts; with `skip` x is
// added to y.
extern "C" void flare_mlp_forward(const float* x, const float* w, const float* b,
                                  const float* norm, float* y, int64_t N, int C, int L, int G,
                                  int act, float eps, int skip, int threads) {
  const int64_t tiles = (N + T - 1) / T, square = (int64_t)C * C;
  const Floats wt = transposed(w, C, G * L);
#pragma omp parallel num_threads(threads)
  {
    Floats first(T * C), here(T * C), next(T * C);
    float factors[T];
#pragma omp for schedule(static)
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t start = tile * T, rows = std::min<int64_t>(T, N - start);
      copy_tile(x + start * C, rows, C, first.data());
      if (norm) {
        normalise(first.data(), C, eps, factors);
        scale_and_shift(first.data(), norm, C, first.data());
      }
      for (int g = 0; g < G; ++g) {
        here = first;
        for (int j = 0; j < L; ++j) {
          const float* bias = b + ((int64_t)g * L + j) * C;
          const float* h = here.data();
          float* after = next.data();
          product(h, &wt[((int64_t)g * L + j) * square], C, [=](int t, int c, vec sum) {
            sum += load(bias + c);
            if (j < L - 1) sum *= gate(sum, act);
            store(after + t * C + c, load(h + t * C + c) + sum);
          });
          here.swap(next);
        }
        float* out = y + ((int64_t)g * N + start) * C;
        const float* in = x + start * C;
        for (int64_t i = 0; i < rows * C; i += W)
          store(out + i, skip ? load(&here[i]) + load(in + i) : load(&here[i]));
      }
    }
  }
}

// dy [G, N, C] to dx [N, C], dw [G, L, C, C], db [G, L, C], dnorm [2, C]; what is between the
// layers is computed once more from x.
extern "C" void flare_mlp_backward(const float* x, const float* w, const float* b,
                                   const float* norm, const float* dy, float* dx, float* dw,
                                   float* db, float* dnorm, int64_t N, int C, int L, int G,
                                   int act, float eps, int skip, int threads) {
  const int64_t tiles = (N + T - 1) / T, square = (int64_t)C * C, tile_size = (int64_t)T * C;
  const int64_t weights = G * L * square, biases = (int64_t)G * L * C;
  const int64_t all = weights + biases + 2 * C;
  const Floats wt = transposed(w, C, G * L);
  threads = (int)std::max<int64_t>(1, std::min<int64_t>(threads, tiles));
  Floats parts(threads * all);
#pragma omp parallel num_threads(threads)
  {
    Floats first(tile_size), h(L * tile_size), slopes(L * tile_size), dh(tile_size),
        du(tile_size), dx_tile(tile_size);
    float factors[T];
#pragma omp for schedule(static, 1)
    for (int part = 0; part < threads; ++part) {  // shares that depend on their number alone
      float *dw_part = &parts[part * all], *db_part = dw_part + weights;
      for (int64_t tile = tiles * part / threads; tile < tiles * (part + 1) / threads; ++tile) {
        const int64_t start = tile * T, rows = std::min<int64_t>(T, N - start);
        std::fill(dx_tile.begin(), dx_tile.end(), 0.0f);
        copy_tile(x + start * C, rows, C, first.data());
        if (norm) normalise(first.data(), C, eps, factors);
        for (int g = 0; g < G; ++g) {
          if (norm)
            scale_and_shift(first.data(), norm, C, h.data());
          else
            std::copy(first.begin(), first.end(), h.begin());
          for (int j = 0; j < L - 1; ++j) {
            const float* bias = b + ((int64_t)g * L + j) * C;
            const float* here = &h[j * tile_size];
            float *next = &h[(j + 1) * tile_size], *slope_of = &slopes[j * tile_size];
            product(here, &wt[((int64_t)g * L + j) * square], C, [=](int t, int c, vec u) {
              u += load(bias + c);
              const vec s = gate(u, act);
              store(next + t * C + c, load(here + t * C + c) + u * s);
              store(slope_of + t * C + c, slope(u, s, act));
            });
          }
          copy_tile(dy + ((int64_t)g * N + start) * C, rows, C, dh.data());
          for (int j = L - 1; j >= 0; --j) {
            const int64_t layer = (int64_t)g * L + j;
            for (int i = 0; i < tile_size; i += W) {
              const vec d = load(&dh[i]);
              store(&du[i], j < L - 1 ? d * load(&slopes[j * tile_size + i]) : d);
            }
            add_outer(du.data(), &h[j * tile_size], C, dw_part + layer * square);
            add_rows(du.data(), C, db_part + layer * C);
            float* into = dh.data();
            product(du.data(), w + layer * square, C, [=](int t, int c, vec sum) {
              store(into + t * C + c, load(into + t * C + c) + sum);
            });
          }
          for (int i = 0; i < tile_size; i += W) store(&dx_tile[i], load(&dx_tile[i]) + load(&dh[i]));
        }
        if (norm)
          normalise_backward(first.data(), factors, norm, C, dx_tile.data(), db_part + biases);
        const float* past = dy + start * C;
        for (int64_t i = 0; i < rows * C; i += W)
          store(dx + start * C + i, skip ? load(&dx_tile[i]) + load(past + i) : load(&dx_tile[i]));
      }
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < all; ++i) {
      float sum = 0;
      for (int part = 0; part < threads; ++part) sum += parts[part * all + i];
      if (i < weights)
        dw[i] = sum;
      else if (i < weights + biases)
        db[i - weights] = sum;
      else if (norm)
        dnorm[i - weights - biases] = sum;
    }
  }
}
