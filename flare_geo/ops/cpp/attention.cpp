// Attention through latents, y = softmax_m(s k q^T) softmax_n(s q k^T) v, for packed clouds.
// Names as in ../README.md. Lanes of a vector are points; a block of P points meets all M latents
// at a time. q [H, M, D] or [B, H, M, D]; k, v, y [N, H, D]; z [B, H, M, D]; lse [B, H, M];
// r [H, N]; ptr [B + 1]. Clouds are cut into chunks whose number does not depend on the threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "vector.h"

namespace {

constexpr int P = 64;
constexpr float SMALL = 25.0f;  // a million terms exp(25) fit a float32, and so does exp(-25)
constexpr float INF = std::numeric_limits<float>::infinity();

template <int D>
struct Row {
  typedef float type __attribute__((vector_size(D * sizeof(float))));
};

struct Chunk {
  int64_t cloud, start, end;
};

struct Sizes {
  int64_t N, B;
  int H, M;
  bool own_queries;  // one set of queries for each cloud
};

std::vector<Chunk> cut(const int64_t* ptr, int64_t N, int64_t B) {
  const int64_t length = std::max<int64_t>(256, (N / 64 + P - 1) / P * P);
  std::vector<Chunk> chunks;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t start = ptr[b]; start < ptr[b + 1]; start += length)
      chunks.push_back({b, start, std::min(start + length, ptr[b + 1])});
  return chunks;
}

Floats scaled(const float* q, int64_t count, float scale) {
  Floats out(q, q + count);
  for (float& x : out) x *= scale;
  return out;
}

// Rows x [n, D], stride apart, into columns [D, P]; lanes behind the last point repeat it.
template <int D>
inline void to_lanes(const float* x, int64_t stride, int count, float* columns) {
  for (int n = 0; n < P; ++n)
    for (int d = 0; d < D; ++d) columns[d * P + n] = x[std::min(n, count - 1) * stride + d];
}

template <int D>
inline void from_lanes(const float* columns, int count, int64_t stride, float* x) {
  for (int n = 0; n < count; ++n)
    for (int d = 0; d < D; ++d) x[n * stride + d] = columns[d * P + n];
}

// done(m, p, a_m . x_p) for rows a [M, D] and columns x [D, P], a vector of points at a time.
template <int D, class Done>
inline void products(const float* a, const float* x, int M, Done done) {
  constexpr int V = D < 16 ? 2 : 1;
  for (int p = 0; p < P; p += V * W) {
    vec x_p[D][V];
    for (int d = 0; d < D; ++d)
      for (int v = 0; v < V; ++v) x_p[d][v] = load(x + d * P + p + v * W);
    for (int m = 0; m < M; ++m) {
      vec sum[V] = {};
      for (int d = 0; d < D; ++d)
        for (int v = 0; v < V; ++v) sum[v] += a[m * D + d] * x_p[d][v];
      for (int v = 0; v < V; ++v) done(m, p + v * W, sum[v]);
    }
  }
}

// The same for one head of a block of points, rows x [count, D], stride apart.
template <int D, class Done>
inline void with_points(const float* a, const float* x, int64_t stride, int count, int M,
                        Done done) {
  alignas(64) float columns[D * P];
  to_lanes<D>(x, stride, count, columns);
  products<D>(a, columns, M, done);
}

// into[m] += sum over n of weights[m][n] x_n, for rows x_n [D], stride apart.
template <int D>
inline void add_points(const float* weights, const float* x, int64_t stride, int count, int M,
                       float* into) {
  using row = typename Row<D>::type;
  constexpr int R = D > 16 ? 2 : 8;  // sums that are in registers
  row sum[R];
  for (int m = 0; m < M; m += R) {
    const int rows = std::min(R, M - m);
    const float* w[R];  // behind the last latent the same again, for nothing
    for (int i = 0; i < R; ++i) w[i] = weights + std::min(m + i, M - 1) * P;
    for (int i = 0; i < R; ++i) sum[i] = row{};
    for (int n = 0; n < count; ++n) {
      row x_n;
      std::memcpy(&x_n, x + n * stride, sizeof x_n);
      for (int i = 0; i < R; ++i) sum[i] += w[i][n] * x_n;
    }
    for (int i = 0; i < rows; ++i)
      for (int d = 0; d < D; ++d) into[(m + i) * D + d] += sum[i][d];
  }
}

