// In the place of kernels/common/ptx.cuh: the same functions, done by hand.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#define ROTOMEM_SHARED(name) auto* const name = static_cast<unsigned char*>(cuda_on_cpu::shared_memory())

namespace rotomem {
namespace {

inline float half_value(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  const float value = std::ldexp(static_cast<float>(magnitude < 0x400u ? magnitude : (magnitude & 0x3ffu) | 0x400u),
                                 magnitude < 0x400u ? -24 : static_cast<int>(magnitude >> 10) - 25);
  return sign ? -value : value;
}

inline std::uint16_t half_bits(float value) {
  const std::uint32_t bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7fffu);
  if (magnitude >= 65520.0f) return static_cast<std::uint16_t>(sign | 0x7c00u);
  // The step between halves of this size; halves count up by one bit from step to step, through subnormals too.
  const int exponent = std::max(magnitude > 0.0f ? std::ilogb(magnitude) : -14, -14);
  const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<std::uint16_t>(sign | ((static_cast<std::uint32_t>(exponent + 14) << 10) + steps));
}

struct Fragments {
  std::uint32_t a[4], b[2];
  float d[4];
};

struct Sums {
  float d[4];
};

inline float half_of(std::uint32_t pair, int upper) { return half_value(static_cast<std::uint16_t>(pair >> 16 * upper)); }

// One product of 16x16 by 16x8, from and to the layout that the PTX ISA gives for mma.m16n8k16.
inline void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  Fragments mine;
  std::memcpy(mine.a, a, sizeof a);
  std::memcpy(mine.b, b, sizeof b);
  std::memcpy(mine.d, d, sizeof d);
  const Sums sums = cuda_on_cpu::exchange_once<Sums>("mma", mine, [](const Fragments* shown, Sums* result) {
    float left[16][16], right[16][8], sum[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      for (int half = 0; half < 2; ++half) {
        left[g][2 * t + half] = half_of(shown[lane].a[0], half);
        left[g + 8][2 * t + half] = half_of(shown[lane].a[1], half);
        left[g][2 * t + 8 + half] = half_of(shown[lane].a[2], half);
        left[g + 8][2 * t + 8 + half] = half_of(shown[lane].a[3], half);
        right[2 * t + half][g] = half_of(shown[lane].b[0], half);
        right[2 * t + 8 + half][g] = half_of(shown[lane].b[1], half);
        sum[g][2 * t + half] = shown[lane].d[half];
        sum[g + 8][2 * t + half] = shown[lane].d[2 + half];
      }
    }
    for (int m = 0; m < 16; ++m)
      for (int k = 0; k < 16; ++k)
        for (int n = 0; n < 8; ++n) sum[m][n] += left[m][k] * right[k][n];
    for (int lane = 0; lane < 32; ++lane)
      for (int half = 0; half < 2; ++half) {
        result[lane].d[half] = sum[lane / 4][2 * (lane % 4) + half];
        result[lane].d[2 + half] = sum[lane / 4 + 8][2 * (lane % 4) + half];
      }
  });
  std::memcpy(d, sums.d, sizeof d);
}

// Copies arrive as late as they may: when their group is waited for.
inline void copy_async16(void* shared, const void* global) {
  if (reinterpret_cast<std::uintptr_t>(shared) % 16 || reinterpret_cast<std::uintptr_t>(global) % 16)
    throw std::runtime_error("copy_async16 of something not aligned to 16 bytes");
  cuda_on_cpu::current->copies.back().push_back({shared, global, 16});
}

inline void copies_commit() { cuda_on_cpu::current->copies.emplace_back(); }

template <int Pending>
void copies_wait() {
  auto& groups = cuda_on_cpu::current->copies;
  while (groups.size() > Pending + 1) {
    for (const cuda_on_cpu::Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
    groups.erase(groups.begin());
  }
}

}  // namespace
}  // namespace rotomem
