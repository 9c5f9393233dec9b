// Kernels with mistakes, and a product: what the emulation has to notice, and to get right.
#include "mistakes.h"

#include <cuda_runtime.h>

#include "common/launch.cuh"
#include "common/ptx.cuh"

namespace rotomem {
namespace {

// Every thread reads what its neighbour in the next warp wrote.
__global__ void neighbours(float* to, bool with_barrier) {
  ROTOMEM_SHARED(shared);
  auto* numbers = reinterpret_cast<float*>(shared);
  numbers[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (with_barrier) __syncthreads();
  to[threadIdx.x] = numbers[(threadIdx.x + 32) % blockDim.x];
}

__global__ void waits_for_nobody() {
  if (threadIdx.x < 32) __syncthreads();
}

__global__ void lanes_disagree() {
  if (threadIdx.x % 2)
    __syncwarp();
  else
    __ballot_sync(0xffffffffu, 1);
}

__global__ void writes_behind() {
  ROTOMEM_SHARED(shared);
  shared[64] = 1;
}

// Copies 16 bytes a thread through shared memory.
__global__ void through_shared(const float4* from, float4* to, bool with_wait) {
  ROTOMEM_SHARED(shared);
  auto* tile = reinterpret_cast<float4*>(shared);
  copy_async16(tile + threadIdx.x, from + threadIdx.x);
  copies_commit();
  if (with_wait) copies_wait<0>();
  to[threadIdx.x] = tile[threadIdx.x];
  copies_wait<0>();
}

__global__ void product(const std::uint32_t* a, const std::uint32_t* b, float* d) {
  const unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
  // a is [16, 16], b [8, 16] (its columns), two numbers to an element.
  const std::uint32_t left[4] = {a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + t + 4], a[(g + 8) * 8 + t + 4]};
  const std::uint32_t right[2] = {b[g * 8 + t], b[g * 8 + t + 4]};
  float sum[4] = {d[g * 8 + 2 * t], d[g * 8 + 2 * t + 1], d[(g + 8) * 8 + 2 * t], d[(g + 8) * 8 + 2 * t + 1]};
  mma_f16(sum, left, right);
  for (unsigned i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

__global__ void to_halves(const float* from, std::uint16_t* to) { to[threadIdx.x] = half_bits(from[threadIdx.x]); }

__global__ void halves(const std::uint16_t* from, float* to) { to[threadIdx.x] = half_value(from[threadIdx.x]); }

}  // namespace

void run_mistake(const std::string& name, const void* from, const void* other, void* to) {
  const Queue queue;
  auto* numbers = static_cast<float*>(to);
  const auto* words = static_cast<const std::uint32_t*>(from);
  if (name == "neighbours") launch("it", neighbours, 1, 64, 256, queue, numbers, true);
  if (name == "no barrier") launch("it", neighbours, 1, 64, 256, queue, numbers, false);
  if (name == "deadlock") launch("it", waits_for_nobody, 1, 64, 0, queue);
  if (name == "lanes disagree") launch("it", lanes_disagree, 1, 32, 0, queue);
  if (name == "writes behind") launch("it", writes_behind, 1, 32, 64, queue);
  if (name == "too much") launch("it", writes_behind, 1, 32, kSharedMost + 1, queue);
  if (name == "copies" || name == "no wait")
    launch("it", through_shared, 1, 32, 512, queue, static_cast<const float4*>(from), static_cast<float4*>(to),
           name == "copies");
  if (name == "product") launch("it", product, 1, 32, 0, queue, words, static_cast<const std::uint32_t*>(other), numbers);
  if (name == "to halves")
    launch("it", to_halves, 1, 1024, 0, queue, static_cast<const float*>(from), static_cast<std::uint16_t*>(to));
  if (name == "halves") launch("it", halves, 1, 1024, 0, queue, static_cast<const std::uint16_t*>(from), numbers);
}

}  // namespace rotomem
