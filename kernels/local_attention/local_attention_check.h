// What every backend of local_attention refuses, and the sizes that follow from its arguments.
#pragma once

#include <cmath>

#include "common/check.h"
#include "local_attention/local_attention.h"

namespace rotomem {
namespace {

struct LocalShape {
  std::int64_t heads, depth, side;
};

inline LocalShape check_local_attention(const LocalAttention& read) {
  const std::int64_t heads = read.relative_key.size[0], places = read.relative_key.size[1];
  const std::int64_t depth = read.relative_key.size[2];
  const std::int64_t side = std::lround(std::sqrt(static_cast<double>(places)));
  check(heads > 0 && depth > 0 && places > 0, "relative_key is empty");
  check(side * side == places && side % 2 == 1, "relative_key places are not the square of an odd number");
  check_size("query C", read.query.size[1], heads * depth);
  check(read.key.size == read.query.size, "key has another shape than query");
  check(read.value.size == read.query.size, "value has another shape than query");
  check(read.readout.size == read.query.size, "readout has another shape than query");
  check_size("relative_bias heads", read.relative_bias.size[0], heads);
  check_size("relative_bias places", read.relative_bias.size[1], places);
  check_size("relative_value heads", read.relative_value.size[0], heads);
  check_size("relative_value D", read.relative_value.size[1], depth);
  check_size("relative_value places", read.relative_value.size[2], places);
  return {heads, depth, side};
}

}  // namespace
}  // namespace rotomem
