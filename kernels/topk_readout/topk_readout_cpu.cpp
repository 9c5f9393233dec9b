// Reading the best k: rough scores of all pairs, candidates, float32 scores of these, softmax, values.
#include "topk_readout/topk_readout.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "common/aligned.h"
#include "common/check.h"
#include "common/parallel.h"
#include "topk_readout/full_softmax.h"
#include "topk_readout/topk_readout_loops.h"
#include "topk_readout/topk_readout_math.h"
#include "topk_readout/topk_sieve.h"
#include "topk_readout/topk_sieve_bounds.h"

namespace rotomem {
namespace {

constexpr float kGreatest = std::numeric_limits<float>::max();

constexpr std::int64_t kLongestChunk = 512;    // queries that pass over the memory together
constexpr std::int64_t kCandidates = 1 << 20;  // that a chunk may have room for, where a group of queries allows
constexpr std::int64_t kBlock = 2;             // panels that meet a group of queries while it is in the first cache
constexpr std::int64_t kSample = 8;            // panels, of which one is looked at first
constexpr std::int64_t kColumns = 16;          // queries whose readouts are written together: a line each channel

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// One thread's scratch for a chunk of queries.
struct Worker {
  Aligned<char> feature;                                   // as in Asked
  std::vector<float> threshold, constant, slack, breadth;  // [chunk] as in Asked
  std::vector<float> query, trust;                         // [chunk, CK] for float32 scores; trust: selection or ones
  std::vector<float> reached;                              // [chunk, groups] what a group's best k reach for certain
  std::vector<float> low, high;                            // [chunk, room] as in Candidates
  std::vector<std::uint32_t> n;                            // [chunk, room]
  std::vector<std::int32_t> held;                          // [chunk]
  std::vector<std::int32_t> scored;                        // [chunk] how many of them, the first, have exact scores
  Aligned<float> tile;                                     // [group, width]
  std::vector<float> peak;                                 // [group, peaks] see probe
  std::vector<float> some;                                 // [room]
  std::vector<std::uint64_t> best;                         // [room]
  std::vector<std::uint32_t> chosen;                       // [groups, chunk, k] n
  std::vector<float> share;                                // [groups, chunk, k]
  std::vector<std::int32_t> count;                         // [groups, chunk] of chosen
  std::vector<const float*> rows;                          // [2, k]
  std::vector<float> mixed;                                // [kColumns, pitch]
  std::vector<std::int64_t> usage;                         // [N]
  std::int64_t chunk = 0, pitch = 0;                       // of queries; of peaks
};

}  // namespace

class BestReader {
 public:
  BestReader(const TopkReadout& read, Instructions instructions, int threads)
      : read_(read),
        sieve_(sieve_for(instructions)),
        loops_(loops_for(instructions)),
        channels_(read.key.size[0]),
        elements_(read.key.size[1]),
        groups_(1 + static_cast<std::int64_t>(read.others.size())),
        k_(std::min<std::int64_t>(read.top_k, elements_)),
        // Room for everybody's best k, and for two panels of new candidates at the least.
        room_((groups_ * k_ + std::max<std::int64_t>(k_, 64) + sieve_.width + 15) / 16 * 16),
        selected_(read.selection) {
    if (read.packed) {
      packed_ = read.packed;
      check(packed_->channels == channels_ && packed_->similarity == read.similarity &&
                packed_->selected == selected_ && packed_->instructions == instructions,
            "the keys are packed for another kind of read");
      check_size("packed keys N", packed_->elements(), elements_);
    } else {
      packed_ = &own_.emplace(channels_, read.similarity, selected_, instructions);
      own_->extend(read.key, read.shrinkage, threads);
    }
    scored_ = {read.key.data,           read.key.stride[1],          packed_->scale_.data(),
               packed_->origin_.data(), static_cast<int>(channels_), sum_of(read)};
    if (channels_ > 1 && read.key.stride[0] != 1) {  // float32 scores take an element at a time
      rows_.resize(at(elements_ * channels_));
      for (std::int64_t c = 0; c < channels_; ++c)
        for (std::int64_t n = 0; n < elements_; ++n) rows_[at(n * channels_ + c)] = read.key(c, n);
      scored_.key = rows_.data();
      scored_.pitch = channels_;
    }
    see();
  }

