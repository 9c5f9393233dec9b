// The arithmetic of reading, once for every processor. Everything here has internal linkage: files compiled for
// different instruction sets must not share a function, or the linker keeps the one that not every machine can run.
#pragma once

#include <string.h>

#include <cstdint>
#include <limits>

#include "common/host_device.h"

namespace rotomem {
namespace {

constexpr float kNoMatch = -std::numeric_limits<float>::infinity();

// A weight of 1 in the integers in which usage is summed: 2^23 positions fit before they overflow.
constexpr double kUsageOne = 1099511627776.0;  // 2^40

ROTOMEM_HD inline bool is_match(float similarity) {
  return similarity > kNoMatch && similarity < -kNoMatch;  // false for NaN
}

// Floats as integers of the same order; -0 comes before +0, NaN has no place.
ROTOMEM_HD inline std::uint32_t ordered(float number) {
  std::uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  return (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
}

ROTOMEM_HD inline float from_ordered(std::uint32_t bits) {
  bits = (bits & 0x80000000u) ? bits & 0x7fffffffu : ~bits;
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

// The nearest bfloat16, ties to even; the number must be finite.
ROTOMEM_HD inline std::uint16_t bf16(float number) {
  std::uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

ROTOMEM_HD inline float from_bf16(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

// An element of one query's candidates as one integer: larger is better, that is a higher similarity, then a lower
// n. The similarity must be a match, n below 2^32.
ROTOMEM_HD inline std::uint64_t candidate(float similarity, std::uint32_t n) {
  const float positive_zero = similarity + 0.0f;  // -0 and +0 are equal scores
  return (static_cast<std::uint64_t>(ordered(positive_zero)) << 32) | static_cast<std::uint32_t>(~n);
}

ROTOMEM_HD inline float candidate_similarity(std::uint64_t one) {
  return from_ordered(static_cast<std::uint32_t>(one >> 32));
}

ROTOMEM_HD inline std::uint32_t candidate_element(std::uint64_t one) { return ~static_cast<std::uint32_t>(one); }

// e^x for x <= 0, within 2 units in the last place; 0 below -87 and for NaN. No branches, so that loops vectorise.
ROTOMEM_HD inline float exp_nonpositive(float x) {
  const float kept = x > -87.0f ? x : -87.0f;
  // Adding 1.5 * 2^23 leaves the nearest integer of x / ln 2 in the low bits.
  const float shifted = kept * 1.44269504f + 12582912.0f;
  const float whole = shifted - 12582912.0f;
  const float r = (kept - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = (y * r) * r + r + 1.0f;
  std::int32_t bits, power;
  memcpy(&power, &shifted, sizeof power);
  memcpy(&bits, &y, sizeof bits);
  // bits of 1.5 * 2^23 are 0x4b400000, so that power - 0x4b400000 is the integer itself.
  bits += static_cast<std::int32_t>(static_cast<std::uint32_t>(power - 0x4b400000) << 23);
  memcpy(&y, &bits, sizeof y);
  return x > -87.0f ? y : 0.0f;
}

}  // namespace
}  // namespace rotomem
