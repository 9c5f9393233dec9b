// Starting kernels: on the caller's device and stream, every call checked, nothing waited for.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/device.h"

namespace rotomem {
namespace {

// Throws std::runtime_error unless a CUDA call succeeded; `what` says what was being done.
inline void cuda_check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Makes a queue's device the current one until the end of the scope.
class OnDevice {
 public:
  explicit OnDevice(const Queue& queue) {
    cuda_check(cudaGetDevice(&before_), "asking for the current device");
    cuda_check(cudaSetDevice(queue.device), "choosing a device");
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

// Blocks that `count` things need, `each` of them in one; a grid has no room for more than 2^31 - 1 blocks in x.
inline unsigned blocks_of(std::int64_t count, std::int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

// What every device from compute capability 8.0 on gives a block without being asked, and the most that all of them
// can give one (8.6, 8.9 and 12.x have the least).
constexpr std::size_t kSharedUnasked = 48 * 1024, kSharedMost = 99 * 1024;

// Queues kernel(arguments...) with `shared` bytes of dynamic shared memory. A grid without blocks is no work.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, unsigned threads, std::size_t shared,
            const Queue& queue, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared > kSharedUnasked)
    cuda_check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared)),
               name);
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(queue.stream);
  cuda_check(cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...), name);
}

}  // namespace
}  // namespace rotomem
