// What a read of the best k needs of every instruction set. Internal to this kernel.
//
// Scores of all pairs are computed roughly (in bfloat16 where the processor multiplies it), together with a bound on
// how far they can be off. Elements that cannot be among a query's best k fall through; what stays is scored again in
// float32. With D = similarity / scale (scale: shrinkage / sqrt(CK)),
//
//     K . Q = D + constant,    K' . Q' = x,
//     |x - K . Q| <= |K - K'| |Q| + |K'| |Q - Q'| + rounding <= bound * breadth
//
//                       K                      Q                    constant
//     dot               k                      q                    0
//     no selection      k, minus |k|^2         2q, 1                sum q^2, or 0 without shrinkage
//     selection         lambda k^2, k          -e / lambda, 2eq     sum e q^2, or 0 without shrinkage
//
// where K' and Q' are K and Q rounded to bfloat16 (Cauchy and Schwarz; norms are taken of what rounding really lost),
// k and q are moved by an origin in all but dot, and lambda, a power of two, balances the two halves.
#pragma once

#include <cstdint>

#include "common/instructions.h"

namespace rotomem {

// `width` consecutive elements. An element that never matches has a bound of -inf; one that rough scores say nothing
// of has +inf; the features of both are 0.
struct Panel {
  const void* feature;   // float [CK, width], or bfloat16 [features / 32, width / 16, 16, 16, 2] (pairs by elements)
  const float* inverse;  // [width] 1 / scale
  const float* reach;    // [width] scale
  const float* bound;    // [width]
  const float* bias;     // [width] minus |k|^2, or 0
  std::uint32_t first;   // n of the first
  std::uint32_t live;    // a bit for every element that somebody may read
};

// `group` consecutive queries. One of which rough scores say nothing has an infinite breadth, features of 0.
struct Asked {
  const void* feature;     // float [CK, 1 or 2, group], or bfloat16 [group, features]
  const float* threshold;  // [group] similarity to be reached
  const float* constant;   // [group] less `slack`
  const float* slack;      // [group] what rounding the constant may cost
  const float* breadth;    // [group]
};

// Per query, elements that may be among the best: bounds of their similarity, and n, descending.
struct Candidates {
  float* low;            // [group, room]
  float* high;           // [group, room]
  std::uint32_t* n;      // [group, room]
  std::int32_t* held;    // [group]
  std::int32_t room;
};

// What becomes of `width` keys, and what is known of each.
struct PackedPanel {
  void* feature;  // as in Panel; zeroed by the caller
  float* square;  // [width] |k|^2
  float* norm;    // [width] |K|; NaN where a number of the key is not finite
  float* lost;    // [width] |K - K'|
};

// The sum over channels that a float32 score is. What all scores of a query have in common makes no difference to its
// weights; unless shrinkage scales it, it is left out, and with it its rounding.
enum class Sum {
  product,     // key * query
  difference,  // -e * (key - query)^2
  moved,       // e * k * (2 q - k) for k = key - origin; `query` is 2 q here
};

struct Scored {
  const float* key;  // [N, CK] rows `pitch` apart
  std::int64_t pitch;
  const float* scale;   // [N]
  const float* origin;  // [CK]
  int channels;
  Sum sum;
};

struct Shape {
  int channels, features;
  bool selected;
};

struct Sieve {
  int width;  // 32 at most
  int group;  // 32 at most
  bool bf16;
  void (*begin)();  // before a thread's first scan, and
  void (*end)();    // after its last

  // Adds to the candidates every element of the panel that may reach a query's threshold. Returns a bit for every
  // query that has less than `width` places left.
  std::uint32_t (*scan)(const Panel& panel, const Asked& asked, const Candidates& candidates, const Shape& shape,
                        float* tile);  // [group, width] scratch

  // peak[g][w] = the greater of itself and the lower bound of element w for query g; rows lie `pitch` apart.
  void (*probe)(const Panel& panel, const Asked& asked, const Shape& shape, float* tile, float* peak,
                std::int64_t pitch);

  void (*pack)(const float* const* key, std::int64_t stride, const float* origin, int count, int channels,
               bool selected, float lambda, const PackedPanel& packed);

  // Keeps those of `held` candidates whose upper bound is not below `least`, in their order; returns how many, and
  // counts in `scored` how many of its first these are. The room behind them, up to a multiple of 16, is overwritten.
  int (*keep)(float* low, float* high, std::uint32_t* n, int held, float least, std::int32_t* scored);

  // The k-th greatest of `count` >= k numbers, none of them NaN; up to 16 numbers after them are overwritten.
  float (*kth)(float* number, int count, int k);

  // similarity[j] = scale[n[j]] * (the form's sum), in float32.
  void (*score)(const Scored& scored, const float* query, const float* e, const std::uint32_t* n, int count,
                float* similarity);
};

extern const Sieve kPortableSieve;
extern const Sieve kAvx2Sieve;
extern const Sieve kAvx512Sieve;
extern const Sieve kAvx512Bf16Sieve;
extern const Sieve kAmxSieve;

const Sieve& sieve_for(Instructions instructions);

}  // namespace rotomem