  void run(int threads) {
    const std::int64_t positions = read_.query_key.size[1], group = sieve_.group;
    const double work =
        static_cast<double>(positions) * static_cast<double>(elements_) * static_cast<double>(channels_ + 1);
    threads = work < 1e6 ? 1 : std::max(threads, 1);  // starting a thread would cost more than it saves
    // Long chunks pass over the memory less often, but every thread should get some. No result depends on them.
    std::int64_t chunk = std::min({(positions + 3 * threads - 1) / (3 * threads), kLongestChunk, kCandidates / room_});
    chunk = std::max((chunk + group - 1) / group, std::int64_t{1}) * group;
    std::vector<Worker> workers(at(threads));
    parallel_for((positions + chunk - 1) / chunk, threads, [&](std::int64_t i, int w) {
      Worker& worker = workers[at(w)];
      if (!worker.chunk) prepare(worker, chunk);
      const std::int64_t first = i * chunk, count = std::min(chunk, positions - first);
      ask(worker, first, count);
      sift(worker, count);
      for (std::int64_t p = 0; p < count; ++p) choose(worker, p, first);
      for (std::int64_t g = 0; g < groups_; ++g) mix(worker, g, first, count);
    });
    if (!read_.usage) return;
    for (std::int64_t n = 0; n < elements_; ++n) {
      std::int64_t sum = 0;
      for (const Worker& worker : workers)
        if (worker.chunk) sum += worker.usage[at(n)];
      read_.usage(n) = static_cast<float>(static_cast<double>(sum) / kUsageOne);
    }
  }

 private:
  static Sum sum_of(const TopkReadout& read) {
    if (read.similarity == Similarity::dot) return Sum::product;
    return read.shrinkage ? Sum::difference : Sum::moved;
  }

  // Which groups see an element, a bit each; nothing is kept where the only group sees all.
  void see() {
    const std::int64_t width = sieve_.width, panels = (elements_ + width - 1) / width;
    live_.assign(at(panels), ~0u);
    any_.assign(at(panels), 1);
    if (groups_ == 1 && !read_.valid) {
      for (std::int64_t i = 0; i < panels; i += kSample) sample_.push_back(i);
      return;
    }
    seen_.assign(at(elements_), 0);
    for (std::int64_t g = 0; g < groups_; ++g) {
      const Span<const unsigned char, 1>& valid = g ? read_.others[at(g - 1)].valid : read_.valid;
      std::uint64_t some = 0;
      for (std::int64_t n = 0; n < elements_; ++n) {
        const std::uint64_t sees = !valid || valid(n);
        seen_[at(n)] |= sees << g;
        some |= sees;
      }
      check(some, "every memory element is masked out");
    }
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      live_[at(panel)] = 0;
      any_[at(panel)] = 0;
      for (std::int64_t n = panel * width; n < std::min(elements_, (panel + 1) * width); ++n) {
        live_[at(panel)] |= static_cast<std::uint32_t>(seen_[at(n)] != 0) << (n - panel * width);
        any_[at(panel)] |= seen_[at(n)];
      }
    }
    const std::uint64_t everybody = ~std::uint64_t{0} >> (64 - groups_);
    for (std::int64_t i = 0; i < panels; i += kSample) {
      bool whole = (i + 1) * width <= elements_;
      for (std::int64_t n = i * width; whole && n < (i + 1) * width; ++n) whole = seen_[at(n)] == everybody;
      if (whole) sample_.push_back(i);
    }
  }

  bool sees(std::int64_t g, std::uint32_t n) const { return seen_.empty() || (seen_[n] >> g & 1u); }

  void prepare(Worker& worker, std::int64_t chunk) const {
    worker.chunk = chunk;
    worker.feature = aligned<char>(chunk * query_bytes());
    for (std::vector<float>* of : {&worker.threshold, &worker.constant, &worker.slack, &worker.breadth})
      of->resize(at(chunk));
    worker.query.resize(at(chunk * channels_));
    worker.trust.resize(at(chunk * channels_));
    worker.reached.resize(at(chunk * groups_));
    worker.low.resize(at(chunk * room_));
    worker.high.resize(at(chunk * room_));
    worker.n.resize(at(chunk * room_));
    worker.held.resize(at(chunk));
    worker.scored.resize(at(chunk));
    worker.tile = aligned<float>(sieve_.group * sieve_.width);
    worker.pitch = (4 * k_ + sieve_.width - 1) / sieve_.width * sieve_.width;
    worker.peak.resize(at(sieve_.group * worker.pitch));
    worker.some.resize(at(room_));
    worker.best.resize(at(room_));
    worker.chosen.resize(at(groups_ * chunk * k_));
    worker.share.resize(at(groups_ * chunk * k_));
    worker.count.resize(at(groups_ * chunk));
    worker.rows.resize(at(2 * k_));
    if (read_.usage) worker.usage.assign(at(elements_), 0);
  }

