// AVX2: 12 sums of scores (6 keys by 16 queries), 8 of values (4 queries by 16 channels). Compiled with -mavx2 -mfma.
#include "attention/attention_tiles.h"
#include "common/vector_avx2.h"

namespace rotomem {

constexpr AttentionLoops kAvx2Attention = attention_loops_of<Avx2x8, 2, 6, 4, 2>();

}  // namespace rotomem
