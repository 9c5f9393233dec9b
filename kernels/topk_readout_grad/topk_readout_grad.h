// Gradients of a top-k read (topk_readout.h), from what the read chose: only the chosen pairs are visited.
//
// With w the weights, g the gradient of the readout, sums over p going through the positions that chose n:
//
//   grad_value[o, n]   = sum_p w[n, p] g[o, p]
//   a[n, p]            = sum_o <g[o, p], value[o, n]>
//   slope[n, p]        = w[n, p] (a[n, p] - sum_m w[m, p] a[m, p] / sum_m w[m, p])
//
// where the last sum is 1 but for rounding, which counts where one weight is nearly 1; and with d = key[n] - query[p],
// r = 1 / sqrt(CK), every product channel by channel, selection and shrinkage ones where absent:
//
//                      grad_key[n]                             grad_query[p]
//   dot                r sum_p slope query[p]                  r sum_n slope key[n]
//   l2                 -2 r sum_p slope d                      2 r sum_n slope d
//   anisotropic_l2     -2 r shrinkage sum_p slope selection d  2 r selection sum_n slope shrinkage d
//
//   grad_shrinkage[n]  = -r sum_p slope <selection[p], d^2>
//   grad_selection[p]  = -r sum_n slope shrinkage[n] d^2
//
// Ties      belong to the read: which elements are among the best carries no gradient.
// NaN       as it comes: the read chooses no pair whose similarity is not finite.
// Nothing   n = -1 is no pair. What chose nothing, and what nobody chose, has gradients of zero.
// Order     sums go through the pairs by ascending p, or as the read listed them, in pieces that do not depend on the
//           number of threads: the same bytes come out for any number.
// Scratch   owned here: 16 bytes a pair and 16 an element.
// Threads   the calling one and threads - 1 more, which end with the call.
#pragma once

#include <cstdint>

#include "common/instructions.h"
#include "common/span.h"
#include "topk_readout/topk_readout.h"

namespace rotomem {

// The last axis of two or more is contiguous, but for index and weight.
struct TopkReadoutGrad {
  Span<const float, 2> key;           // [N, CK]
  Span<const float, 2> query_key;     // [P, CK]
  Span<const float, 3> value;         // [O, N, CV]
  Span<const float, 1> shrinkage;     // [N] or absent: ones; anisotropic_l2 only
  Span<const float, 2> selection;     // [P, CK] or absent: ones; anisotropic_l2 only
  Span<const std::int32_t, 2> index;  // [P, k] below N, no n twice for a position; -1: nothing
  Span<const float, 2> weight;        // [P, k]
  Span<const float, 3> grad_readout;  // [O, P, CV]
  Span<float, 2> grad_key;            // [N, CK]; written, as all below
  Span<float, 2> grad_query_key;      // [P, CK]
  Span<float, 3> grad_value;          // [O, N, CV]
  Span<float, 1> grad_shrinkage;      // [N] where there is shrinkage, else absent
  Span<float, 2> grad_selection;      // [P, CK] where there is selection, else absent
  Similarity similarity = Similarity::anisotropic_l2;
};

void topk_readout_grad(const TopkReadoutGrad& job, Instructions instructions, int threads);

}  // namespace rotomem