// columns[d][p] = sum over m of weights[m][p] a[m][d].
template <int D>
inline void mix_latents(const float* weights, const float* a, int M, float* columns) {
  for (int p = 0; p < P; p += W) {
    vec sum[D] = {};
    for (int m = 0; m < M; ++m) {
      const vec w = load(weights + m * P + p);
      for (int d = 0; d < D; ++d) sum[d] += w * a[m * D + d];
    }
    for (int d = 0; d < D; ++d) store(columns + d * P + p, sum[d]);
  }
}

inline vec first_lanes(vec x, int count) {
  for (int i = 0; i < W; ++i) x[i] = i < count ? x[i] : 0.0f;
  return x;
}

// Whether all |q_m . k_n| are so small that exp needs no maximum taken off: by Cauchy and Schwarz.
template <int D>
bool are_small(const float* q, int M, const float* k, int64_t stride, int64_t count) {
  float most_q = 0, most_k = 0;
  for (int m = 0; m < M; ++m) {
    float sum = 0;
    for (int d = 0; d < D; ++d) sum += q[m * D + d] * q[m * D + d];
    most_q = std::max(most_q, sum);
  }
  for (int64_t n = 0; n < count; ++n) {
    float sum = 0;
    for (int d = 0; d < D; ++d) sum += k[n * stride + d] * k[n * stride + d];
    most_k = std::max(most_k, sum);
  }
  return most_q * most_k <= SMALL * SMALL;
}

// Encode of one chunk, all heads: z not yet divided, the number taken off the scores, the sum. What
// the lanes hold is not joined before the end.
template <int D>
void encode_chunk(const float* q, const float* k, const float* v, const Chunk& chunk,
                  const Sizes& at, float* z, float* largest, float* total, float* work) {
  const int64_t stride = (int64_t)at.H * D, rows = (int64_t)at.H * at.M;
  float *weights = work, *lanes = work + (int64_t)at.M * P;  // lanes [H, M, W]
  for (int h = 0; h < at.H; ++h) {
    const float *q_h = q + (int64_t)h * at.M * D, *k_h = k + chunk.start * stride + h * D;
    const int64_t points = chunk.end - chunk.start;
    std::fill(largest + h * at.M, largest + (h + 1) * at.M, 0.0f);
    if (are_small<D>(q_h, at.M, k_h, stride, points)) continue;
    std::fill(lanes, lanes + (int64_t)at.M * W, -INF);
    for (int64_t n = 0; n < points; n += P)
      with_points<D>(q_h, k_h + n * stride, stride, (int)std::min<int64_t>(P, points - n), at.M,
                     [=](int m, int, vec s) { store(lanes + m * W, max(load(lanes + m * W), s)); });
    for (int m = 0; m < at.M; ++m) largest[h * at.M + m] = max_of(load(lanes + m * W));
  }
  std::fill(lanes, lanes + rows * W, 0.0f);
  std::fill(z, z + rows * D, 0.0f);
  for (int64_t n = chunk.start; n < chunk.end; n += P) {
    const int count = (int)std::min<int64_t>(P, chunk.end - n);
    for (int h = 0; h < at.H; ++h) {
      float *sum = lanes + (int64_t)h * at.M * W, *most = largest + h * at.M;
      with_points<D>(q + (int64_t)h * at.M * D, k + n * stride + h * D, stride, count, at.M,
                     [=](int m, int p, vec s) {
                       vec e = exp_or_zero(s - most[m]);
                       if (p + W > count) e = first_lanes(e, count - p);
                       store(weights + m * P + p, e);
                       store(sum + m * W, load(sum + m * W) + e);
                     });
      add_points<D>(weights, v + n * stride + h * D, stride, count, at.M,
                    z + (int64_t)h * at.M * D);
    }
  }
  for (int64_t i = 0; i < rows; ++i) total[i] = sum_of(load(lanes + i * W));
}

