// CUDA devices, in words that need no CUDA header: where work is queued, and why there may be nowhere to queue it.
#pragma once

#include <string>
#include <vector>

namespace rotomem {

// Where a `_cuda` kernel queues its work. It returns without waiting; what it was given must live until the stream
// has got there.
struct Queue {
  int device = 0;
  void* stream = nullptr;  // a cudaStream_t of that device; nullptr is its default stream
};

struct CudaDevice {
  std::string name;
  int major = 0, minor = 0;  // compute capability
};

struct CudaStatus {
  std::vector<CudaDevice> devices;  // all that the driver shows, in its order
  std::string trouble;              // why no device can be used; empty where all can
};

// The oldest devices the kernels are written for: bfloat16 matrix products and asynchronous copies.
constexpr int kOldestMajor = 8;

// What there is on this machine. Never throws; without a driver it loads none.
CudaStatus cuda_status();

}  // namespace rotomem
