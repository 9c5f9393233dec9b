// AVX-512: 16 queries by 2 rows; 10 sums of scores, or 16 of values, in 32 registers. Compiled with -mavx512f -mfma.
#include "common/vector_avx512.h"
#include "local_attention/local_attention_tiles.h"

namespace rotomem {

constexpr LocalLoops kAvx512Local{Avx512x16::lanes, read_block<Avx512x16, 8>};

}  // namespace rotomem
