// Softmax attention to everything at once, without the P x N matrix: STM's memory read (eq. 1), the long-term and
// self-attention of AOT (section 4).
//
//   readout[p] = sum_n softmax_n(query[p] . key[n] / sqrt(CK)) * value[n]        for every group (batch and head)
//
// One pass: a running greatest score and sum a query, what has been summed scaled down when a greater score comes.
//
// NaN       a score that is not a finite number spoils the readout of its query, and of no other.
// Empty     no groups, no queries or no value channels: nothing is written. N = 0 or CK = 0: std::invalid_argument.
// Accuracy  float32; the error against float64 is at most twice that of plain torch.
// Scratch   owned here, per thread: 144 queries with their sums, and their weights for 64 elements. Nothing grows with N.
// Threads   the calling one and threads - 1 more, which end with the call; the same bytes for any number.
#pragma once

#include "common/instructions.h"
#include "common/span.h"

namespace rotomem {

struct Attention {
  Span<const float, 4> query;  // [B, H, P, CK] channels contiguous, as in all of these; other strides any
  Span<const float, 4> key;    // [B, H, N, CK]
  Span<const float, 4> value;  // [B, H, N, CV]
  Span<float, 4> readout;      // [B, H, P, CV]; written
};

void attention(const Attention& read, Instructions instructions, int threads);

}  // namespace rotomem
