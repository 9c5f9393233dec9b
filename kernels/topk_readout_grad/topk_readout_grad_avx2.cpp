// AVX2: eight lanes. Compiled with -mavx2 -mfma.
#include "common/vector_avx2.h"
#include "topk_readout_grad/topk_readout_grad_tiles.h"

namespace rotomem {

constexpr GradLoops kAvx2Grad = grad_loops_of<Avx2x8>();

}  // namespace rotomem
