// AVX-512 BF16: 32 elements by 8 queries at a time, two channels an instruction.
// Compiled with -mavx512bf16 and what topk_readout_avx512.cpp is compiled with.
#include "common/vector_avx512.h"
#include "topk_readout/topk_sieve_tiles.h"

namespace rotomem {
namespace {

constexpr int kGroup = 8;

void sums(const Panel& panel, const Asked& asked, const Shape& shape, float* tile) {
  const int features = shape.features;
  const auto* key = static_cast<const std::uint16_t*>(panel.feature);
  const auto* query = static_cast<const std::uint16_t*>(asked.feature);
  __m512 sum[kGroup][2];
  for (int g = 0; g < kGroup; ++g)
    for (int v = 0; v < 2; ++v) sum[g][v] = _mm512_loadu_ps(panel.bias + v * 16);
  for (int f = 0; f < features; f += 32) {
    for (int pair = 0; pair < 16; ++pair) {
      const __m512bh low = reinterpret_cast<__m512bh>(_mm512_loadu_si512(key + pair * 32));
      const __m512bh high = reinterpret_cast<__m512bh>(_mm512_loadu_si512(key + 512 + pair * 32));
#pragma GCC unroll 8
      for (int g = 0; g < kGroup; ++g) {
        float two;  // not an integer: that would take a detour by a scalar register
        memcpy(&two, query + g * features + f + pair * 2, sizeof two);
        const __m512bh q = reinterpret_cast<__m512bh>(_mm512_set1_ps(two));
        sum[g][0] = _mm512_dpbf16_ps(sum[g][0], q, low);
        sum[g][1] = _mm512_dpbf16_ps(sum[g][1], q, high);
      }
    }
    key += 1024;
  }
#pragma GCC unroll 8
  for (int g = 0; g < kGroup; ++g)
    for (int v = 0; v < 2; ++v) _mm512_storeu_ps(tile + g * 32 + v * 16, sum[g][v]);
}

}  // namespace

constexpr Sieve kAvx512Bf16Sieve = {32, kGroup, true, nothing, nothing,
                             scan<Avx512x16, 2, kGroup, sums>, probe<Avx512x16, 2, kGroup, sums>,
                             pack_panel<32, true>, keep<Avx512x16>, kth<Avx512x16>, score<Avx512x16>};

}  // namespace rotomem