template <int D>
void decode_chunk(const float* q, const float* k, const float* z, const Chunk& chunk,
                  const Sizes& at, float* y, float* r, float* weights) {
  const int64_t stride = (int64_t)at.H * D;
  alignas(64) float columns[D * P], largest[P], total[P];
  float *most = largest, *sum = total;
  for (int h = 0; h < at.H; ++h) {
    const float *q_h = q + (int64_t)h * at.M * D, *z_h = z + (int64_t)h * at.M * D;
    const int64_t first = chunk.start * stride + h * D;
    const bool small = are_small<D>(q_h, at.M, k + first, stride, chunk.end - chunk.start);
    for (int64_t n = chunk.start; n < chunk.end; n += P) {
      const int count = (int)std::min<int64_t>(P, chunk.end - n);
      const float* k_h = k + n * stride + h * D;
      std::fill(total, total + P, 0.0f);
      std::fill(largest, largest + P, small ? 0.0f : -INF);
      if (!small)
        with_points<D>(q_h, k_h, stride, count, at.M,
                       [=](int, int p, vec s) { store(most + p, max(load(most + p), s)); });
      with_points<D>(q_h, k_h, stride, count, at.M, [=](int m, int p, vec s) {
        const vec e = exp_or_zero(s - load(most + p));
        store(weights + m * P + p, e);
        store(sum + p, load(sum + p) + e);
      });
      mix_latents<D>(weights, z_h, at.M, columns);
      for (int p = 0; p < P; p += W) {
        const vec share = 1.0f / load(total + p);
        for (int d = 0; d < D; ++d) store(columns + d * P + p, load(columns + d * P + p) * share);
      }
      from_lanes<D>(columns, count, stride, y + n * stride + h * D);
      for (int p = 0; p < count; ++p) r[h * at.N + n + p] = largest[p] + std::log(total[p]);
    }
  }
}

// The chunks of cloud b are those from first[b] to first[b + 1].
std::vector<int64_t> first_chunks(const std::vector<Chunk>& chunks, int64_t B) {
  std::vector<int64_t> first(B + 1, 0);
  for (const Chunk& chunk : chunks) ++first[chunk.cloud + 1];
  for (int64_t b = 0; b < B; ++b) first[b + 1] += first[b];
  return first;
}

template <int D>
void encode(const float* q, const float* k, const float* v, const int64_t* ptr, float* z,
            float* lse, const Sizes& at, float scale, int threads) {
  const int64_t latents = (int64_t)at.H * at.M;
  const Floats queries = scaled(q, latents * D * (at.own_queries ? at.B : 1), scale);
  const auto chunks = cut(ptr, at.N, at.B);
  const auto first = first_chunks(chunks, at.B);
  const int64_t count = (int64_t)chunks.size();
  Floats z_parts(count * latents * D), largest(count * latents), total(count * latents);
#pragma omp parallel num_threads(threads)
  {
    Floats work((int64_t)at.M * (P + at.H * W));
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < count; ++i)
      encode_chunk<D>(&queries[at.own_queries ? chunks[i].cloud * latents * D : 0], k, v, chunks[i],
                      at, &z_parts[i * latents * D], &largest[i * latents], &total[i * latents],
                      work.data());
#pragma omp for schedule(static)
    for (int64_t row = 0; row < at.B * latents; ++row) {
      const int64_t b = row / latents, hm = row % latents;
      float most = -INF, sum = 0;
      for (int64_t i = first[b]; i < first[b + 1]; ++i)
        most = std::max(most, largest[i * latents + hm]);
      float* z_row = z + row * D;
      std::fill(z_row, z_row + D, 0.0f);
      for (int64_t i = first[b]; i < first[b + 1]; ++i) {
        const float share = std::exp(largest[i * latents + hm] - most);
        sum += share * total[i * latents + hm];
        for (int d = 0; d < D; ++d) z_row[d] += share * z_parts[(i * latents + hm) * D + d];
      }
      for (int d = 0; d < D && first[b] < first[b + 1]; ++d) z_row[d] /= sum;
      lse[row] = most + std::log(sum);
    }
  }
}

template <int D>
void decode(const float* q, const float* k, const float* z, const int64_t* ptr, float* y, float* r,
            const Sizes& at, float scale, int threads) {
  const int64_t latents = (int64_t)at.H * at.M;
  const Floats queries = scaled(q, latents * D * (at.own_queries ? at.B : 1), scale);
  const auto chunks = cut(ptr, at.N, at.B);
#pragma omp parallel num_threads(threads)
  {
    Floats weights((int64_t)at.M * P);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < (int64_t)chunks.size(); ++i) {
      const int64_t b = chunks[i].cloud * latents * D;
      decode_chunk<D>(&queries[at.own_queries ? b : 0], k, z + b, chunks[i], at, y, r,
                      weights.data());
    }
  }
}

