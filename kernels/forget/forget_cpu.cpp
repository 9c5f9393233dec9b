#include "forget/forget.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/check.h"

namespace rotomem {

std::vector<std::int64_t> keep_most_used(Span<const float, 1> usage, std::int64_t keep) {
  check(keep >= 0, "keep is negative");
  const std::int64_t elements = usage.size[0];
  std::vector<std::int64_t> stay;
  if (keep >= elements) {
    stay.resize(static_cast<std::size_t>(elements));
    std::iota(stay.begin(), stay.end(), 0);
    return stay;
  }
  std::vector<float> used(static_cast<std::size_t>(elements));
  for (std::int64_t n = 0; n < elements; ++n)
    used[static_cast<std::size_t>(n)] = std::isnan(usage(n)) ? -INFINITY : usage(n);
  std::vector<float> sorted = used;
  const auto threshold = sorted.begin() + (elements - keep - 1);
  std::nth_element(sorted.begin(), threshold, sorted.end());
  for (std::int64_t n = 0; n < elements; ++n)
    if (used[static_cast<std::size_t>(n)] > *threshold) stay.push_back(n);
  if (!stay.empty() || keep == 0) return stay;

  std::vector<std::int64_t> order(static_cast<std::size_t>(elements));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return used[static_cast<std::size_t>(a)] > used[static_cast<std::size_t>(b)];
  });
  stay.assign(order.begin(), order.begin() + keep);
  std::sort(stay.begin(), stay.end());
  return stay;
}

}  // namespace rotomem
