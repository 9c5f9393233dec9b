#include "topk_readout/packed_keys.h"

#include <string.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/check.h"
#include "common/parallel.h"
#include "topk_readout/topk_readout_math.h"
#include "topk_readout/topk_sieve.h"
#include "topk_readout/topk_sieve_bounds.h"

namespace rotomem {
namespace {

std::int64_t features_of(std::int64_t channels, bool selected, bool bf16) {
  return bf16 ? (channels * (selected ? 2 : 1) + 31) / 32 * 32 : channels;
}

}  // namespace

PackedKeys::PackedKeys(std::int64_t channels, Similarity similarity, bool selected, Instructions instructions)
    : channels(channels),
      similarity(similarity),
      selected(selected),
      instructions(instructions),
      sieve_(sieve_for(instructions)),
      features_(features_of(channels, selected, sieve_.bf16)),
      panel_bytes_(features_ * sieve_.width * (sieve_.bf16 ? 2 : 4)) {
  check(channels > 0, "keys have no channels");
  check(!selected || similarity == Similarity::anisotropic_l2, "a selection belongs to anisotropic_l2");
}

std::int64_t PackedKeys::bytes() const {
  return room_ * (panel_bytes_ + sieve_.width * 4 * static_cast<std::int64_t>(sizeof(float))) +
         static_cast<std::int64_t>((scale_.capacity() + origin_.capacity()) * sizeof(float));
}

void PackedKeys::cut(std::int64_t first) { elements_ = std::min(elements_, std::max<std::int64_t>(first, 0)); }

// Growing by half, so that copies stay rare.
void PackedKeys::reserve(std::int64_t panels) {
  if (panels <= room_) return;
  const std::int64_t room = std::max(panels, room_ + room_ / 2), used = (elements_ + sieve_.width - 1) / sieve_.width;
  Aligned<char> grown = aligned<char>(room * panel_bytes_);
  if (used) memcpy(grown.get(), feature_.get(), static_cast<std::size_t>(used * panel_bytes_));
  feature_ = std::move(grown);
  for (std::vector<float>* column : {&inverse_, &reach_, &bound_, &bias_})
    column->resize(static_cast<std::size_t>(room * sieve_.width));
  room_ = room;
}

// Where most of the memory lies: per channel the median over up to 65 elements; a mean would follow a single outlier
// away from all others. Then lambda: products of norms are least where |lambda k^2| is to |k| as |e / lambda| to
// |2 e q|, for k about q. Both only sharpen the bounds.
void PackedKeys::settle(Span<const float, 2> key) {
  origin_.assign(static_cast<std::size_t>(channels), 0.0f);
  lambda_ = 1.0f;
  if (similarity == Similarity::dot) return;
  const std::int64_t samples = std::min<std::int64_t>(key.size[1], 65);
  std::vector<float> seen;
  double square = 0.0;
  for (std::int64_t c = 0; c < channels; ++c) {
    seen.clear();
    for (std::int64_t s = 0; s < samples; ++s) {
      const float k = key(c, s * key.size[1] / samples);
      if (is_match(k)) seen.push_back(k);
    }
    if (seen.empty()) continue;
    const auto middle = seen.begin() + static_cast<std::ptrdiff_t>(seen.size() / 2);
    std::nth_element(seen.begin(), middle, seen.end());
    const float origin = origin_[static_cast<std::size_t>(c)] = *middle;
    for (float& k : seen) k = std::fabs(k - origin);
    std::nth_element(seen.begin(), middle, seen.end());
    square += static_cast<double>(*middle) * *middle;
  }
  const double length = selected ? std::sqrt(2.0 * square / static_cast<double>(channels)) : std::sqrt(square);
  if (length > 1e-9 && length < 1e9) lambda_ = std::exp2(static_cast<float>(std::lround(-std::log2(length))));
}

void PackedKeys::extend(Span<const float, 2> key, Span<const float, 1> shrinkage, int threads) {
  const std::int64_t all = key.size[1], width = sieve_.width;
  check_size("key CK", key.size[0], channels);
  check(all >= elements_, "more keys are packed than the memory holds; cut them first");
  check(all < (std::int64_t{1} << 31), "more than 2^31 memory elements");
  if (shrinkage) {
    check(similarity == Similarity::anisotropic_l2, "shrinkage belongs to anisotropic_l2");
    check_size("shrinkage N", shrinkage.size[0], all);
  }
  if (all == elements_) return;
  if (elements_ == 0) settle(key);
  const std::int64_t from = elements_ / width, panels = (all + width - 1) / width;
  reserve(panels);
  scale_.resize(static_cast<std::size_t>(all));
  const float root = 1.0f / std::sqrt(static_cast<float>(channels));
  // The last panel may have been packed in part: it is packed anew.
  const std::int64_t work = (panels - from) * width * channels;
  parallel_for(panels - from, work > 65536 ? threads : 1, [&](std::int64_t i, int) {
    const std::int64_t panel = from + i, first = panel * width;
    const int here = static_cast<int>(std::min(width, all - first));
    const float* row[32];
    for (int w = 0; w < here; ++w) row[w] = key.data + (first + w) * key.stride[1];
    float square[32], norm[32], lost[32];
    char* feature = feature_.get() + panel * panel_bytes_;
    memset(feature, 0, static_cast<std::size_t>(panel_bytes_));
    sieve_.pack(row, key.stride[0], origin_.data(), here, static_cast<int>(channels), selected, lambda_,
                {feature, square, norm, lost});
    for (int w = 0; w < width; ++w) {
      const auto n = static_cast<std::size_t>(first + w);
      float scale = std::nanf("");
      if (w < here) scale_[n] = scale = root * (shrinkage ? shrinkage(first + w) : 1.0f);
      const bool moved = similarity != Similarity::dot;
      const ElementBound bound = element_bound(scale, norm[w], lost[w], selected || !moved ? 0.0f : square[w], lambda_);
      inverse_[n] = bound.inverse;
      reach_[n] = bound.reach;
      bound_[n] = bound.bound;
      bias_[n] = bound.bias;
      if (bound.rough) continue;
      if (sieve_.bf16) {
        auto* to = reinterpret_cast<std::uint16_t*>(feature) + (w / 16) * 512 + (w % 16) * 2;
        for (std::int64_t f = 0; f < features_; ++f) to[(f / 32) * 1024 + (f / 2 % 16) * 32 + f % 2] = 0;
      } else {
        auto* to = reinterpret_cast<float*>(feature) + w;
        for (std::int64_t c = 0; c < channels; ++c) to[c * width] = 0.0f;
      }
    }
  });
  elements_ = all;
}

}  // namespace rotomem
