// In the place of CUDA's own: what our kernels use of it, run by g++ on a CPU (see fibres.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <map>

#include "fibres.h"

#define __global__
#define __device__
#define __host__
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)
#define __shared__ static

using std::max;
using std::min;

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };

// Threads together.
inline void __syncthreads() { cuda_on_cpu::wait_for(cuda_on_cpu::block, "__syncthreads"); }
inline void whole_warp(unsigned mask) {
  if (mask != 0xffffffffu) throw std::runtime_error("only whole warps are emulated");
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  whole_warp(mask);
  cuda_on_cpu::wait_for(cuda_on_cpu::warp().barrier, "__syncwarp");
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  whole_warp(mask);
  return cuda_on_cpu::exchange("__shfl_sync", value)[source % 32];
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  whole_warp(mask);
  return cuda_on_cpu::exchange("__shfl_xor_sync", value)[cuda_on_cpu::lane() ^ static_cast<unsigned>(bits)];
}
inline unsigned __ballot_sync(unsigned mask, int holds) {
  whole_warp(mask);
  const int* all = cuda_on_cpu::exchange("__ballot_sync", holds);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < 32; ++lane) bits |= static_cast<unsigned>(all[lane] != 0) << lane;
  return bits;
}

// Numbers. Threads change only where they wait, so that plain additions are atomic.
template <class T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to = before + value;
  return before;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The runtime: one device, whose work is done before the call returns.
using cudaError_t = int;
using cudaStream_t = struct NoStream*;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1;
constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaDevAttrMultiProcessorCount = 16;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
};

namespace cuda_on_cpu {
inline std::map<const void*, std::size_t> granted;  // kernel -> shared memory that it asked for
}

inline const char* cudaGetErrorString(cudaError_t error) { return error ? "invalid argument" : "no error"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int attribute, int) {
  *value = cuda_on_cpu::multiprocessors;
  return attribute == cudaDevAttrMultiProcessorCount ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t bytes, cudaStream_t) {
  std::memset(to, byte, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void* kernel, int, int bytes) {
  if (bytes > 99 * 1024) return cudaErrorInvalidValue;  // what compute capability 8.6 has
  cuda_on_cpu::granted[kernel] = static_cast<std::size_t>(bytes);
  return cudaSuccess;
}

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... arguments) {
  const auto asked = cuda_on_cpu::granted.find(reinterpret_cast<const void*>(kernel));
  const std::size_t most = asked == cuda_on_cpu::granted.end() ? 48 * 1024 : asked->second;
  const dim3 grid = config->gridDim;
  if (config->dynamicSmemBytes > std::max<std::size_t>(most, 48 * 1024) || config->blockDim.x > 1024 ||
      config->blockDim.x == 0 || config->blockDim.y != 1 || config->blockDim.z != 1 || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidValue;
  gridDim = grid;
  blockDim = config->blockDim;
  cuda_on_cpu::shared_bytes = config->dynamicSmemBytes;
  cuda_on_cpu::body = [&] { kernel(arguments...); };
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        cuda_on_cpu::run_block();
      }
  return cudaSuccess;
}