  // Bytes of a query's features.
  std::int64_t query_bytes() const {
    return sieve_.bf16 ? packed_->features_ * 2 : channels_ * (selected_ ? 2 : 1) * 4;
  }

  // The query side of the rough scores, and the bounds that belong to it (see topk_sieve.h).
  void ask(Worker& worker, std::int64_t first, std::int64_t count) const {
    const std::int64_t group = sieve_.group, padded = (count + group - 1) / group * group;
    const bool squares = read_.similarity != Similarity::dot;
    std::fill_n(worker.feature.get(), padded * query_bytes(), char{0});
    std::fill_n(worker.held.begin(), padded, 0);
    std::fill_n(worker.scored.begin(), padded, 0);
    for (std::int64_t p = 0; p < padded; ++p) {
      float* query = worker.query.data() + p * channels_;
      float* trust = worker.trust.data() + p * channels_;
      float poison = 0.0f;
      double constant = 0.0, size = 0.0, norm = 0.0, lost = 0.0;
      for (std::int64_t c = 0; c < channels_; ++c) {
        query[c] = p < count ? read_.query_key(c, first + p) : 0.0f;
        trust[c] = p < count && selected_ ? read_.selection(c, first + p) : 1.0f;
        poison += query[c] * 0.0f + trust[c] * 0.0f;
        const float q = query[c] - packed_->origin_[at(c)];
        const float linear = squares ? 2.0f * trust[c] * q : q;
        const float square = selected_ ? -trust[c] / packed_->lambda_ : 0.0f;
        norm += static_cast<double>(linear) * linear + static_cast<double>(square) * square;
        if (scored_.sum == Sum::moved) query[c] = 2.0f * q;
        if (scored_.sum == Sum::difference) {
          constant += static_cast<double>(trust[c]) * q * q;
          size += static_cast<double>(std::fabs(trust[c])) * q * q;
        }
        if (sieve_.bf16) {
          auto* to = reinterpret_cast<std::uint16_t*>(worker.feature.get()) + p * packed_->features_ + c;
          to[0] = bf16(linear);
          const float off = linear - from_bf16(to[0]);
          lost += static_cast<double>(off) * off;
          if (!selected_) continue;
          to[channels_] = bf16(square);
          const float other = square - from_bf16(to[channels_]);
          lost += static_cast<double>(other) * other;
        } else if (selected_) {
          float* to = grouped(worker, p) + c * 2 * group;
          to[0] = -trust[c];
          to[group] = linear;
        } else {
          grouped(worker, p)[c * group] = linear;
        }
      }
      const float bias = squares && !selected_ ? 1.0f / packed_->lambda_ : 0.0f;
      QueryBound bound = query_bound(constant, size, std::sqrt(norm), std::sqrt(lost), bias, channels_, sieve_.bf16);
      const bool hopeless = p >= count || !(poison == 0.0f);  // no score of it is finite
      if (hopeless) bound = {0.0f, 0.0f, 1e-30f, false};
      if (!bound.rough) blank(worker, p);
      worker.constant[at(p)] = bound.constant;
      worker.slack[at(p)] = bound.slack;
      worker.breadth[at(p)] = bound.breadth;
      std::fill_n(worker.reached.begin() + p * groups_, groups_, hopeless ? kGreatest : -kGreatest);
    }
  }

  // Where a query's float features begin, those of the others in its group between them.
  float* grouped(Worker& worker, std::int64_t p) const {
    const std::int64_t first = p / sieve_.group * sieve_.group;
    return reinterpret_cast<float*>(worker.feature.get() + first * query_bytes()) + p - first;
  }

