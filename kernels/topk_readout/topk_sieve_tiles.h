// The loops of Sieve, written once over a vector type V (see topk_readout_tiles.h) and compiled once for every
// instruction set, with internal linkage.
#pragma once

#include <math.h>
#include <string.h>

#include <cstdint>

#include "topk_readout/topk_readout_math.h"
#include "topk_readout/topk_readout_tiles.h"
#include "topk_readout/topk_sieve.h"

namespace rotomem {
namespace {

// The test of all pairs of a tile, then the candidates. x [GROUP, width]. Tests first, without a branch: which query
// has a hit is not to be predicted.
template <class V, int VECTORS, int GROUP>
inline std::uint32_t sift(const Panel& panel, const Asked& asked, const Candidates& candidates, const float* x) {
  constexpr int width = VECTORS * V::lanes;
  typename V::Reg inverse[VECTORS], bound[VECTORS];
  for (int v = 0; v < VECTORS; ++v) {
    inverse[v] = V::load(panel.inverse + v * V::lanes);
    bound[v] = V::load(panel.bound + v * V::lanes);
  }
  std::uint32_t hits[GROUP], any = 0;
#pragma GCC unroll 4
  for (int g = 0; g < GROUP; ++g) {
    const typename V::Reg threshold = V::all(asked.threshold[g]), constant = V::all(asked.constant[g]),
                          breadth = V::all(asked.breadth[g]);
    std::uint32_t bits = 0;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      const typename V::Reg least = V::fnma(bound[v], breadth, V::fma(inverse[v], threshold, constant));
      bits |= V::not_below(V::load(x + g * width + v * V::lanes), least) << (v * V::lanes);
    }
    hits[g] = bits & panel.live;
    any |= static_cast<std::uint32_t>(hits[g] != 0) << g;
  }
  std::uint32_t full = 0;
  for (; any; any &= any - 1) {
    const int g = __builtin_ctz(any);
    std::int32_t held = candidates.held[g];
    float* low = candidates.low + static_cast<std::int64_t>(g) * candidates.room;
    float* high = candidates.high + static_cast<std::int64_t>(g) * candidates.room;
    std::uint32_t* n = candidates.n + static_cast<std::int64_t>(g) * candidates.room;
    for (std::uint32_t bits = hits[g]; bits; bits &= bits - 1) {
      const int w = __builtin_ctz(bits);
      const float d = x[g * width + w] - asked.constant[g], margin = panel.bound[w] * asked.breadth[g];
      high[held] = panel.reach[w] * (d + margin);
      low[held] = panel.reach[w] * (d - margin - 2.0f * asked.slack[g]);
      n[held++] = panel.first + static_cast<std::uint32_t>(w);
    }
    candidates.held[g] = held;
    full |= static_cast<std::uint32_t>(held + width > candidates.room) << g;
  }
  return full;
}

template <class V, int VECTORS, int GROUP>
std::uint32_t scan_float(const Panel& panel, const Asked& asked, const Candidates& candidates, int channels, int,
                         bool selected, float* tile) {
  constexpr int width = VECTORS * V::lanes;
  const auto* key = static_cast<const float*>(panel.feature);
  const auto* query = static_cast<const float*>(asked.feature);
  typename V::Reg sum[GROUP][VECTORS];
  for (int g = 0; g < GROUP; ++g)
    for (int v = 0; v < VECTORS; ++v) sum[g][v] = V::load(panel.bias + v * V::lanes);
  if (selected)
    accumulate<V, VECTORS, GROUP, true>(key, query, channels, sum);
  else
    accumulate<V, VECTORS, GROUP, false>(key, query, channels, sum);
#pragma GCC unroll 16
  for (int g = 0; g < GROUP; ++g)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) V::store(tile + g * width + v * V::lanes, sum[g][v]);
  return sift<V, VECTORS, GROUP>(panel, asked, candidates, tile);
}

