#include "common/device.h"

#ifndef ROTOMEM_CUDA_BUILD

namespace rotomem {

CudaStatus cuda_status() { return {{}, "the kernels were built without CUDA"}; }

}  // namespace rotomem

#endif
