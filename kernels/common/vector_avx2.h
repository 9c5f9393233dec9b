// Eight lanes; only for files compiled with -mavx2 -mfma. See vector_portable.h.
#pragma once

#include <immintrin.h>

namespace rotomem {
namespace {

struct Avx2x8 {
  using Reg = __m256;
  static constexpr int lanes = 8;
  static Reg load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Reg a) { _mm256_storeu_ps(to, a); }
  static Reg all(float a) { return _mm256_set1_ps(a); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
};

}  // namespace
}  // namespace rotomem
