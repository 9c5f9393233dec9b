// Four lanes that the compiler maps on whatever the baseline has (SSE2, NEON). The vector types of all instruction
// sets have the same members; each has internal linkage, for the reason given in topk_readout/topk_readout_math.h.
#pragma once

#include <string.h>

namespace rotomem {
namespace {

struct Portable4 {
  typedef float Reg __attribute__((vector_size(16)));
  static constexpr int lanes = 4;
  static Reg load(const float* from) {
    Reg a;
    memcpy(&a, from, sizeof a);
    return a;
  }
  static void store(float* to, Reg a) { memcpy(to, &a, sizeof a); }
  static Reg all(float a) { return Reg{a, a, a, a}; }
  static Reg fma(Reg a, Reg b, Reg c) { return a * b + c; }
};

}  // namespace
}  // namespace rotomem
