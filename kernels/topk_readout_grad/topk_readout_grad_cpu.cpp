// The driver that all instruction sets share: first the positions, then the elements.
#include "topk_readout_grad/topk_readout_grad.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/parallel.h"
#include "common/vector_portable.h"
#include "topk_readout_grad/topk_readout_grad_tiles.h"

namespace rotomem {

constexpr GradLoops kPortableGrad = grad_loops_of<Portable4>();

namespace {

// Positions or elements that one piece of work takes. Fixed, so that no sum depends on the number of threads.
constexpr std::int64_t kChunk = 64;

const GradLoops& loops_for(Instructions instructions) {
#ifdef ROTOMEM_X86
  if (instructions >= Instructions::avx2) return kAvx2Grad;  // wider ones wait for memory as long
#endif
  (void)instructions;
  return kPortableGrad;
}

std::int64_t chunks(std::int64_t count) { return (count + kChunk - 1) / kChunk; }

// The chosen pairs, element by element, by ascending position.
struct Pairs {
  std::vector<std::int64_t> start;     // [N + 1] first pair of every element
  std::vector<std::int32_t> position;  // [pairs]
  std::vector<float> weight, slope;    // [pairs]
};

class Differentiator {
 public:
  Differentiator(const TopkReadoutGrad& job, const GradLoops& loops)
      : job_(job),
        loops_(loops),
        channels_(job.key.size[1]),
        elements_(job.key.size[0]),
        positions_(job.query_key.size[0]),
        objects_(job.value.size[0]),
        depth_(static_cast<int>(job.value.size[2])),
        k_(job.index.size[1]),
        root_(1.0f / std::sqrt(static_cast<float>(channels_))),
        nothing_(static_cast<std::size_t>(channels_), 0.0f),
        slope_(static_cast<std::size_t>(positions_ * k_)) {}

  void run(int threads) {
    parallel_for(chunks(positions_), threads, [&](std::int64_t chunk, int) {
      const std::int64_t first = chunk * kChunk, last = std::min(first + kChunk, positions_);
      for (std::int64_t p = first; p < last; ++p) {
        slopes(p);
        query_side(p);
      }
    });
    const Pairs pairs = by_element();
    parallel_for(chunks(elements_), threads, [&](std::int64_t chunk, int) {
      const std::int64_t first = chunk * kChunk, last = std::min(first + kChunk, elements_);
      std::vector<const float*> rows;
      for (std::int64_t n = first; n < last; ++n) {
        memory_side(pairs, n);
        values(pairs, n, rows);
      }
    });
  }

 private:
  bool dot() const { return job_.similarity == Similarity::dot; }
  const float* trust(std::int64_t p) const { return job_.selection ? &job_.selection(p, 0) : nullptr; }
  float shrinkage(std::int64_t n) const { return job_.shrinkage ? job_.shrinkage(n) : 1.0f; }

  void slopes(std::int64_t p) {
    float* slope = slope_.data() + p * k_;
    double mean = 0.0, sum = 0.0;
    for (std::int64_t j = 0; j < k_; ++j) {
      const std::int64_t n = job_.index(p, j);
      if (n < 0) continue;
      slope[j] = 0.0f;
      for (std::int64_t o = 0; o < objects_; ++o)
        slope[j] += loops_.product(&job_.grad_readout(o, p, 0), &job_.value(o, n, 0), depth_);
      mean += static_cast<double>(job_.weight(p, j)) * slope[j];
      sum += static_cast<double>(job_.weight(p, j));
    }
    if (sum > 0.0) mean /= sum;
    for (std::int64_t j = 0; j < k_; ++j)
      slope[j] = static_cast<float>(job_.weight(p, j) * (slope[j] - mean));
  }

  // Where differences of keys are taken from. For l2 it makes none, since slopes sum to 0, but in rounding: keys that
  // were chosen together lie near each other.
  const float* origin(std::int64_t p) const {
    if (job_.similarity == Similarity::anisotropic_l2) return &job_.query_key(p, 0);
    if (job_.similarity == Similarity::l2)
      for (std::int64_t j = 0; j < k_; ++j)
        if (job_.index(p, j) >= 0) return &job_.key(job_.index(p, j), 0);
    return nothing_.data();
  }

  void query_side(std::int64_t p) {
    const auto count = static_cast<int>(channels_);
    const float* slope = slope_.data() + p * k_;
    const float* from = origin(p);
    float* grad = &job_.grad_query_key(p, 0);
    float* squares = job_.grad_selection ? &job_.grad_selection(p, 0) : nullptr;
    std::fill_n(grad, count, 0.0f);
    if (squares) std::fill_n(squares, count, 0.0f);
    for (std::int64_t j = 0; j < k_; ++j) {
      const std::int64_t n = job_.index(p, j);
      if (n >= 0) loops_.query_side(&job_.key(n, 0), from, slope[j] * shrinkage(n), count, grad, squares);
    }
    const float* e = trust(p);
    const float scale = dot() ? root_ : 2.0f * root_;
    for (int c = 0; c < count; ++c) grad[c] *= e ? scale * e[c] : scale;
    if (squares)
      for (int c = 0; c < count; ++c) squares[c] *= -root_;
  }

