// AVX-512: 24 sums of scores (8 keys by 48 queries), 24 of values (12 queries by 32 channels) in 32 registers.
#include "attention/attention_tiles.h"
#include "common/vector_avx512.h"

namespace rotomem {

constexpr AttentionLoops kAvx512Attention = attention_loops_of<Avx512x16, 3, 8, 12, 2>();

}  // namespace rotomem
