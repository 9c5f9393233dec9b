// One thread a number: the smallest complete launch, there to be read.
#include <cuda_runtime.h>

#include "common/check.h"
#include "common/launch.cuh"
#include "copy/copy.h"
#include "copy/copy_math.h"

namespace rotomem {
namespace {

constexpr int kThreads = 256;

__global__ void copy_kernel(const float* from, std::int64_t stride, float* to, std::int64_t count) {
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (n < count) to[n] = copied(from[n * stride]);
}

}  // namespace

void copy_cuda(Span<const float, 1> from, Span<float, 1> to, const Queue& queue) {
  const std::int64_t count = from.size[0];
  check_size("to", to.size[0], count);
  check(count <= 1 || to.stride[0] == 1, "to is not contiguous");
  const OnDevice current(queue);
  launch("copy", copy_kernel, blocks_of(count, kThreads), kThreads, 0, queue, from.data, from.stride[0], to.data,
         count);
}

}  // namespace rotomem
