// Which elements stay when memory must shrink: the most used ones.
//
// Elements with usage strictly greater than the (N - keep)-th smallest usage stay: elements tied at that threshold go
// together, so fewer than `keep` may stay. Where nothing would, the `keep` most used stay, equal usage to the lower
// index. keep >= N keeps everything, keep = 0 nothing. NaN counts as never used (below everything).
//
// On NVIDIA devices torch's stable sort does this (rotomem.ops): 10,000 numbers a few times a shot leave a kernel nothing to win.
#pragma once

#include <cstdint>
#include <vector>

#include "common/span.h"

namespace rotomem {

// Indices of the survivors, ascending. usage [N]; keep >= 0.
std::vector<std::int64_t> keep_most_used(Span<const float, 1> usage, std::int64_t keep);

}  // namespace rotomem