// Plain loops over the elements of a panel, which the compiler vectorises.
template <int WIDTH, bool BF16>
void pack_panel(const float* const* key, std::int64_t stride, const float* origin, int count, int channels,
                bool selected, float lambda, const PackedPanel& packed) {
  float norm[WIDTH], lost[WIDTH], square[WIDTH], poison[WIDTH], k[WIDTH], part[2][WIDTH];
  for (int w = 0; w < WIDTH; ++w) norm[w] = lost[w] = square[w] = poison[w] = k[w] = 0.0f;
  for (int c = 0; c < channels; ++c) {
    for (int w = 0; w < count; ++w) k[w] = key[w][c * stride];
    for (int w = 0; w < WIDTH; ++w) {
      poison[w] += k[w] * 0.0f;
      const float moved = k[w] - origin[c];
      part[0][w] = moved;
      part[1][w] = selected ? lambda * moved * moved : 0.0f;
      square[w] += moved * moved;
      norm[w] += part[0][w] * part[0][w] + part[1][w] * part[1][w];
    }
    if (BF16) {
      // K is k at features [0, CK), k^2 at [CK, 2 CK).
      for (int half = 0; half < (selected ? 2 : 1); ++half) {
        const int f = half * channels + c;
        auto* to = static_cast<std::uint16_t*>(packed.feature) + (f / 32) * 32 * WIDTH + (f / 2 % 16) * 32 + f % 2;
        for (int w = 0; w < WIDTH; ++w) {
          const std::uint16_t rounded = bf16(part[half][w]);
          const float off = part[half][w] - from_bf16(rounded);
          lost[w] += off * off;
          to[(w / 16) * 512 + (w % 16) * 2] = rounded;
        }
      }
    } else {
      auto* to = static_cast<float*>(packed.feature) + c * WIDTH;
      for (int w = 0; w < WIDTH; ++w) to[w] = part[0][w];
    }
  }
  for (int w = 0; w < WIDTH; ++w) {
    packed.square[w] = square[w];
    packed.norm[w] = sqrtf(norm[w]) + poison[w];
    packed.lost[w] = sqrtf(lost[w]);
  }
}

template <class V>
int count_not_below(const float* number, int count, float least) {
  const typename V::Reg all = V::all(least);
  int found = 0;
  for (int i = 0; i < count; i += V::lanes) found += __builtin_popcount(V::not_below(V::load(number + i), all));
  return found;
}

// Bisection of the bits of a float, in their order.
template <class V>
float kth(float* number, int count, int k) {
  const int padded = (count + V::lanes - 1) / V::lanes * V::lanes;
  for (int i = count; i < padded; ++i) number[i] = kNoMatch;
  std::int64_t least = ordered(kNoMatch), beyond = std::int64_t{ordered(-kNoMatch)} + 1;
  while (beyond - least > 1) {  // at least k numbers reach `least`, fewer than k reach `beyond`
    const std::int64_t middle = least + (beyond - least) / 2;
    const int found = count_not_below<V>(number, padded, from_ordered(static_cast<std::uint32_t>(middle)));
    if (found >= k) {
      least = middle;
    } else {
      beyond = middle;
    }
  }
  return from_ordered(static_cast<std::uint32_t>(least));
}

template <class V, Sum SUM>
inline float sum_of(const float* key, const float* query, const float* e, const float* origin, int channels) {
  typename V::Reg sum = V::zero();
  int c = 0;
  for (; c + V::lanes <= channels; c += V::lanes) {
    const typename V::Reg k = V::load(key + c), q = V::load(query + c);
    if (SUM == Sum::product) {
      sum = V::fma(k, q, sum);
    } else if (SUM == Sum::difference) {
      const typename V::Reg off = V::sub(k, q);
      sum = V::fnma(V::mul(off, V::load(e + c)), off, sum);
    } else {
      const typename V::Reg moved = V::sub(k, V::load(origin + c));
      sum = V::fma(V::mul(moved, V::load(e + c)), V::sub(q, moved), sum);
    }
  }
  float total = V::sum(sum);
  for (; c < channels; ++c) {
    const float off = key[c] - query[c], moved = key[c] - origin[c];
    if (SUM == Sum::product) total += key[c] * query[c];
    if (SUM == Sum::difference) total -= off * e[c] * off;
    if (SUM == Sum::moved) total += moved * e[c] * (query[c] - moved);
  }
  return total;
}

template <class V, Sum SUM>
void score_all(const Scored& scored, const float* query, const float* e, const std::uint32_t* n, int count,
               float* similarity) {
  for (int j = 0; j < count; ++j)
    similarity[j] = scored.scale[n[j]] * sum_of<V, SUM>(scored.key + static_cast<std::int64_t>(n[j]) * scored.pitch,
                                                        query, e, scored.origin, scored.channels);
}

template <class V>
void score(const Scored& scored, const float* query, const float* e, const std::uint32_t* n, int count,
           float* similarity) {
  switch (scored.sum) {
    case Sum::product: return score_all<V, Sum::product>(scored, query, e, n, count, similarity);
    case Sum::difference: return score_all<V, Sum::difference>(scored, query, e, n, count, similarity);
    case Sum::moved: return score_all<V, Sum::moved>(scored, query, e, n, count, similarity);
  }
}

inline void nothing() {}

template <class V, int VECTORS, int GROUP>
constexpr Sieve float_sieve() {
  return {VECTORS * V::lanes, GROUP, false, nothing, nothing, scan_float<V, VECTORS, GROUP>,
          pack_panel<VECTORS * V::lanes, false>, kth<V>, score<V>};
}

}  // namespace
}  // namespace rotomem
