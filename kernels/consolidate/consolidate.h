// Potentiation: candidates about to be dropped become a few prototypes that hold what their neighbours held.
//
// index       most_used(usage, valid, count): highest usage first, equal usage to the lower index, NaN last.
// weights     a full softmax over the valid candidates of the anisotropic similarity (topk_readout.h), with the
//             candidates' shrinkage and the prototype's own key and selection as the query.
// prototype   key: copied from its candidate; value and shrinkage: weighted means of the valid candidates'.
//
// NaN, no valid candidate, scratch, threads: as topk_readout.h, which does the work.
#pragma once

#include <vector>

#include "common/instructions.h"
#include "common/span.h"

namespace rotomem {

// Indices of the `count` most used valid elements (fewer where there are fewer). valid may be absent.
std::vector<std::int64_t> most_used(Span<const float, 1> usage, Span<const unsigned char, 1> valid,
                                    std::int64_t count);

struct Consolidate {
  Span<const float, 2> key;            // [CK, N] any strides
  Span<const float, 1> shrinkage;      // [N]
  Span<const float, 3> value;          // [O, N, CV] CV contiguous
  Span<const float, 2> selection;      // [CK, N] any strides
  Span<const std::int64_t, 1> index;   // [P] candidates that become prototypes, each in [0, N)
  Span<const unsigned char, 1> valid;  // [N] or absent: all
  Span<float, 2> prototype_key;        // [CK, P] P contiguous; written
  Span<float, 1> prototype_shrinkage;  // [P]; written
  Span<float, 3> prototype_value;      // [O, CV, P] P contiguous; written
};

void consolidate(const Consolidate& job, Instructions instructions, int threads);

}  // namespace rotomem
