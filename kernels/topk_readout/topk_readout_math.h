// The arithmetic of reading, once for every processor. Everything here has internal linkage: files compiled for
// different instruction sets must not share a function, or the linker keeps the one that not every machine can run.
#pragma once

#include <string.h>

#include <cstdint>

#include "common/softmax.h"

namespace rotomem {
namespace {

// A weight of 1 in the integers in which usage is summed: 2^23 positions fit before they overflow.
constexpr double kUsageOne = 1099511627776.0;  // 2^40

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

}  // namespace
}  // namespace rotomem
