// AVX-512: 32 elements by 8 queries, 16 sums and 2 keys in 32 registers. Compiled with -mavx512f/bw/dq/vl -mfma.
#include <immintrin.h>

#include "topk_readout/topk_readout_tiles.h"

namespace rotomem {
namespace {

struct Avx512 {
  using Reg = __m512;
  static constexpr int lanes = 16;
  static Reg load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Reg a) { _mm512_storeu_ps(to, a); }
  static Reg all(float a) { return _mm512_set1_ps(a); }
  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static std::uint32_t above(Reg a, Reg b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
};

}  // namespace

constexpr Loops kAvx512Loops = loops_of<Avx512, 2, 8>();

}  // namespace rotomem
