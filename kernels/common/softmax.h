// What softmaxes share on every processor. Everything here has internal linkage: files compiled for different instruction
// sets must not share a function, or the linker keeps the one that not every machine can run.
#pragma once

#include <string.h>

#include <cstdint>
#include <limits>

#include "common/host_device.h"

namespace rotomem {
namespace {

constexpr float kNoMatch = -std::numeric_limits<float>::infinity();

ROTOMEM_HD inline bool is_match(float similarity) {
  return similarity > kNoMatch && similarity < -kNoMatch;  // false for NaN
}

// e^x for |x| <= 87, within 3 units in the last place. No branches, so that loops vectorise.
ROTOMEM_HD inline float exponential(float x) {
  // Adding 1.5 * 2^23 leaves the nearest integer of x / ln 2 in the low bits.
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float whole = shifted - 12582912.0f;
  const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
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
  return y;
}

// e^x for x <= 0, within 2 units in the last place; 0 below -87 and for NaN.
ROTOMEM_HD inline float exp_nonpositive(float x) {
  const float y = exponential(x > -87.0f ? x : -87.0f);
  return x > -87.0f ? y : 0.0f;
}

}  // namespace
}  // namespace rotomem
