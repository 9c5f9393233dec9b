// Sixteen lanes; only for files compiled with -mavx512f. See vector_portable.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace rotomem {
namespace {

struct Avx512x16 {
  using Reg = __m512;
  static constexpr int lanes = 16;
  static Reg load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Reg a) { _mm512_storeu_ps(to, a); }
  static void store_some(float* to, Reg a, std::uint32_t bits) {
    _mm512_storeu_ps(to, _mm512_maskz_compress_ps(static_cast<__mmask16>(bits), a));
  }
  static Reg all(float a) { return _mm512_set1_ps(a); }
  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg fnma(Reg a, Reg b, Reg c) { return _mm512_fnmadd_ps(a, b, c); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg max(Reg a, Reg b) { return _mm512_maskz_max_ps(0xffff, a, b); }  // gcc 12 warns of its own _mm512_max_ps
  static Reg add_exponent(Reg a, Reg power) {
    const __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(power), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), bits));
  }
  static float sum(Reg a) {  // by memory: gcc 12 warns of its own _mm512_reduce_add_ps
    alignas(64) float lane[lanes];
    _mm512_store_ps(lane, a);
    const __m256 eight = _mm256_add_ps(_mm256_load_ps(lane), _mm256_load_ps(lane + 8));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static std::uint32_t above(Reg a, Reg b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static std::uint32_t not_below(Reg a, Reg b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
};

}  // namespace
}  // namespace rotomem