// dz = A dy of one chunk.
template <int D>
void latents_chunk(const float* q, const float* k, const float* dy, const float* r,
                   const Chunk& chunk, const Sizes& at, float* dz, float* weights) {
  const int64_t stride = (int64_t)at.H * D;
  alignas(64) float r_lanes[P];
  std::fill(dz, dz + stride * at.M, 0.0f);
  for (int64_t n = chunk.start; n < chunk.end; n += P) {
    const int count = (int)std::min<int64_t>(P, chunk.end - n);
    for (int h = 0; h < at.H; ++h) {
      to_lanes<1>(r + h * at.N + n, 1, count, r_lanes);
      const float* r_n = r_lanes;
      with_points<D>(q + (int64_t)h * at.M * D, k + n * stride + h * D, stride, count, at.M,
                     [=](int m, int p, vec s) {
                       store(weights + m * P + p, exp_or_zero(s - load(r_n + p)));
                     });
      add_points<D>(weights, dy + n * stride + h * D, stride, count, at.M,
                    dz + (int64_t)h * at.M * D);
    }
  }
}

// What comes back through the encode: null v means nothing.
struct Encoded {
  const float *v, *dz, *lse, *e;
  float* dv;
};

// And through the decode: null z means nothing.
struct Decoded {
  const float *z, *y, *dy, *r;
};

// dk and dv of one chunk, and its part of dq / s. Latents of the chunk's cloud begin at `latent`.
template <int D>
void points_chunk(const float* q, const float* k, const Encoded& encoded, const Decoded& decoded,
                  const Chunk& chunk, const Sizes& at, float* dq, float* dk, float* work) {
  const int64_t stride = (int64_t)at.H * D, latent = chunk.cloud * at.H * at.M;
  float *ds = work, *weights = work + (int64_t)at.M * P;
  alignas(64) float columns[D * P], r_lanes[P], c_lanes[P];
  const float *r_n = r_lanes, *c_n = c_lanes;
  std::fill(dq, dq + stride * at.M, 0.0f);
  for (int64_t n = chunk.start; n < chunk.end; n += P) {
    const int count = (int)std::min<int64_t>(P, chunk.end - n);
    for (int h = 0; h < at.H; ++h) {
      const int64_t points = n * stride + h * D, row = latent + (int64_t)h * at.M;
      const float* q_h = q + (int64_t)h * at.M * D;
      std::fill(ds, ds + (int64_t)at.M * P, 0.0f);
      if (decoded.z) {
        to_lanes<1>(decoded.r + h * at.N + n, 1, count, r_lanes);
        for (int p = 0; p < P; ++p) {
          const int64_t at_p = points + std::min(p, count - 1) * stride;
          c_lanes[p] = 0.0f;
          for (int d = 0; d < D; ++d) c_lanes[p] += decoded.y[at_p + d] * decoded.dy[at_p + d];
        }
        with_points<D>(q_h, k + points, stride, count, at.M, [=](int m, int p, vec s) {
          store(ds + m * P + p, exp_or_zero(s - load(r_n + p)));  // A
        });
        with_points<D>(decoded.z + row * D, decoded.dy + points, stride, count, at.M,
                       [=](int m, int p, vec da) {
                         float* ds_p = ds + m * P + p;
                         store(ds_p, load(ds_p) * (da - load(c_n + p)));
                       });
      }
      if (encoded.v) {
        const float *lse = encoded.lse + row, *e = encoded.e + row;
        with_points<D>(q_h, k + points, stride, count, at.M, [=](int m, int p, vec s) {
          store(weights + m * P + p, exp_or_zero(s - lse[m]));  // P
        });
        with_points<D>(encoded.dz + row * D, encoded.v + points, stride, count, at.M,
                       [=](int m, int p, vec dp) {
                         float* ds_p = ds + m * P + p;
                         store(ds_p, load(ds_p) + load(weights + m * P + p) * (dp - e[m]));
                       });
        mix_latents<D>(weights, encoded.dz + row * D, at.M, columns);
        from_lanes<D>(columns, count, stride, encoded.dv + points);
      }
      mix_latents<D>(ds, q_h, at.M, columns);
      from_lanes<D>(columns, count, stride, dk + points);
      add_points<D>(ds, k + points, stride, count, at.M, dq + (int64_t)h * at.M * D);
    }
  }
}

