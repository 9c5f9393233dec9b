// Portable code alone: the compiler's vectors of four already wait for memory.
#include "aggregate/aggregate.h"

#include <algorithm>

#include "aggregate/aggregate_math.h"
#include "common/parallel.h"

namespace rotomem {
namespace {

constexpr std::int64_t kPiece = 2048;  // positions; what is summed of them stays near

void piece(const float* logits, std::int64_t from_row, float* aggregated, std::int64_t to_row, std::int64_t objects,
           std::int64_t count) {
  float odds[kPiece];
  std::fill_n(odds, count, 0.0f);
  for (std::int64_t o = 0; o < objects; ++o) {
    const float* from = logits + o * from_row;
    float* to = aggregated + (o + 1) * to_row;
    for (std::int64_t p = 0; p < count; ++p) {
      odds[p] = against(odds[p], from[p]);
      to[p] = held(from[p], -kLargestLogit, kLargestLogit);
    }
  }
  for (std::int64_t p = 0; p < count; ++p) aggregated[p] = background_logit(odds[p]);
}

}  // namespace

void aggregate(Span<const float, 3> logits, Span<float, 3> aggregated, int threads) {
  check_aggregate(logits, aggregated);
  const std::int64_t positions = logits.size[2], pieces = (positions + kPiece - 1) / kPiece;
  parallel_for(logits.size[0] * pieces, threads, [&](std::int64_t i, int) {
    const std::int64_t b = i / pieces, first = i % pieces * kPiece;
    piece(logits.data + b * logits.stride[0] + first, logits.stride[1],
          aggregated.data + b * aggregated.stride[0] + first, aggregated.stride[1], logits.size[1],
          std::min(kPiece, positions - first));
  });
}

}  // namespace rotomem
