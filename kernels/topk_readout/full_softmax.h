// What a read without a choice is made of. Internal to this kernel.
#pragma once

#include "topk_readout/topk_readout.h"

namespace rotomem {

// As topk_readout with top_k = 0, for the first group of objects alone; the arguments have been checked.
void full_softmax(const TopkReadout& read, Instructions instructions, int threads);

// Writes [count, CV] rows that lie `pitch` apart as columns of readout [CV, P].
inline void store_columns(const float* rows, std::int64_t pitch, std::int64_t count, std::int64_t channels,
                          const Span<float, 3>& readout, std::int64_t object, std::int64_t first) {
  for (std::int64_t c = 0; c < channels; ++c) {
    float* to = &readout(object, c, first);
    for (std::int64_t p = 0; p < count; ++p) to[p] = rows[p * pitch + c];
  }
}

}  // namespace rotomem
