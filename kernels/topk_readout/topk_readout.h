// Reading a memory: similarity -> running top-k -> softmax -> weighted sum of values, without the N x P matrix.
//
// For every query position p the top_k elements n of highest similarity S[n, p] get the weights of a softmax over
// their similarities, and readout[o, :, p] = sum_n weight[n, p] * value[o, n, :].
//
//   dot              S = key . query / sqrt(CK)
//   l2               S = (2 key . query - |key|^2) / sqrt(CK)      (affinities equal those of -|key - query|^2)
//   anisotropic_l2   S = -shrinkage[n] / sqrt(CK) * sum_c selection[c, p] * (key[c, n] - query[c, p])^2
//
// Ties      equal similarities go to the lower n.
// NaN       a similarity that is not a finite number is no match: its element is not chosen. A query without any
//           match has a readout of zeros and adds no usage.
// top_k     0 is a full softmax over all elements; more than N means N.
// valid     elements whose byte is 0 do not exist. None left, or N = 0: std::invalid_argument.
// Chosen    index and weight, where they are asked for, list every query's matches, best first; where there are fewer
//           than k of them, n = -1 and a weight of 0 fill the rest. They need a top_k, since all are chosen without.
// Usage     weights are added as integers (2^-40 each), in pieces that do not depend on the number of threads:
//           the same bytes come out for any number. So does the readout.
// Accuracy  All pairs are scored roughly, in bfloat16 where the processor multiplies it, with a bound on the error.
//           Elements that may be among the best k by it are scored again in float32, by differences where shrinkage
//           scales them: the k chosen are the best k of the float32 scores, whatever the instructions. The error
//           against float64 is at most twice that of the dense formula in float32 torch. A full softmax expands the
//           squares, after keys have been moved so that a typical one lies at the origin.
// Speed     depends on how many elements come close to the k-th best: forty to sixty in pictures, all of them where all
//           keys are equal, which takes some 25 times as long.
// Scratch   owned here: packed keys where none are given (276 bytes an element of 64 channels, see packed_keys.h), 8
//           bytes an element for groups or `valid`, and a copy of keys whose channels are not contiguous. Per thread 8
//           bytes an element for usage and, for up to 512 queries at a time, 12 MiB of candidates (those of 32 queries,
//           where k is in the thousands). Nothing grows with N * P.
// Threads   the calling one and threads - 1 more, which end with the call.
#pragma once

#include <vector>

#include "common/instructions.h"
#include "common/span.h"
#include "topk_readout/packed_keys.h"

namespace rotomem {

// Objects that see other elements than the first group does, read with the same queries.
struct ObjectGroup {
  Span<const float, 3> value;            // [O, N, CV] as in TopkReadout
  Span<const unsigned char, 1> valid;    // [N] or absent: all
  Span<float, 3> readout;                // [O, CV, P] P contiguous; written
};

struct TopkReadout {
  Span<const float, 2> key;              // [CK, N] any strides; [N, CK] rows or [CK, N] rows pack fastest
  Span<const float, 2> query_key;        // [CK, P] any strides
  Span<const float, 3> value;            // [O, N, CV] CV contiguous
  Span<const float, 1> shrinkage;        // [N] or absent: ones; anisotropic_l2 only
  Span<const float, 2> selection;        // [CK, P] or absent: ones; anisotropic_l2 only
  Span<const unsigned char, 1> valid;    // [N] or absent: all
  Span<float, 3> readout;                // [O, CV, P] P contiguous; written
  Span<float, 1> usage;                  // [N] contiguous, or absent; written
  Span<std::int32_t, 2> index;           // [P, k], k = min(top_k, N) contiguous, or absent; written
  Span<float, 2> weight;                 // [P, k] likewise; both or neither
  std::vector<ObjectGroup> others;       // 63 at most; usage, index and weight are those of the first group
  const PackedKeys* packed = nullptr;    // the keys, packed for the same instructions and form; or made here
  int top_k = 30;
  Similarity similarity = Similarity::anisotropic_l2;
};

void topk_readout(const TopkReadout& read, Instructions instructions, int threads);

}  // namespace rotomem
