// The names that callers give similarities.
#pragma once

#include <stdexcept>
#include <string>

#include "topk_readout/topk_readout.h"

namespace rotomem {

inline Similarity similarity_named(const std::string& name) {
  if (name == "dot") return Similarity::dot;
  if (name == "l2") return Similarity::l2;
  if (name == "anisotropic_l2") return Similarity::anisotropic_l2;
  throw std::invalid_argument("no similarity called " + name);
}

}  // namespace rotomem
