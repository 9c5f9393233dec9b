// The instructions that CUDA C++ has no portable word for. Kernels reach them only through this file: the emulation
// under tests/kernels/cuda_on_cpu puts its own in its place. All are there from compute capability 8.0 on.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// A block's dynamic shared memory as bytes aligned to 16.
#define ROTOMEM_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

namespace rotomem {
namespace {

// d += a b for a warp: a is 16x16 row by row, b 16x8 column by column, both float16; d 16x8 in float32. With
// g = lane / 4 and t = lane % 4, a lane holds, two numbers to a register and the lower index in the lower half,
//   a[0] = a(g, 2t..)   a[1] = a(g + 8, 2t..)   a[2] = a(g, 2t + 8..)   a[3] = a(g + 8, 2t + 8..)
//   b[0] = b(2t.., g)   b[1] = b(2t + 8.., g)
//   d[0], d[1] = d(g, 2t..)   d[2], d[3] = d(g + 8, 2t..)
// (PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type").
__device__ inline void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Begins to copy 16 bytes to shared memory, both ends aligned to 16. They are there for this thread after
// copies_wait, for the others after the barrier that follows it.
__device__ inline void copy_async16(void* shared, const void* global) {
  const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}

// Ends a group of copies; waits until at most `Pending` of this thread's groups are under way.
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int Pending>
__device__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// A half by its bits, and the bits of the half nearest to a number (even ones where two are as near).
__device__ inline float half_value(std::uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ inline std::uint16_t half_bits(float value) {
  std::uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

}  // namespace
}  // namespace rotomem
