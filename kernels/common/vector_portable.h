// Four lanes that the compiler maps on whatever the baseline has (SSE2, NEON). The vector types of all instruction
// sets have the same members: fma is a*b + c, fnma c - a*b, not_below is true for NaN, max is b where one is NaN, and
// add_exponent is a * 2^n for a `power` of 1.5 * 2^23 + n, whose low bits are n. store_some stores the lanes whose bits
// are set, one beside the other; what follows them, up to a whole register, may be overwritten. Each has internal
// linkage, for the reason given in common/softmax.h.
#pragma once

#include <string.h>

#include <cstdint>

namespace rotomem {
namespace {

struct Portable4 {
  typedef float Reg __attribute__((vector_size(16)));
  typedef std::uint32_t Bits __attribute__((vector_size(16)));
  static constexpr int lanes = 4;
  static Reg load(const float* from) {
    Reg a;
    memcpy(&a, from, sizeof a);
    return a;
  }
  static void store(float* to, Reg a) { memcpy(to, &a, sizeof a); }
  static void store_some(float* to, Reg a, std::uint32_t bits) {
    float each[lanes];
    store(each, a);
    for (; bits; bits &= bits - 1) memcpy(to++, each + __builtin_ctz(bits), sizeof *to);
  }
  static Reg all(float a) { return Reg{a, a, a, a}; }
  static Reg zero() { return Reg{0.0f, 0.0f, 0.0f, 0.0f}; }
  static Reg fma(Reg a, Reg b, Reg c) { return a * b + c; }
  static Reg fnma(Reg a, Reg b, Reg c) { return c - a * b; }
  static Reg add(Reg a, Reg b) { return a + b; }
  static Reg sub(Reg a, Reg b) { return a - b; }
  static Reg mul(Reg a, Reg b) { return a * b; }
  static Reg max(Reg a, Reg b) { return a > b ? a : b; }
  static Reg add_exponent(Reg a, Reg power) {
    return reinterpret_cast<Reg>(reinterpret_cast<Bits>(a) + (reinterpret_cast<Bits>(power) << 23));
  }
  static float sum(Reg a) { return (a[0] + a[1]) + (a[2] + a[3]); }
  static std::uint32_t above(Reg a, Reg b) {
    std::uint32_t bits = 0;
    for (int i = 0; i < lanes; ++i) bits |= static_cast<std::uint32_t>(a[i] > b[i]) << i;
    return bits;
  }
  static std::uint32_t not_below(Reg a, Reg b) {
    std::uint32_t bits = 0;
    for (int i = 0; i < lanes; ++i) bits |= static_cast<std::uint32_t>(!(a[i] < b[i])) << i;
    return bits;
  }
};

}  // namespace
}  // namespace rotomem