  void blank(Worker& worker, std::int64_t p) const {
    const std::int64_t group = sieve_.group;
    if (sieve_.bf16) {
      std::fill_n(worker.feature.get() + p * query_bytes(), query_bytes(), char{0});
    } else {
      for (std::int64_t f = 0; f < query_bytes() / 4; ++f) grouped(worker, p)[f * group] = 0.0f;
    }
  }

  // The least similarity with which an element matters to one of these groups.
  float least_of(const Worker& worker, std::int64_t p, std::uint64_t who) const {
    float least = kGreatest;
    for (; who; who &= who - 1) least = std::min(least, worker.reached[at(p * groups_ + __builtin_ctzll(who))]);
    return least;
  }

  void aim(Worker& worker, std::int64_t p, std::uint64_t any) const {
    worker.threshold[at(p)] = least_of(worker, p, any);
  }

  Panel panel(std::int64_t i) const {
    const std::int64_t n = i * sieve_.width;
    return {packed_->feature_.get() + i * packed_->panel_bytes_,
            packed_->inverse_.data() + n,
            packed_->reach_.data() + n,
            packed_->bound_.data() + n,
            packed_->bias_.data() + n,
            static_cast<std::uint32_t>(n),
            live_[at(i)]};
  }

  Asked asked(const Worker& worker, std::int64_t p) const {
    return {worker.feature.get() + p * query_bytes(), worker.threshold.data() + p, worker.constant.data() + p,
            worker.slack.data() + p, worker.breadth.data() + p};
  }

  // What every group's best k reach for certain, from a sample of the panels that all groups see whole: the k-th of
  // the greatest lower bounds at each of several places. Saves most of the candidates that would come and go.
  void probe(Worker& worker, std::int64_t count) const {
    const std::int64_t group = sieve_.group, pitch = worker.pitch, layers = pitch / sieve_.width;
    const auto sampled = static_cast<std::int64_t>(sample_.size());
    if (sampled < 2 * layers) return;
    for (std::int64_t p0 = 0; p0 < count; p0 += group) {
      std::fill_n(worker.peak.begin(), group * pitch, kNoMatch);
      for (std::int64_t i = 0; i < sampled; ++i)
        sieve_.probe(panel(sample_[at(i)]), asked(worker, p0), shape(), worker.tile.get(),
                     worker.peak.data() + i % layers * sieve_.width, pitch);
      for (std::int64_t p = p0; p < p0 + group; ++p) {
        float* peak = worker.peak.data() + (p - p0) * pitch;
        const float least = sieve_.kth(peak, static_cast<int>(pitch), static_cast<int>(k_));
        for (std::int64_t g = 0; g < groups_; ++g) {
          float& reached = worker.reached[at(p * groups_ + g)];
          reached = std::max(reached, least);
        }
      }
    }
  }

  Shape shape() const { return {static_cast<int>(channels_), static_cast<int>(packed_->features_), selected_}; }

  // All pairs of the memory and the chunk. The newest elements come first: all groups have seen them, and their
  // thresholds rise together before older elements meet those who have seen these too.
  void sift(Worker& worker, std::int64_t count) const {
    const std::int64_t group = sieve_.group;
    const Loan tiles(sieve_);
    probe(worker, count);
    std::uint64_t aimed = 0;
    for (auto end = static_cast<std::int64_t>(live_.size()); end > 0; end -= kBlock) {
      const std::int64_t first = std::max<std::int64_t>(end - kBlock, 0);
      std::uint64_t any = 0;
      for (std::int64_t i = first; i < end; ++i) any |= any_[at(i)];
      if (!any) continue;
      if (any != aimed)
        for (std::int64_t p = 0; p < (count + group - 1) / group * group; ++p) aim(worker, p, any);
      aimed = any;
      for (std::int64_t p0 = 0; p0 < count; p0 += group) {
        const Candidates candidates{worker.low.data() + p0 * room_, worker.high.data() + p0 * room_,
                                    worker.n.data() + p0 * room_, worker.held.data() + p0,
                                    static_cast<std::int32_t>(room_)};
        for (std::int64_t i = end - 1; i >= first; --i) {
          std::uint32_t full = sieve_.scan(panel(i), asked(worker, p0), candidates, shape(), worker.tile.get());
          for (; full; full &= full - 1) {
            const std::int64_t p = p0 + __builtin_ctz(full);
            tighten(worker, p);
            aim(worker, p, any);
          }
        }
      }
    }
  }

