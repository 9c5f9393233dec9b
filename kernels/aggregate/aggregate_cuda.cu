// One thread a position: every number is read once and written once.
#include <cuda_runtime.h>

#include "aggregate/aggregate.h"
#include "aggregate/aggregate_math.h"
#include "common/launch.cuh"

namespace rotomem {
namespace {

constexpr int kThreads = 256;

struct Job {
  const float* logits;
  float* aggregated;
  std::int64_t from_batch, from_row, to_batch, to_row, objects, positions;
};

__global__ void aggregate_kernel(Job job) {
  const std::int64_t p = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (p >= job.positions) return;
  const float* from = job.logits + blockIdx.y * job.from_batch + p;
  float* to = job.aggregated + blockIdx.y * job.to_batch + p;
  float odds = 0.0f;
  for (std::int64_t o = 0; o < job.objects; ++o) {
    const float logit = from[o * job.from_row];
    odds = against(odds, logit);
    to[(o + 1) * job.to_row] = held(logit, -kLargestLogit, kLargestLogit);
  }
  to[0] = background_logit(odds);
}

}  // namespace

void aggregate_cuda(Span<const float, 3> logits, Span<float, 3> aggregated, const Queue& queue) {
  check_aggregate(logits, aggregated);
  check(logits.size[0] <= 65535, "more than 65535 batches");
  const Job job{logits.data,          aggregated.data,      logits.stride[0], logits.stride[1],
                aggregated.stride[0], aggregated.stride[1], logits.size[1],   logits.size[2]};
  const OnDevice current(queue);
  launch("aggregate", aggregate_kernel, dim3(blocks_of(logits.size[2], kThreads), static_cast<unsigned>(logits.size[0])),
         kThreads, 0, queue, job);
}

}  // namespace rotomem
