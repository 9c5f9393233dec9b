// AVX2: 16 elements by 4 queries, 8 sums and 2 keys in 16 registers. Compiled with -mavx2 -mfma.
#include "common/vector_avx2.h"
#include "topk_readout/topk_readout_tiles.h"
#include "topk_readout/topk_sieve_tiles.h"

namespace rotomem {

constexpr Loops kAvx2Loops = loops_of<Avx2x8, 2, 4>();
constexpr Sieve kAvx2Sieve = float_sieve<Avx2x8, 2, 4>();

}  // namespace rotomem
