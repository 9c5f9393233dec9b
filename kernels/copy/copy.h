// Copies numbers: the smallest complete kernel, there to be read (see kernels/README.md).
//
// to[i] = from[i]. NaN bits are kept. Empty spans are fine. from and to do not overlap. No scratch.
#pragma once

#include "common/device.h"
#include "common/instructions.h"
#include "common/span.h"

namespace rotomem {

void copy(Span<const float, 1> from,  // [N] any stride
          Span<float, 1> to,          // [N] contiguous; written
          Instructions instructions, int threads);

// The same between two spans of one device's memory.
void copy_cuda(Span<const float, 1> from, Span<float, 1> to, const Queue& queue);

}  // namespace rotomem
