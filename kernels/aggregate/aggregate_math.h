// The arithmetic of aggregating, once for every processor; internal linkage (see common/softmax.h for why). No
// branches, so that loops vectorise.
#pragma once

#include <string.h>

#include <cstdint>

#include "common/check.h"
#include "common/softmax.h"
#include "common/span.h"

namespace rotomem {
namespace {

constexpr float kLargestLogit = 16.118095f;                           // of q = 1 - 1e-7
constexpr float kLeastOdds = 1.0000001e-7f, kLargestOdds = 9999999.0f;  // exp of it, either way

// What is not a number stays so.
ROTOMEM_HD inline float held(float x, float least, float largest) {
  const float above = x < least ? least : x;
  return above > largest ? largest : above;
}

// ln x for normal x > 0, within 3 units in the last place, or 1e-7 near 1.
ROTOMEM_HD inline float logarithm(float x) {
  std::int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const std::int32_t power = (bits - 0x3f3504f3) >> 23;  // so that the rest is within sqrt(1/2) and sqrt(2)
  bits -= static_cast<std::int32_t>(static_cast<std::uint32_t>(power) << 23);
  float m;
  memcpy(&m, &bits, sizeof m);
  const float r = m - 1.0f, square = r * r, e = static_cast<float>(power);
  float y = 7.0376836292e-2f;
  y = y * r - 1.1514610310e-1f;
  y = y * r + 1.1676998740e-1f;
  y = y * r - 1.2420140846e-1f;
  y = y * r + 1.4249322787e-1f;
  y = y * r - 1.6668057665e-1f;
  y = y * r + 2.0000714765e-1f;
  y = y * r - 2.4999993993e-1f;
  y = y * r + 3.3333331174e-1f;
  y = y * r * square - 2.12194440e-4f * e - 0.5f * square;
  return r + y + 0.693359375f * e + (x - x);
}

// Odds against the background, one more object with the given logit taken into account.
ROTOMEM_HD inline float against(float odds, float logit) {
  const float x = held(logit, -80.0f, 40.0f);
  const float own = exponential(x) + (x - x), both = odds + own + odds * own;
  return both > 1e30f ? 1e30f : both;
}

ROTOMEM_HD inline float background_logit(float odds) { return -logarithm(held(odds, kLeastOdds, kLargestOdds)); }

inline void check_aggregate(const Span<const float, 3>& logits, const Span<float, 3>& aggregated) {
  check_size("aggregated B", aggregated.size[0], logits.size[0]);
  check_size("aggregated O", aggregated.size[1], logits.size[1] + 1);
  check_size("aggregated P", aggregated.size[2], logits.size[2]);
  const bool empty = logits.size[0] == 0 || logits.size[2] <= 1;
  check(empty || ((logits.stride[2] == 1 || logits.size[1] == 0) && aggregated.stride[2] == 1),
        "positions are not contiguous");
}

}  // namespace
}  // namespace rotomem
