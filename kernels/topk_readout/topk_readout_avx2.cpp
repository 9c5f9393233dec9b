// AVX2: 16 elements by 4 queries, 8 sums and 2 keys in 16 registers. Compiled with -mavx2 -mfma.
#include <immintrin.h>

#include "topk_readout/topk_readout_tiles.h"

namespace rotomem {
namespace {

struct Avx2 {
  using Reg = __m256;
  static constexpr int lanes = 8;
  static Reg load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Reg a) { _mm256_storeu_ps(to, a); }
  static Reg all(float a) { return _mm256_set1_ps(a); }
  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  static std::uint32_t above(Reg a, Reg b) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
  }
};

}  // namespace

constexpr Loops kAvx2Loops = loops_of<Avx2, 2, 4>();

}  // namespace rotomem
