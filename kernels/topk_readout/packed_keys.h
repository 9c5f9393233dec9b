// Keys of a memory as reading wants them, made once for each element and kept between reads.
#pragma once

#include <cstdint>
#include <vector>

#include "common/aligned.h"
#include "common/instructions.h"
#include "common/span.h"

namespace rotomem {

enum class Similarity { dot, l2, anisotropic_l2 };

struct Sieve;

// What it holds of an element: its features (CK floats; where the instructions multiply bfloat16, CK of these or, with
// a selection, 2 CK, rounded up to 32) and five floats. What a read returns does not depend on how the elements came
// in, nor on the instructions, but for the rounding of float32 sums.
class PackedKeys {
 public:
  // `selected`: the queries come with a selection (anisotropic_l2 alone).
  PackedKeys(std::int64_t channels, Similarity similarity, bool selected, Instructions instructions);

  // Forgets the elements from n = `first` on.
  void cut(std::int64_t first);

  // Takes in the elements from n = elements() on; throws where the memory has fewer, or the shapes do not fit.
  void extend(Span<const float, 2> key,        // [CK, N] any strides; CK contiguous is fastest
              Span<const float, 1> shrinkage,  // [N] or absent: ones
              int threads);

  std::int64_t elements() const { return elements_; }
  std::int64_t bytes() const;

  const std::int64_t channels;
  const Similarity similarity;
  const bool selected;
  const Instructions instructions;

 private:
  friend class BestReader;

  void reserve(std::int64_t panels);
  void settle(Span<const float, 2> key);

  const Sieve& sieve_;
  const std::int64_t features_;     // a bfloat16 row's length; CK for float
  const std::int64_t panel_bytes_;  // of features
  std::int64_t elements_ = 0, room_ = 0;  // room in panels
  Aligned<char> feature_;                              // panels, as in Panel
  std::vector<float> inverse_, reach_, bound_, bias_;  // as in Panel
  std::vector<float> scale_;                           // [N] exactly shrinkage / sqrt(CK)
  std::vector<float> origin_;                          // [CK] where most of the memory lies
  float lambda_ = 1.0f;
};

}  // namespace rotomem
