#include "common/device.h"

#include <cuda_runtime.h>

namespace rotomem {
namespace {

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

}  // namespace

CudaStatus cuda_status() {
  CudaStatus status;
  int driver = 0, runtime = 0, count = 0;
  cudaDriverGetVersion(&driver);  // 0 where there is none
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted != cudaSuccess) count = 0;
  cudaGetLastError();  // what was found out here is no failure of the next call
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    status.devices.push_back({properties.name, properties.major, properties.minor});
  }
  for (const CudaDevice& device : status.devices)
    if (device.major < kOldestMajor)
      status.trouble = device.name + " has compute capability " + std::to_string(device.major) + "." +
                       std::to_string(device.minor) + ", the kernels need 8.0 or more";
  if (driver == 0)
    status.trouble = "there is no NVIDIA driver";
  else if (counted == cudaErrorInsufficientDriver)
    status.trouble = "the NVIDIA driver is for CUDA " + version(driver) + ", the kernels need " + version(runtime);
  else if (counted != cudaSuccess && counted != cudaErrorNoDevice)
    status.trouble = std::string("the NVIDIA driver says: ") + cudaGetErrorString(counted);
  else if (status.devices.empty())
    status.trouble = "the NVIDIA driver shows no device";
  return status;
}

}  // namespace rotomem
