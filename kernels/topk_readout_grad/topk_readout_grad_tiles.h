// The loops of GradLoops, written once over a vector type V (common/vector_portable.h) and compiled once for every
// instruction set. Everything has internal linkage, for the reason given in common/softmax.h.
#pragma once

#include "topk_readout_grad/topk_readout_grad_loops.h"

namespace rotomem {
namespace {

template <class V>
float sum_of(typename V::Reg a) {
  float lane[V::lanes], sum = 0.0f;
  V::store(lane, a);
  for (int i = 0; i < V::lanes; ++i) sum += lane[i];
  return sum;
}

template <class V>
float product(const float* a, const float* b, int count) {
  typename V::Reg sum[4] = {V::all(0.0f), V::all(0.0f), V::all(0.0f), V::all(0.0f)};
  int c = 0;
  for (; c + 4 * V::lanes <= count; c += 4 * V::lanes)
    for (int v = 0; v < 4; ++v)
      sum[v] = V::fma(V::load(a + c + v * V::lanes), V::load(b + c + v * V::lanes), sum[v]);
  for (; c + V::lanes <= count; c += V::lanes) sum[0] = V::fma(V::load(a + c), V::load(b + c), sum[0]);
  float all = sum_of<V>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; c < count; ++c) all += a[c] * b[c];
  return all;
}

template <class V>
void weigh(const float* const* row, const float* weight, int rows, int count, float* out) {
  int c = 0;
  for (; c + 8 * V::lanes <= count; c += 8 * V::lanes) {
    typename V::Reg sum[8];
    for (int v = 0; v < 8; ++v) sum[v] = V::all(0.0f);
    for (int j = 0; j < rows; ++j) {
      const typename V::Reg w = V::all(weight[j]);
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) sum[v] = V::fma(w, V::load(row[j] + c + v * V::lanes), sum[v]);
    }
    for (int v = 0; v < 8; ++v) V::store(out + c + v * V::lanes, sum[v]);
  }
  for (; c < count; ++c) {
    float sum = 0.0f;
    for (int j = 0; j < rows; ++j) sum += weight[j] * row[j][c];
    out[c] = sum;
  }
}

template <class V>
void query_side(const float* key, const float* query, float slope, int count, float* first, float* second) {
  const typename V::Reg s = V::all(slope);
  int c = 0;
  for (; c + V::lanes <= count; c += V::lanes) {
    const typename V::Reg d = V::load(key + c) - V::load(query + c), sd = s * d;
    V::store(first + c, V::load(first + c) + sd);
    if (second) V::store(second + c, V::fma(sd, d, V::load(second + c)));
  }
  for (; c < count; ++c) {
    const float d = key[c] - query[c];
    first[c] += slope * d;
    if (second) second[c] += slope * d * d;
  }
}

template <class V>
float memory_side(const float* key, const float* query, const float* trust, float slope, int count, float* out) {
  const typename V::Reg s = V::all(slope);
  typename V::Reg sum = V::all(0.0f);
  int c = 0;
  for (; c + V::lanes <= count; c += V::lanes) {
    const typename V::Reg d = V::load(key + c) - V::load(query + c), ed = trust ? V::load(trust + c) * d : d;
    V::store(out + c, V::fma(s, ed, V::load(out + c)));
    sum = V::fma(ed, d, sum);
  }
  float all = sum_of<V>(sum);
  for (; c < count; ++c) {
    const float d = key[c] - query[c], ed = trust ? trust[c] * d : d;
    out[c] += slope * ed;
    all += ed * d;
  }
  return all;
}

template <class V>
constexpr GradLoops grad_loops_of() {
  return {product<V>, weigh<V>, query_side<V>, memory_side<V>};
}

}  // namespace
}  // namespace rotomem
