// AVX-512: 32 elements by 8 queries, 16 sums and 2 keys in 32 registers. Compiled with -mavx512f/bw/dq/vl -mfma.
#include "common/vector_avx512.h"
#include "topk_readout/topk_readout_tiles.h"
#include "topk_readout/topk_sieve_tiles.h"

namespace rotomem {

constexpr Loops kAvx512Loops = loops_of<Avx512x16, 2, 8>();
constexpr Sieve kAvx512Sieve = float_sieve<Avx512x16, 2, 8>();

}  // namespace rotomem
