// What every instruction set provides to the driver in topk_readout_cpu.cpp. Internal to this kernel.
#pragma once

#include <cstdint>

#include "common/instructions.h"

namespace rotomem {

// A panel: `width` consecutive valid elements. A group: `group` consecutive queries.
struct Loops {
  int width;  // at most 32, so that hits fit an integer
  int group;

  // Similarities of one panel with one group:
  //     out[g][w] = scale[w] * (sum_c product + bias[w] + query_bias[g])
  //     product   = key * query                        where selected is false
  //               = key * (key * minus_e + two_eq)     where it is true
  // hits[g] gets a bit for every w whose similarity is above threshold[g] (never for NaN).
  // Returns whether any bit is set; out is complete only where hits[g] is not 0.
  bool (*similarities)(const float* key,         // [CK, width]
                       const float* scale,       // [width], NaN past the last element
                       const float* bias,        // [width]
                       const float* query,       // [CK, group], or [CK, 2, group] of minus_e, two_eq
                       const float* query_bias,  // [2, group]: rounded, and what rounding lost
                       const float* threshold,   // [group]
                       int channels, bool selected,
                       float* out,           // [group, width]
                       std::uint32_t* hits);  // [group]

  // out[c] = sum_j weight[j] * row[j][c] over `count` rows.
  void (*weigh)(const float* const* row, const float* weight, int count, int channels, float* out);

  // out[g][c] += sum_w weight[g][w] * row[w][c] over `count` <= width rows; out rows lie `pitch` apart.
  void (*mix)(const float* const* row, const float* weight, int count, int channels, float* out, std::int64_t pitch);

  // weight[w] = exp(similarity[w] - top) where similarity is a match, else 0; returns their sum. similarity <= top.
  float (*exponentials)(const float* similarity, float top, float* weight);
};

extern const Loops kPortableLoops;
extern const Loops kAvx2Loops;
extern const Loops kAvx512Loops;

const Loops& loops_for(Instructions instructions);

}  // namespace rotomem
