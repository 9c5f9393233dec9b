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
    for (std::uint32_t bits = hits[g]; bits;) {
      const int w = 31 - __builtin_clz(bits);
      bits ^= 1u << w;
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

// Lower bounds of all pairs of a tile, the greatest so far at every place of it.
template <class V, int VECTORS, int GROUP>
inline void raise_peaks(const Panel& panel, const Asked& asked, const float* x, float* peak, std::int64_t pitch) {
  for (int v = 0; v < VECTORS; ++v) {
    const typename V::Reg bound = V::load(panel.bound + v * V::lanes), reach = V::load(panel.reach + v * V::lanes),
                          sure = V::max(bound, V::sub(V::zero(), bound));  // -inf, of no match, lowers too
    for (int g = 0; g < GROUP; ++g) {
      const typename V::Reg constant = V::all(asked.constant[g] + 2.0f * asked.slack[g]),
                            breadth = V::all(asked.breadth[g]);
      const typename V::Reg d = V::sub(V::load(x + (g * VECTORS + v) * V::lanes), constant);
      const typename V::Reg low = V::mul(reach, V::fnma(sure, breadth, d));
      float* to = peak + g * pitch + v * V::lanes;
      V::store(to, V::max(low, V::load(to)));
    }
  }
}

template <class V, int VECTORS, int GROUP>
inline void sums_of(const Panel& panel, const Asked& asked, const Shape& shape, float* tile) {
  constexpr int width = VECTORS * V::lanes;
  const auto* key = static_cast<const float*>(panel.feature);
  const auto* query = static_cast<const float*>(asked.feature);
  typename V::Reg sum[GROUP][VECTORS];
  for (int g = 0; g < GROUP; ++g)
    for (int v = 0; v < VECTORS; ++v) sum[g][v] = V::load(panel.bias + v * V::lanes);
  if (shape.selected)
    accumulate<V, VECTORS, GROUP, true>(key, query, shape.channels, sum);
  else
    accumulate<V, VECTORS, GROUP, false>(key, query, shape.channels, sum);
#pragma GCC unroll 16
  for (int g = 0; g < GROUP; ++g)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) V::store(tile + g * width + v * V::lanes, sum[g][v]);
}

// SUMS computes a tile of rough scores.
using Sums = void (*)(const Panel& panel, const Asked& asked, const Shape& shape, float* tile);

template <class V, int VECTORS, int GROUP, Sums SUMS>
std::uint32_t scan(const Panel& panel, const Asked& asked, const Candidates& candidates, const Shape& shape,
                   float* tile) {
  SUMS(panel, asked, shape, tile);
  return sift<V, VECTORS, GROUP>(panel, asked, candidates, tile);
}

template <class V, int VECTORS, int GROUP, Sums SUMS>
void probe(const Panel& panel, const Asked& asked, const Shape& shape, float* tile, float* peak, std::int64_t pitch) {
  SUMS(panel, asked, shape, tile);
  raise_peaks<V, VECTORS, GROUP>(panel, asked, tile, peak, pitch);
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
  float greatest = kNoMatch, smallest = -kNoMatch;
  for (int i = 0; i < count; ++i) {
    greatest = number[i] > greatest ? number[i] : greatest;
    smallest = number[i] < smallest ? number[i] : smallest;
  }
  // At least k numbers reach `least`, fewer than k reach `beyond`.
  std::int64_t least = ordered(smallest), beyond = std::int64_t{ordered(greatest)} + 1;
  while (beyond - least > 1) {
    const std::int64_t middle = least + (beyond - least) / 2;
    const int found = count_not_below<V>(number, padded, from_ordered(static_cast<std::uint32_t>(middle)));
    if (found >= k) {
      least = middle;
    } else {
      beyond = middle;
    }
    if (found == k) break;
  }
  return from_ordered(static_cast<std::uint32_t>(least));
}

template <class V>
int keep(float* low, float* high, std::uint32_t* n, int held, float least, std::int32_t* scored) {
  const typename V::Reg all = V::all(least);
  auto* numbers = reinterpret_cast<float*>(n);  // only moved
  int kept = 0, first = 0;
  for (int j = 0; j < held; j += V::lanes) {
    const typename V::Reg a = V::load(low + j), b = V::load(high + j), c = V::load(numbers + j);
    std::uint32_t bits = V::not_below(b, all);
    if (held - j < V::lanes) bits &= (1u << (held - j)) - 1;
    if (j < *scored) first += __builtin_popcount(*scored - j < V::lanes ? bits & ((1u << (*scored - j)) - 1) : bits);
    V::store_some(low + kept, a, bits);
    V::store_some(high + kept, b, bits);
    V::store_some(numbers + kept, c, bits);
    kept += __builtin_popcount(bits);
  }
  *scored = first;
  return kept;
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
  return {VECTORS * V::lanes, GROUP, false, nothing, nothing,
          scan<V, VECTORS, GROUP, sums_of<V, VECTORS, GROUP>>, probe<V, VECTORS, GROUP, sums_of<V, VECTORS, GROUP>>,
          pack_panel<VECTORS * V::lanes, false>, keep<V>, kth<V>, score<V>};
}

}  // namespace
}  // namespace rotomem
