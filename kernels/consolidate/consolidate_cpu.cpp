#include "consolidate/consolidate.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "topk_readout/topk_readout.h"

namespace rotomem {

std::vector<std::int64_t> most_used(Span<const float, 1> usage, Span<const unsigned char, 1> valid,
                                    std::int64_t count) {
  std::vector<std::int64_t> order;
  for (std::int64_t n = 0; n < usage.size[0]; ++n)
    if (!valid || valid(n)) order.push_back(n);
  count = std::min<std::int64_t>(std::max<std::int64_t>(count, 0), static_cast<std::int64_t>(order.size()));
  const auto before = [&](std::int64_t a, std::int64_t b) {
    const float ua = std::isnan(usage(a)) ? -INFINITY : usage(a), ub = std::isnan(usage(b)) ? -INFINITY : usage(b);
    return ua != ub ? ua > ub : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + count, order.end(), before);
  order.resize(static_cast<std::size_t>(count));
  return order;
}

void consolidate(const Consolidate& job, Instructions instructions, int threads) {
  const std::int64_t channels = job.key.size[0], elements = job.key.size[1], made = job.index.size[0];
  check_size("shrinkage N", job.shrinkage.size[0], elements);
  check_size("selection CK", job.selection.size[0], channels);
  check_size("selection N", job.selection.size[1], elements);
  check_size("prototype_key CK", job.prototype_key.size[0], channels);
  check_size("prototype_key P", job.prototype_key.size[1], made);
  check_size("prototype_shrinkage P", job.prototype_shrinkage.size[0], made);

  std::vector<float> selection(static_cast<std::size_t>(channels * made));
  for (std::int64_t p = 0; p < made; ++p) {
    const std::int64_t n = job.index(p);
    check(n >= 0 && n < elements, "index of a prototype is outside the candidates");
    for (std::int64_t c = 0; c < channels; ++c) {
      job.prototype_key(c, p) = job.key(c, n);
      selection[static_cast<std::size_t>(c * made + p)] = job.selection(c, n);
    }
  }

  TopkReadout read;
  read.top_k = 0;
  read.key = job.key;
  read.query_key = {job.prototype_key.data, job.prototype_key.size, job.prototype_key.stride};
  read.shrinkage = job.shrinkage;
  read.selection = {selection.data(), {channels, made}, {made, 1}};
  read.valid = job.valid;
  read.value = job.value;
  read.readout = job.prototype_value;
  topk_readout(read, instructions, threads);
  // Shrinkage is mixed like one more object with a single channel. Its scores are computed anew: for a hundred
  // prototypes that is a thousandth of a frame's work.
  read.value = {job.shrinkage.data, {1, elements, 1}, {0, job.shrinkage.stride[0], 1}};
  read.readout = {job.prototype_shrinkage.data, {1, 1, made}, {0, 0, job.prototype_shrinkage.stride[0]}};
  topk_readout(read, instructions, threads);
}

}  // namespace rotomem
