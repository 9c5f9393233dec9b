// Reading a memory on an NVIDIA device: what topk_readout.h defines, ties, NaN, valid, chosen and usage included, for
// up to kMostTopk elements a query. Everything given lies on the queue's device.
//
// Same bytes  on every run, for any number of multiprocessors: which elements are chosen and the order in which their
//             shares and values are summed hang on nothing else than the numbers.
// Accuracy    float32: scores of what is chosen are sums over differences or, without shrinkage, of keys moved to where most
//             of the memory lies; that all keys lie far away does no harm.
// Scratch     the caller's, aligned to 16 bytes; about 280 N bytes and, at k = 30, 5 KiB a query (some more of few queries,
//             which more blocks share).
// Waits for   nothing. `valid` is not looked at before: where it leaves nothing, zeros are read and no error is made.
#pragma once

#include <cstddef>

#include "common/device.h"
#include "common/numbers.h"
#include "common/span.h"
#include "topk_readout/topk_readout.h"

namespace rotomem {

// The most elements a query may choose, and the most channels of keys.
constexpr int kMostTopk = 512, kMostKeyChannels = 512;

struct TopkReadoutCuda {
  Span<const float, 2> key;            // [CK, N] any strides; rows [N, CK] are read fastest
  Span<const float, 2> query_key;      // [CK, P] any strides
  NumberSpan<3> value;                 // [O, N, CV] CV contiguous
  Span<const float, 1> shrinkage;      // [N] or absent: ones; anisotropic_l2 only
  Span<const float, 2> selection;      // [CK, P] or absent: ones; anisotropic_l2 only
  Span<const unsigned char, 1> valid;  // [N] or absent: all
  Span<float, 3> readout;              // [O, CV, P] P contiguous; written
  Span<float, 1> usage;                // [N] contiguous, or absent; written
  Span<std::int32_t, 2> index;         // [P, k], k = min(top_k, N) contiguous, or absent; written
  Span<float, 2> weight;               // [P, k] likewise; both or neither
  int top_k = 30;
  Similarity similarity = Similarity::anisotropic_l2;
  void* scratch = nullptr;             // topk_readout_scratch bytes
  std::size_t scratch_bytes = 0;
};

// Bytes of scratch for a read of these sizes on a device. Scratch and data need not be given yet.
std::size_t topk_readout_scratch(const TopkReadoutCuda& read, int device);

void topk_readout_cuda(const TopkReadoutCuda& read, const Queue& queue);

}  // namespace rotomem