  Pairs by_element() const {
    Pairs pairs;
    pairs.start.assign(static_cast<std::size_t>(elements_ + 1), 0);
    for (std::int64_t p = 0; p < positions_; ++p)
      for (std::int64_t j = 0; j < k_; ++j)
        if (job_.index(p, j) >= 0) ++pairs.start[static_cast<std::size_t>(job_.index(p, j)) + 1];
    for (std::size_t n = 0; n < static_cast<std::size_t>(elements_); ++n) pairs.start[n + 1] += pairs.start[n];
    const auto count = static_cast<std::size_t>(pairs.start.back());
    pairs.position.resize(count);
    pairs.weight.resize(count);
    pairs.slope.resize(count);
    std::vector<std::int64_t> next(pairs.start.begin(), pairs.start.end() - 1);
    for (std::int64_t p = 0; p < positions_; ++p)
      for (std::int64_t j = 0; j < k_; ++j) {
        if (job_.index(p, j) < 0) continue;
        const auto at = static_cast<std::size_t>(next[static_cast<std::size_t>(job_.index(p, j))]++);
        pairs.position[at] = static_cast<std::int32_t>(p);
        pairs.weight[at] = job_.weight(p, j);
        pairs.slope[at] = slope_[static_cast<std::size_t>(p * k_ + j)];
      }
    return pairs;
  }

  void memory_side(const Pairs& pairs, std::int64_t n) {
    const auto count = static_cast<int>(channels_);
    float* grad = &job_.grad_key(n, 0);
    std::fill_n(grad, count, 0.0f);
    const float* from = dot() ? nothing_.data() : &job_.key(n, 0);
    double sharpness = 0.0;
    for (auto i = static_cast<std::size_t>(pairs.start[static_cast<std::size_t>(n)]);
         i < static_cast<std::size_t>(pairs.start[static_cast<std::size_t>(n) + 1]); ++i) {
      const std::int64_t p = pairs.position[i];
      const float square = loops_.memory_side(from, &job_.query_key(p, 0), trust(p), pairs.slope[i], count, grad);
      sharpness += static_cast<double>(pairs.slope[i]) * square;
    }
    const float scale = dot() ? -root_ : -2.0f * root_ * shrinkage(n);  // for a dot product, from - query is -query
    for (int c = 0; c < count; ++c) grad[c] *= scale;
    if (job_.grad_shrinkage) job_.grad_shrinkage(n) = static_cast<float>(-root_ * sharpness);
  }

  void values(const Pairs& pairs, std::int64_t n, std::vector<const float*>& rows) {
    const auto first = static_cast<std::size_t>(pairs.start[static_cast<std::size_t>(n)]);
    const auto count = static_cast<std::size_t>(pairs.start[static_cast<std::size_t>(n) + 1]) - first;
    rows.resize(count);
    for (std::int64_t o = 0; o < objects_; ++o) {
      for (std::size_t i = 0; i < count; ++i) rows[i] = &job_.grad_readout(o, pairs.position[first + i], 0);
      loops_.weigh(rows.data(), pairs.weight.data() + first, static_cast<int>(count), depth_,
                   &job_.grad_value(o, n, 0));
    }
  }

  const TopkReadoutGrad& job_;
  const GradLoops& loops_;
  const std::int64_t channels_, elements_, positions_, objects_;
  const int depth_;
  const std::int64_t k_;
  const float root_;
  std::vector<float> nothing_;    // [CK] zeros
  std::vector<float> slope_;      // [P, k]
};

// Refuses other sizes, and rows whose numbers do not lie side by side.
template <class T, int D>
void check_rows(const char* name, const Span<T, D>& span, const std::array<std::int64_t, D>& size) {
  const std::string told(name);
  bool empty = false;
  for (std::size_t d = 0; d < D; ++d) {
    check_size((told + " dimension " + std::to_string(d)).c_str(), span.size[d], size[d]);
    empty = empty || size[d] == 0;
  }
  check(empty || span.stride[D - 1] == 1 || span.size[D - 1] == 1, ("rows of " + told + " are not contiguous").c_str());
}

}  // namespace

void topk_readout_grad(const TopkReadoutGrad& job, Instructions instructions, int threads) {
  const std::int64_t elements = job.key.size[0], channels = job.key.size[1], positions = job.query_key.size[0];
  const std::int64_t objects = job.value.size[0], depth = job.value.size[2], k = job.index.size[1];
  check(channels > 0, "keys have no channels");
  check(job.similarity == Similarity::anisotropic_l2 || (!job.shrinkage && !job.selection),
        "shrinkage and selection belong to anisotropic_l2");
  check(static_cast<bool>(job.shrinkage) == static_cast<bool>(job.grad_shrinkage),
        "shrinkage and grad_shrinkage come together or not at all");
  check(static_cast<bool>(job.selection) == static_cast<bool>(job.grad_selection),
        "selection and grad_selection come together or not at all");
  check_rows("key", job.key, {elements, channels});
  check_rows("query_key", job.query_key, {positions, channels});
  check_rows("value", job.value, {objects, elements, depth});
  check_rows("grad_readout", job.grad_readout, {objects, positions, depth});
  check_rows("grad_key", job.grad_key, {elements, channels});
  check_rows("grad_query_key", job.grad_query_key, {positions, channels});
  check_rows("grad_value", job.grad_value, {objects, elements, depth});
  if (job.selection) {
    check_rows("selection", job.selection, {positions, channels});
    check_rows("grad_selection", job.grad_selection, {positions, channels});
  }
  if (job.shrinkage) {
    check_size("shrinkage N", job.shrinkage.size[0], elements);
    check_size("grad_shrinkage N", job.grad_shrinkage.size[0], elements);
  }
  check_size("index P", job.index.size[0], positions);
  check_size("weight P", job.weight.size[0], positions);
  check_size("weight k", job.weight.size[1], k);
  for (std::int64_t p = 0; p < positions; ++p)
    for (std::int64_t j = 0; j < k; ++j)
      check(job.index(p, j) >= -1 && job.index(p, j) < elements, "an index is outside of the memory");
  if (static_cast<double>(positions * k) * static_cast<double>(channels + objects * depth) < 1e6)
    threads = 1;  // starting a thread would cost more than it saves
  Differentiator(job, loops_for(instructions)).run(threads);
}

}  // namespace rotomem
