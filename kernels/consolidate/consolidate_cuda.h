// Potentiation on an NVIDIA device: what consolidate.h defines for prototypes already picked. Everything given lies on the
// queue's device.
//
// Same bytes  on every run and device of a kind: pieces of the candidates are cut by their number alone.
// Scratch     the caller's, aligned to 16 bytes: 4 P N bytes of weights and up to 64 O CV P of partial sums. P is about a
//             hundred and this happens once in dozens of frames: to build the weights costs less than not to.
// NaN         as consolidate.h has it; a prototype without any match gets zeros.
// index       is not looked at before: it must lie in [0, N).
#pragma once

#include <cstddef>

#include "common/device.h"
#include "common/numbers.h"
#include "common/span.h"

namespace rotomem {

struct ConsolidateCuda {
  Span<const float, 2> key;            // [CK, N] any strides
  Span<const float, 1> shrinkage;      // [N]
  NumberSpan<3> value;                 // [O, N, CV] CV contiguous
  Span<const float, 2> selection;      // [CK, N] any strides
  Span<const std::int64_t, 1> index;   // [P]
  Span<const unsigned char, 1> valid;  // [N] or absent: all
  Span<float, 2> prototype_key;        // [CK, P] any strides; written
  Span<float, 1> prototype_shrinkage;  // [P]; written
  Span<float, 3> prototype_value;      // [O, CV, P] P contiguous; written
  void* scratch = nullptr;             // consolidate_scratch bytes
  std::size_t scratch_bytes = 0;
};

std::size_t consolidate_scratch(const ConsolidateCuda& job);

void consolidate_cuda(const ConsolidateCuda& job, const Queue& queue);

}  // namespace rotomem
