// ROTOMEM_HD marks arithmetic that CPU and CUDA code share.
#pragma once

#ifdef __CUDACC__
#define ROTOMEM_HD __host__ __device__
#else
#define ROTOMEM_HD
#endif
