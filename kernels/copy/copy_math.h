// The arithmetic of copying, once for every processor; internal linkage (see topk_readout_math.h for why).
#pragma once

namespace rotomem {
namespace {

inline float copied(float x) { return x; }

}  // namespace
}  // namespace rotomem
