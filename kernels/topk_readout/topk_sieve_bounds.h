// How far a rough score can be off: the two factors of |x - K . Q| <= bound * breadth (see topk_sieve.h), and what
// rounding in float32 adds. Everything here errs on the safe side.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace rotomem {

namespace {

// What rounding to bfloat16 usually loses of a norm; at most it is 2^-9. The sum of the two products of norms becomes
// one product by |K - K'| <= kUsualLoss * bound and |K'| <= bound: one multiply-add a pair, and hardly looser.
constexpr float kUsualLoss = 0.0009f;

// Beyond, products of norms could overflow float32.
constexpr float kLongest = 1e18f;

constexpr float kInfinite = std::numeric_limits<float>::infinity();

struct ElementBound {
  float inverse = 0.0f, reach = 1.0f, bound = -kInfinite, bias = 0.0f;
  bool rough = false;  // whether rough scores say anything
};

// norm NaN where a number of the key is not finite; square 0 where there is no bias.
inline ElementBound element_bound(float scale, float norm, float lost, float square, float lambda) {
  ElementBound element;
  if (std::isnan(norm) || !std::isfinite(scale)) return element;  // no score of it is finite
  element.bound = kInfinite;
  const float length = std::hypot(norm, lambda * square);
  if (!(scale > 0.0f) || !std::isfinite(1.0f / scale) || !(length < kLongest)) return element;
  element.rough = true;
  element.inverse = 1.0f / scale;
  element.reach = scale;
  element.bias = -square;
  // 1.005: |K'| may exceed |K| by 2^-8 of it; sums of squares are rounded. 1e-30: denormal numbers count as zeros.
  element.bound = std::fmax(1.005f * std::fmax(std::fmax(norm, lost / kUsualLoss), 0.5f * length), 1e-30f);
  return element;
}

struct QueryBound {
  float constant = 0.0f, slack = 0.0f, breadth = kInfinite;
  bool rough = false;
};

// constant: of D, in double, and size, the same sum of absolute values. norm |Q|, lost |Q - Q'|, bias: Q's part that
// goes with minus |k|^2, or 0.
inline QueryBound query_bound(double constant, double size, double norm, double lost, float bias,
                              std::int64_t channels, bool bf16) {
  QueryBound query;
  const double length = std::sqrt(norm * norm + static_cast<double>(bias) * bias);
  if (!(length < static_cast<double>(kLongest)) || !(size < 1e36)) return query;
  query.rough = true;
  // Sums of 2 CK products and the float32 score itself, each rounded 2^-24 at a time.
  const double rounding = (4.0 * static_cast<double>(channels) + 64.0) / 16777216.0;
  const double loss = bf16 ? static_cast<double>(kUsualLoss) * norm + lost : 0.0;
  query.breadth = static_cast<float>(std::fmax(1.005 * (loss + 2.0 * rounding * length), 1e-30));
  query.slack = static_cast<float>(2.0 * rounding * size + 1e-35);
  query.constant = static_cast<float>(constant) - query.slack;
  return query;
}

}  // namespace
}  // namespace rotomem
