// Numbers as they are stored and as they are computed with, and sums over a warp.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/numbers.h"
#include "common/ptx.cuh"

namespace rotomem {
namespace {

constexpr unsigned kAll = 0xffffffffu;  // every lane of a warp

struct Float32 {
  using Type = float;
  __device__ static float value(float stored) { return stored; }
};
struct Float16 {
  using Type = std::uint16_t;
  __device__ static float value(std::uint16_t stored) { return half_value(stored); }
};
struct Bfloat16 {
  using Type = std::uint16_t;
  __device__ static float value(std::uint16_t stored) { return __uint_as_float(static_cast<unsigned>(stored) << 16); }
};

// Calls `with(Float32())` or its like, by the type of numbers.
template <class With>
void for_stored(Number type, With&& with) {
  switch (type) {
    case Number::float16: return with(Float16());
    case Number::bfloat16: return with(Bfloat16());
    default: return with(Float32());
  }
}

// The sum of all lanes' numbers, for every lane; always added in the same order.
__device__ inline float warp_sum(float one) {
  for (int bits = 16; bits > 0; bits /= 2) one += __shfl_xor_sync(kAll, one, bits);
  return one;
}

}  // namespace
}  // namespace rotomem
