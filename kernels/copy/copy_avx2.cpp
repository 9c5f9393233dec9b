// AVX2: eight at a time. Compiled with -mavx2 -mfma; called only where the processor has them.
#include <immintrin.h>

#include <cstdint>

#include "copy/copy_math.h"

namespace rotomem {

void copy_avx2(const float* from, float* to, std::int64_t count);

void copy_avx2(const float* from, float* to, std::int64_t count) {
  std::int64_t n = 0;
  for (; n + 8 <= count; n += 8) _mm256_storeu_ps(to + n, _mm256_loadu_ps(from + n));
  for (; n < count; ++n) to[n] = copied(from[n]);
}

}  // namespace rotomem
