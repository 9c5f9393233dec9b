// The loops of AttentionLoops, written once over a vector type V (common/vector_*.h), and compiled once for every
// instruction set. Everything has internal linkage.
#pragma once

#include <cstdint>
#include <limits>

#include "attention/attention_loops.h"

namespace rotomem {
namespace {

// 2^x for x <= 0: exactly 1 at 0, else within 3 units in the last place (a polynomial of least relative error, 9e-8);
// 2^-126 below -126.
template <class V>
inline typename V::Reg power_of_two(typename V::Reg x) {
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
  const typename V::Reg magic = V::all(12582912.0f), kept = V::max(V::all(-126.0f), x);
  const typename V::Reg shifted = V::add(kept, magic);
  const typename V::Reg r = V::sub(kept, V::sub(shifted, magic));  // -1/2..1/2
  typename V::Reg y = V::all(1.326472701e-3f);
  y = V::fma(y, r, V::all(9.671512653e-3f));
  y = V::fma(y, r, V::all(5.550733744e-2f));
  y = V::fma(y, r, V::all(2.402224209e-1f));
  y = V::fma(y, r, V::all(6.931469776e-1f));
  y = V::fma(y, r, V::all(1.0f));
  return V::add_exponent(y, shifted);
}

// Scores of KEYS keys with one strip: VECTORS * KEYS sums stay in registers over all channels.
template <class V, int VECTORS, int KEYS>
inline void score(const float* query, const float* key, std::int64_t key_row, int channels, float* out,
                  typename V::Reg* top) {
  constexpr int strip = VECTORS * V::lanes;
  typename V::Reg sum[KEYS][VECTORS];
  for (int j = 0; j < KEYS; ++j)
    for (int v = 0; v < VECTORS; ++v) sum[j][v] = V::all(0.0f);
  for (int c = 0; c < channels; ++c) {
    typename V::Reg q[VECTORS];
    for (int v = 0; v < VECTORS; ++v) q[v] = V::load(query + c * strip + v * V::lanes);
#pragma GCC unroll 8
    for (int j = 0; j < KEYS; ++j) {
      const typename V::Reg k = V::all(key[j * key_row + c]);
      for (int v = 0; v < VECTORS; ++v) sum[j][v] = V::fma(q[v], k, sum[j][v]);
    }
  }
  for (int j = 0; j < KEYS; ++j)
    for (int v = 0; v < VECTORS; ++v) {
      V::store(out + j * strip + v * V::lanes, sum[j][v]);
      top[v] = V::max(sum[j][v], top[v]);
    }
}

template <class V, int VECTORS, int KEYS>
void compare(const float* query, const float* key, std::int64_t key_row, int count, int channels, float* weight,
             float* top, float* sum, float* shrunk) {
  constexpr int strip = VECTORS * V::lanes;
  typename V::Reg greatest[VECTORS], total[VECTORS];
  for (int v = 0; v < VECTORS; ++v) greatest[v] = V::load(top + v * V::lanes);
  int n = 0;
  for (; n + KEYS <= count; n += KEYS)
    score<V, VECTORS, KEYS>(query, key + n * key_row, key_row, channels, weight + n * strip, greatest);
  for (; n < count; ++n)
    score<V, VECTORS, 1>(query, key + n * key_row, key_row, channels, weight + n * strip, greatest);
  for (int v = 0; v < VECTORS; ++v) {
    const typename V::Reg down = power_of_two<V>(V::sub(V::load(top + v * V::lanes), greatest[v]));
    V::store(shrunk + v * V::lanes, down);
    V::store(top + v * V::lanes, greatest[v]);
    total[v] = V::all(0.0f);
  }
  for (n = 0; n < count; ++n)
    for (int v = 0; v < VECTORS; ++v) {
      float* at = weight + n * strip + v * V::lanes;
      const typename V::Reg share = power_of_two<V>(V::sub(V::load(at), greatest[v]));
      V::store(at, share);
      total[v] = V::add(total[v], share);
    }
  for (int v = 0; v < VECTORS; ++v) {
    // What rounding loses is kept beside the sum: thousands of blocks may be added up.
    const typename V::Reg down = V::load(shrunk + v * V::lanes), before = V::mul(V::load(sum + v * V::lanes), down);
    float* rest = sum + strip + v * V::lanes;
    const typename V::Reg more = V::fma(V::load(rest), down, total[v]), after = V::add(before, more);
    V::store(sum + v * V::lanes, after);
    V::store(rest, V::sub(more, V::sub(after, before)));
  }
}

template <class V, int STRIP, int QUERIES, int VECTORS>
void mix(const float* weight, const float* value, std::int64_t value_row, int count, float* out,
         std::int64_t out_row) {
  typename V::Reg sum[QUERIES][VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < QUERIES; ++i)
    for (int v = 0; v < VECTORS; ++v) sum[i][v] = V::all(0.0f);
  for (int n = 0; n < count; ++n) {
    typename V::Reg row[VECTORS];
    for (int v = 0; v < VECTORS; ++v) row[v] = V::load(value + n * value_row + v * V::lanes);
#pragma GCC unroll 16
    for (int i = 0; i < QUERIES; ++i) {
      const typename V::Reg share = V::all(weight[n * STRIP + i]);
      for (int v = 0; v < VECTORS; ++v) sum[i][v] = V::fma(share, row[v], sum[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < QUERIES; ++i)
    for (int v = 0; v < VECTORS; ++v) {
      float* at = out + i * out_row + v * V::lanes;
      V::store(at, V::add(V::load(at), sum[i][v]));
    }
}

// Scores: STRIPS vectors of queries by KEYS keys in registers. Values: QUERIES queries by VECTORS vectors of channels.
template <class V, int STRIPS, int KEYS, int QUERIES, int VECTORS>
constexpr AttentionLoops attention_loops_of() {
  static_assert(STRIPS * V::lanes % QUERIES == 0, "a strip is cut into equal parts");
  return {STRIPS * V::lanes, QUERIES, VECTORS * V::lanes, compare<V, STRIPS, KEYS>,
          mix<V, STRIPS * V::lanes, QUERIES, VECTORS>};
}

}  // namespace
}  // namespace rotomem