  // Gives the tiles back whatever happens.
  struct Loan {
    explicit Loan(const Sieve& sieve) : sieve(sieve) { sieve.begin(); }
    ~Loan() { sieve.end(); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    const Sieve& sieve;
  };

  // Raises what every group's best k reach for certain: the k-th greatest lower bound. Groups that see the same
  // candidates share it.
  void raise(Worker& worker, std::int64_t p) const {
    const std::int32_t held = worker.held[at(p)];
    float* low = worker.low.data() + p * room_;
    const std::uint32_t* n = worker.n.data() + p * room_;
    float* reached = worker.reached.data() + p * groups_;
    if (seen_.empty()) {
      if (held >= k_) reached[0] = std::max(reached[0], sieve_.kth(low, held, static_cast<int>(k_)));
      return;
    }
    std::uint64_t differs = 1;  // a bit where a group sees others than the one before
    for (std::int32_t j = 0; j < held; ++j) differs |= seen_[n[j]] ^ seen_[n[j]] << 1;
    float level = -kGreatest;
    for (std::int64_t g = 0; g < groups_; ++g) {
      if (differs >> g & 1u) {
        std::int32_t count = 0;
        for (std::int32_t j = 0; j < held; ++j) {
          worker.some[at(count)] = low[j];
          count += sees(g, n[j]);
        }
        level = count < k_ ? -kGreatest : sieve_.kth(worker.some.data(), count, static_cast<int>(k_));
      }
      reached[g] = std::max(reached[g], level);
    }
  }

  // Keeps the candidates for which `keep(j)` holds, in their order.
  template <class Keep>
  void filter(Worker& worker, std::int64_t p, Keep&& keep) const {
    float* low = worker.low.data() + p * room_;
    float* high = worker.high.data() + p * room_;
    std::uint32_t* n = worker.n.data() + p * room_;
    std::int32_t kept = 0, scored = 0;
    for (std::int32_t j = 0; j < worker.held[at(p)]; ++j) {
      const bool stays = keep(j);
      low[kept] = low[j];
      high[kept] = high[j];
      n[kept] = n[j];
      kept += stays;
      scored += stays && j < worker.scored[at(p)];
    }
    worker.held[at(p)] = kept;
    worker.scored[at(p)] = scored;
  }

  // Drops candidates that nobody's best k can hold. Equal similarities stay: they may win by a lower n.
  void drop(Worker& worker, std::int64_t p) const {
    float* high = worker.high.data() + p * room_;
    std::uint32_t* n = worker.n.data() + p * room_;
    if (seen_.empty()) {
      std::int32_t& held = worker.held[at(p)];
      held = sieve_.keep(worker.low.data() + p * room_, high, n, held, worker.reached[at(p)], &worker.scored[at(p)]);
      return;
    }
    std::uint64_t who = 0;
    float least = 0.0f;
    filter(worker, p, [&](std::int32_t j) {
      if (seen_[n[j]] != who) least = least_of(worker, p, who = seen_[n[j]]);
      return high[j] >= least;
    });
  }

  // Gives every candidate its float32 score; those without a finite one go.
  void score(Worker& worker, std::int64_t p) const {
    const std::int32_t from = worker.scored[at(p)], held = worker.held[at(p)];
    float* low = worker.low.data() + p * room_;
    sieve_.score(scored_, worker.query.data() + p * channels_, worker.trust.data() + p * channels_,
                 worker.n.data() + p * room_ + from, held - from, low + from);
    std::copy(low + from, low + held, worker.high.data() + p * room_ + from);
    worker.scored[at(p)] = held;
    bool all = true;
    for (std::int32_t j = from; j < held; ++j) all &= is_match(low[j]);
    if (!all) filter(worker, p, [&](std::int32_t j) { return is_match(low[j]); });
  }

