// The loops of Loops, written once over a vector type V and compiled once for every instruction set. Everything has
// internal linkage, for the reason given in topk_readout_math.h.
#pragma once

#include <cstdint>

#include "topk_readout/topk_readout_loops.h"
#include "topk_readout/topk_readout_math.h"

namespace rotomem {
namespace {

// VECTORS registers of elements by GROUP queries stay in registers over all channels.
template <class V, int VECTORS, int GROUP, bool SELECTED>
inline void accumulate(const float* key, const float* query, int channels, typename V::Reg (&sum)[GROUP][VECTORS]) {
  for (int c = 0; c < channels; ++c) {
    typename V::Reg k[VECTORS];
    for (int v = 0; v < VECTORS; ++v) k[v] = V::load(key + v * V::lanes);
#pragma GCC unroll 16
    for (int g = 0; g < GROUP; ++g) {
      if (SELECTED) {
        const typename V::Reg minus_e = V::all(query[g]), two_eq = V::all(query[GROUP + g]);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[g][v] = V::fma(k[v], V::fma(k[v], minus_e, two_eq), sum[g][v]);
      } else {
        const typename V::Reg q = V::all(query[g]);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[g][v] = V::fma(k[v], q, sum[g][v]);
      }
    }
    key += VECTORS * V::lanes;
    query += SELECTED ? 2 * GROUP : GROUP;
  }
}

template <class V, int VECTORS, int GROUP, bool SELECTED>
inline bool tile(const float* key, const float* scale, const float* bias, const float* query,
                 const float* query_bias, const float* threshold, int channels, float* out, std::uint32_t* hits) {
  constexpr int width = VECTORS * V::lanes;
  typename V::Reg sum[GROUP][VECTORS];
  for (int g = 0; g < GROUP; ++g)
    for (int v = 0; v < VECTORS; ++v) sum[g][v] = V::all(query_bias[GROUP + g]);
  accumulate<V, VECTORS, GROUP, SELECTED>(key, query, channels, sum);
  std::uint32_t any = 0;
#pragma GCC unroll 16
  for (int g = 0; g < GROUP; ++g) {
    const typename V::Reg own = V::all(query_bias[g]), least = V::all(threshold[g]);
    std::uint32_t bits = 0;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      const typename V::Reg biased = V::add(V::add(sum[g][v], V::load(bias + v * V::lanes)), own);
      sum[g][v] = V::mul(biased, V::load(scale + v * V::lanes));
      bits |= V::above(sum[g][v], least) << (v * V::lanes);
    }
    hits[g] = bits;
    any |= bits;
    if (bits)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) V::store(out + g * width + v * V::lanes, sum[g][v]);
  }
  return any != 0;
}

template <class V, int VECTORS, int GROUP>
bool similarities(const float* key, const float* scale, const float* bias, const float* query,
                  const float* query_bias, const float* threshold, int channels, bool selected, float* out,
                  std::uint32_t* hits) {
  return selected
             ? tile<V, VECTORS, GROUP, true>(key, scale, bias, query, query_bias, threshold, channels, out, hits)
             : tile<V, VECTORS, GROUP, false>(key, scale, bias, query, query_bias, threshold, channels, out, hits);
}

template <class V>
void weigh(const float* const* row, const float* weight, int count, int channels, float* out) {
  constexpr int block = 8 * V::lanes;
  int c = 0;
  for (; c + block <= channels; c += block) {
    typename V::Reg sum[8];
    for (int v = 0; v < 8; ++v) sum[v] = V::zero();
    for (int j = 0; j < count; ++j) {
      const typename V::Reg w = V::all(weight[j]);
      const float* from = row[j] + c;
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) sum[v] = V::fma(w, V::load(from + v * V::lanes), sum[v]);
    }
    for (int v = 0; v < 8; ++v) V::store(out + c + v * V::lanes, sum[v]);
  }
  for (; c < channels; ++c) {
    float sum = 0.0f;
    for (int j = 0; j < count; ++j) sum += weight[j] * row[j][c];
    out[c] = sum;
  }
}

template <class V, int GROUP, int WIDTH>
void mix(const float* const* row, const float* weight, int count, int channels, float* out, std::int64_t pitch) {
  constexpr int block = 2 * V::lanes;
  int c = 0;
  for (; c + block <= channels; c += block) {
    typename V::Reg sum[GROUP][2];
#pragma GCC unroll 16
    for (int g = 0; g < GROUP; ++g)
      for (int v = 0; v < 2; ++v) sum[g][v] = V::load(out + g * pitch + c + v * V::lanes);
    for (int w = 0; w < count; ++w) {
      const typename V::Reg low = V::load(row[w] + c), high = V::load(row[w] + c + V::lanes);
#pragma GCC unroll 16
      for (int g = 0; g < GROUP; ++g) {
        const typename V::Reg share = V::all(weight[g * WIDTH + w]);
        sum[g][0] = V::fma(share, low, sum[g][0]);
        sum[g][1] = V::fma(share, high, sum[g][1]);
      }
    }
#pragma GCC unroll 16
    for (int g = 0; g < GROUP; ++g)
      for (int v = 0; v < 2; ++v) V::store(out + g * pitch + c + v * V::lanes, sum[g][v]);
  }
  for (; c < channels; ++c)
    for (int g = 0; g < GROUP; ++g) {
      float sum = out[g * pitch + c];
      for (int w = 0; w < count; ++w) sum += weight[g * WIDTH + w] * row[w][c];
      out[g * pitch + c] = sum;
    }
}

template <int WIDTH>
float exponentials(const float* similarity, float top, float* weight) {
  for (int w = 0; w < WIDTH; ++w)
    weight[w] = is_match(similarity[w]) ? exp_nonpositive(similarity[w] - top) : 0.0f;
  float sum = 0.0f;
  for (int w = 0; w < WIDTH; ++w) sum += weight[w];
  return sum;
}

template <class V, int VECTORS, int GROUP>
constexpr Loops loops_of() {
  return {VECTORS * V::lanes, GROUP, similarities<V, VECTORS, GROUP>, weigh<V>, mix<V, GROUP, VECTORS * V::lanes>,
          exponentials<VECTORS * V::lanes>};
}

}  // namespace
}  // namespace rotomem
