// The portable loops, and the choice among all.
#include "common/vector_portable.h"
#include "topk_readout/topk_readout_tiles.h"
#include "topk_readout/topk_sieve_tiles.h"

namespace rotomem {

constexpr Loops kPortableLoops = loops_of<Portable4, 2, 4>();
constexpr Sieve kPortableSieve = float_sieve<Portable4, 2, 4>();

const Loops& loops_for(Instructions instructions) {
#ifdef ROTOMEM_X86
  if (instructions >= Instructions::avx512) return kAvx512Loops;
  if (instructions == Instructions::avx2) return kAvx2Loops;
#endif
  (void)instructions;
  return kPortableLoops;
}

const Sieve& sieve_for(Instructions instructions) {
#ifdef ROTOMEM_X86
  switch (instructions) {
    case Instructions::amx: return kAmxSieve;
    case Instructions::avx512_bf16: return kAvx512Bf16Sieve;
    case Instructions::avx512: return kAvx512Sieve;
    case Instructions::avx2: return kAvx2Sieve;
    default: break;
  }
#endif
  (void)instructions;
  return kPortableSieve;
}

}  // namespace rotomem