  // Makes room: by the bounds, and where these leave too many, as of elements that resemble each other, by scores.
  void tighten(Worker& worker, std::int64_t p) const {
    raise(worker, p);
    drop(worker, p);
    if (worker.held[at(p)] + 2 * sieve_.width <= room_) return;
    score(worker, p);
    raise(worker, p);
    const float* similarity = worker.low.data() + p * room_;
    const std::uint32_t* n = worker.n.data() + p * room_;
    // Of those that equal the k-th best, as many as there is place for: the last, of lowest n.
    const auto best_of = [&](std::int64_t g, auto&& seen) {
      const float reached = worker.reached[at(p * groups_ + g)];
      std::int64_t above = 0, equal = 0;
      for (std::int32_t j = 0; j < worker.held[at(p)]; ++j) {
        above += seen(j) && similarity[j] > reached;
        equal += seen(j) && similarity[j] == reached;
      }
      return [=, gone = above + equal - k_](std::int32_t j) mutable {
        return seen(j) && (similarity[j] > reached || (similarity[j] == reached && gone-- <= 0));
      };
    };
    if (seen_.empty()) {
      filter(worker, p, best_of(0, [](std::int32_t) { return true; }));
      return;
    }
    std::fill_n(worker.best.begin(), worker.held[at(p)], 0);  // here: whether a candidate stays
    for (std::int64_t g = 0; g < groups_; ++g) {
      auto stays = best_of(g, [=](std::int32_t j) { return sees(g, n[j]); });
      for (std::int32_t j = 0; j < worker.held[at(p)]; ++j) worker.best[at(j)] |= stays(j);
    }
    filter(worker, p, [&](std::int32_t j) { return worker.best[at(j)] != 0; });
  }

  // Every group's best k of what is left, and their weights.
  void choose(Worker& worker, std::int64_t p, std::int64_t first) const {
    raise(worker, p);
    drop(worker, p);
    score(worker, p);
    const std::int32_t held = worker.held[at(p)];
    for (std::int32_t j = 0; j < held; ++j)
      worker.best[at(j)] = candidate(worker.low[at(p * room_ + j)], worker.n[at(p * room_ + j)]);
    std::sort(worker.best.begin(), worker.best.begin() + held, std::greater<>());
    for (std::int64_t g = 0; g < groups_; ++g) {
      std::uint32_t* chosen = worker.chosen.data() + (g * worker.chunk + p) * k_;
      float* share = worker.share.data() + (g * worker.chunk + p) * k_;
      std::int32_t count = 0;
      float top = 0.0f, sum = 0.0f;
      for (std::int32_t j = 0; j < held && count < k_; ++j) {
        const std::uint32_t n = candidate_element(worker.best[at(j)]);
        if (!sees(g, n)) continue;
        const float similarity = candidate_similarity(worker.best[at(j)]);
        if (!count) top = similarity;
        chosen[count] = n;
        sum += share[count++] = std::exp(similarity - top);
      }
      for (std::int32_t j = 0; j < count; ++j) share[j] /= sum;
      worker.count[at(g * worker.chunk + p)] = count;
      if (g) continue;
      if (read_.usage)
        for (std::int32_t j = 0; j < count; ++j)
          worker.usage[chosen[j]] += std::llrint(static_cast<double>(share[j]) * kUsageOne);
      if (read_.index)
        for (std::int32_t j = 0; j < k_; ++j) {
          read_.index(first + p, j) = j < count ? static_cast<std::int32_t>(chosen[j]) : -1;
          read_.weight(first + p, j) = j < count ? share[j] : 0.0f;
        }
    }
  }

  // The weighted sums of one group's values. The next query's rows are fetched while this one's are summed.
  void mix(Worker& worker, std::int64_t g, std::int64_t first, std::int64_t count) const {
    const Span<const float, 3>& value = g ? read_.others[at(g - 1)].value : read_.value;
    const Span<float, 3>& readout = g ? read_.others[at(g - 1)].readout : read_.readout;
    const std::int64_t depth = value.size[2], pitch = depth + 16;  // columns of rows 2^i apart share a cache set
    worker.mixed.resize(at(kColumns * pitch));
    const auto rows_of = [&](std::int64_t o, std::int64_t p) {
      const float** rows = worker.rows.data() + p % 2 * k_;
      const std::uint32_t* chosen = worker.chosen.data() + (g * worker.chunk + p) * k_;
      for (std::int32_t j = 0; j < worker.count[at(g * worker.chunk + p)]; ++j) {
        rows[j] = value.data + o * value.stride[0] + chosen[j] * value.stride[1];
        for (std::int64_t c = 0; c < depth; c += 16) __builtin_prefetch(rows[j] + c, 0, 2);
      }
    };
    for (std::int64_t o = 0; o < value.size[0]; ++o) {
      rows_of(o, 0);
      for (std::int64_t p0 = 0; p0 < count; p0 += kColumns) {
        const std::int64_t end = std::min(p0 + kColumns, count);
        for (std::int64_t p = p0; p < end; ++p) {
          if (p + 1 < count) rows_of(o, p + 1);
          const std::int64_t i = g * worker.chunk + p;
          loops_.weigh(worker.rows.data() + p % 2 * k_, worker.share.data() + i * k_, worker.count[at(i)],
                       static_cast<int>(depth), worker.mixed.data() + (p - p0) * pitch);
        }
        store_columns(worker.mixed.data(), pitch, end - p0, depth, readout, o, first + p0);
      }
    }
  }

