// The arithmetic of copying, once for every processor; internal linkage (see common/softmax.h for why).
#pragma once

#include "common/host_device.h"

namespace rotomem {
namespace {

ROTOMEM_HD inline float copied(float x) { return x; }

}  // namespace
}  // namespace rotomem
