// Sixteen lanes; only for files compiled with -mavx512f. See vector_portable.h.
#pragma once

#include <immintrin.h>

namespace rotomem {
namespace {

struct Avx512x16 {
  using Reg = __m512;
  static constexpr int lanes = 16;
  static Reg load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Reg a) { _mm512_storeu_ps(to, a); }
  static Reg all(float a) { return _mm512_set1_ps(a); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
};

}  // namespace
}  // namespace rotomem