  const TopkReadout& read_;
  const Sieve& sieve_;
  const Loops& loops_;
  const std::int64_t channels_, elements_, groups_, k_, room_;
  const bool selected_;
  std::optional<PackedKeys> own_;
  const PackedKeys* packed_ = nullptr;
  std::vector<float> rows_;
  Scored scored_{};
  std::vector<std::uint64_t> seen_;  // [N] or empty
  std::vector<std::uint64_t> any_;   // [panels] groups that see some of it
  std::vector<std::int64_t> sample_;  // panels that everybody sees whole, some of them
  std::vector<std::uint32_t> live_;  // [panels] elements that some group sees
};

namespace {

void check_group(const TopkReadout& read, const Span<const float, 3>& value, const Span<const unsigned char, 1>& valid,
                 const Span<float, 3>& readout) {
  check_size("value N", value.size[1], read.key.size[1]);
  check(value.size[2] <= 1 || value.size[0] == 0 || value.stride[2] == 1, "value channels are not contiguous");
  if (valid) check_size("valid N", valid.size[0], read.key.size[1]);
  check_size("readout O", readout.size[0], value.size[0]);
  check_size("readout CV", readout.size[1], value.size[2]);
  check_size("readout P", readout.size[2], read.query_key.size[1]);
  check(readout.size[2] <= 1 || readout.size[0] == 0 || readout.stride[2] == 1,
        "readout positions are not contiguous");
}

}  // namespace

void topk_readout(const TopkReadout& read, Instructions instructions, int threads) {
  const std::int64_t channels = read.key.size[0], elements = read.key.size[1], positions = read.query_key.size[1];
  check(channels > 0, "keys have no channels");
  check(elements > 0, "the memory holds no elements");
  check(elements < (std::int64_t{1} << 31), "more than 2^31 memory elements");
  check_size("query_key CK", read.query_key.size[0], channels);
  if (read.shrinkage) check_size("shrinkage N", read.shrinkage.size[0], elements);
  if (read.selection) {
    check_size("selection CK", read.selection.size[0], channels);
    check_size("selection P", read.selection.size[1], positions);
  }
  check(read.similarity == Similarity::anisotropic_l2 || (!read.shrinkage && !read.selection),
        "shrinkage and selection belong to anisotropic_l2");
  check_group(read, read.value, read.valid, read.readout);
  check(read.others.size() < 64, "more than 64 groups of objects");
  for (const ObjectGroup& other : read.others) check_group(read, other.value, other.valid, other.readout);
  if (read.usage) check_size("usage N", read.usage.size[0], elements);
  check(static_cast<bool>(read.index) == static_cast<bool>(read.weight),
        "index and weight come together or not at all");
  if (read.index) {
    check(read.top_k > 0, "index and weight need a top_k: a full softmax chooses everything");
    const std::int64_t k = std::min<std::int64_t>(read.top_k, elements);
    check_size("index P", read.index.size[0], positions);
    check_size("index k", read.index.size[1], k);
    check_size("weight P", read.weight.size[0], positions);
    check_size("weight k", read.weight.size[1], k);
  }
  if (read.top_k > 0 && (read.top_k < elements || read.index)) {
    BestReader(read, instructions, threads).run(threads);
    return;
  }
  TopkReadout one = read;
  one.others.clear();
  full_softmax(one, instructions, threads);
  one.usage = {};
  for (const ObjectGroup& other : read.others) {
    one.value = other.value;
    one.valid = other.valid;
    one.readout = other.readout;
    full_softmax(one, instructions, threads);
  }
}

}  // namespace rotomem
