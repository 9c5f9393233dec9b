// AVX2: 8 queries by 2 rows; 10 sums of scores, or 8 of values, in 16 registers. Compiled with -mavx2 -mfma.
#include "common/vector_avx2.h"
#include "local_attention/local_attention_tiles.h"

namespace rotomem {

constexpr LocalLoops kAvx2Local{Avx2x8::lanes, read_block<Avx2x8, 4>};

}  // namespace rotomem
