// Attention to the positions around one's own, with learned terms for where in the window they lie (AOT, section 4,
// "short-term attention").
//
// A query at (y, x) compares with the keys at (y+dy, x+dx), |dy| and |dx| <= reach, which take the window's place
// (dy+reach)*side + dx+reach, side = 2*reach+1. In every head of D channels:
//
//   score   = query . key / sqrt(D) + query . relative_key[place] + relative_bias[place]
//   readout = sum_place softmax(score)[place] * (value + relative_value[:, place])
//
// Outside   places outside of the map take no part.
// NaN       a score that is not a finite number takes no part either; a query without any has a readout of zeros.
//           Values are finite.
// Empty     no batch, no rows or no columns: nothing is written. Heads, D and places are at least 1.
// Accuracy  float32; the error against float64 is at most twice that of plain torch.
// Scratch   owned here, per thread: one head's keys and values of at most 32 + 2*reach rows, and 2*side^2 scores a lane.
//           Nothing grows with Y*X*side^2. On a device: none.
// Threads   the calling one and threads - 1 more, which end with the call; the same bytes for any number.
// Devices   windows of a reach of at most 7, heads of at most 32 channels: as all published models have them.
#pragma once

#include "common/device.h"
#include "common/instructions.h"
#include "common/span.h"

namespace rotomem {

struct LocalAttention {
  Span<const float, 4> query;           // [B, heads*D, Y, X] any strides, as all of these
  Span<const float, 4> key;             // [B, heads*D, Y, X]
  Span<const float, 4> value;           // [B, heads*D, Y, X]
  Span<const float, 3> relative_key;    // [heads, side*side, D]
  Span<const float, 2> relative_bias;   // [heads, side*side]
  Span<const float, 3> relative_value;  // [heads, D, side*side]
  Span<float, 4> readout;               // [B, heads*D, Y, X]; written
};

void local_attention(const LocalAttention& read, Instructions instructions, int threads);

constexpr int kLocalAttentionCudaMostReach = 7, kLocalAttentionCudaMostChannels = 32;

// The same with everything in one device's memory.
void local_attention_cuda(const LocalAttention& read, const Queue& queue);

}  // namespace rotomem