template <int D>
void latents_backward(const float* q, const float* k, const float* dy, const float* r,
                      const int64_t* ptr, float* dz, const Sizes& at, float scale, int threads) {
  const int64_t latents = (int64_t)at.H * at.M;
  const Floats queries = scaled(q, latents * D * (at.own_queries ? at.B : 1), scale);
  const auto chunks = cut(ptr, at.N, at.B);
  const auto first = first_chunks(chunks, at.B);
  const int64_t count = (int64_t)chunks.size();
  Floats parts(count * latents * D);
#pragma omp parallel num_threads(threads)
  {
    Floats weights((int64_t)at.M * P);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < count; ++i)
      latents_chunk<D>(&queries[at.own_queries ? chunks[i].cloud * latents * D : 0], k, dy, r,
                       chunks[i], at, &parts[i * latents * D], weights.data());
#pragma omp for schedule(static)
    for (int64_t j = 0; j < at.B * latents * D; ++j) {
      const int64_t b = j / (latents * D), hmd = j % (latents * D);
      dz[j] = 0;
      for (int64_t i = first[b]; i < first[b + 1]; ++i) dz[j] += parts[i * latents * D + hmd];
    }
  }
}

template <int D>
void points_backward(const float* q, const float* k, const int64_t* ptr, const Encoded& encoded,
                     const Decoded& decoded, float* dq, float* dk, const Sizes& at, float scale,
                     int threads) {
  const int64_t latents = (int64_t)at.H * at.M;
  const Floats queries = scaled(q, latents * D * (at.own_queries ? at.B : 1), scale);
  const auto chunks = cut(ptr, at.N, at.B);
  const auto first = first_chunks(chunks, at.B);
  const int64_t count = (int64_t)chunks.size();
  Floats parts(count * latents * D);
#pragma omp parallel num_threads(threads)
  {
    Floats work((int64_t)2 * at.M * P);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < count; ++i)
      points_chunk<D>(&queries[at.own_queries ? chunks[i].cloud * latents * D : 0], k, encoded,
                      decoded, chunks[i], at, &parts[i * latents * D], dk, work.data());
#pragma omp for schedule(static)
    for (int64_t j = 0; j < (at.own_queries ? at.B : 1) * latents * D; ++j) {
      const int64_t b = j / (latents * D), hmd = j % (latents * D);
      const int64_t from = at.own_queries ? first[b] : 0, to = at.own_queries ? first[b + 1] : count;
      float sum = 0;
      for (int64_t i = from; i < to; ++i) sum += parts[i * latents * D + hmd];
      dq[j] = scale * sum;
    }
  }
}

}  // namespace

#define BY_WIDTH(CALL)        \
  switch (D) {                \
    case 4: return CALL(4);   \
    case 8: return CALL(8);   \
    case 16: return CALL(16); \
    case 32: return CALL(32); \
  }
#define SIZES int64_t N, int64_t B, int H, int M, int D, int own_queries, float scale, int threads

extern "C" void flare_encode(const float* q, const float* k, const float* v, const int64_t* ptr,
                             float* z, float* lse, SIZES) {
  const Sizes at{N, B, H, M, own_queries != 0};
#define ENCODE(WIDTH) encode<WIDTH>(q, k, v, ptr, z, lse, at, scale, threads)
  BY_WIDTH(ENCODE)
}

extern "C" void flare_decode(const float* q, const float* k, const float* z, const int64_t* ptr,
                             float* y, float* r, SIZES) {
  const Sizes at{N, B, H, M, own_queries != 0};
#define DECODE(WIDTH) decode<WIDTH>(q, k, z, ptr, y, r, at, scale, threads)
  BY_WIDTH(DECODE)
}

extern "C" void flare_latents_backward(const float* q, const float* k, const float* dy,
                                       const float* r, const int64_t* ptr, float* dz, SIZES) {
  const Sizes at{N, B, H, M, own_queries != 0};
#define LATENTS(WIDTH) latents_backward<WIDTH>(q, k, dy, r, ptr, dz, at, scale, threads)
  BY_WIDTH(LATENTS)
}

extern "C" void flare_points_backward(const float* q, const float* k, const int64_t* ptr,
                                      const float* v, const float* dz, const float* lse,
                                      const float* e, const float* z, const float* y,
                                      const float* dy, const float* r, float* dq, float* dk,
                                      float* dv, SIZES) {
  const Sizes at{N, B, H, M, own_queries != 0};
  const Encoded encoded{v, dz, lse, e, dv};
  const Decoded decoded{z, y, dy, r};
#define POINTS(WIDTH) \
  points_backward<WIDTH>(q, k, ptr, encoded, decoded, dq, dk, at, scale, threads)
  BY_WIDTH(POINTS)
}
