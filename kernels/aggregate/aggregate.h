// Soft aggregation: what is said of objects one by one becomes logits of one distribution over them and the background
// (STM, supplement).
//
//   p_o = 1 / (1 + exp(-logits[o])), q_0 = prod_o (1 - p_o), q_o = p_o;   aggregated = log(q / (1 - q)),
//
// q held inside [1e-7, 1 - 1e-7]. The odds of an object are exp(logits[o]), those of the background 1 to
// prod_o (1 + odds_o) - 1: nothing is lost to 1 - p.
//
// NaN       makes its position's background NaN, and itself.
// Empty     no positions: nothing is written. Without objects the background is certain.
// Accuracy  float32: 1e-6 of the logit, wherever q is not held.
// Scratch   none.
// Threads   the calling one and threads - 1 more, which end with the call; the same bytes for any number.
#pragma once

#include "common/device.h"
#include "common/span.h"

namespace rotomem {

void aggregate(Span<const float, 3> logits,  // [B, O, P] P contiguous
               Span<float, 3> aggregated,    // [B, O+1, P] P contiguous; written
               int threads);

// The same with both in one device's memory.
void aggregate_cuda(Span<const float, 3> logits, Span<float, 3> aggregated, const Queue& queue);

}  // namespace rotomem
