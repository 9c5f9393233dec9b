// Checks, threads and the walk over the memory, shared by all instruction sets; and the portable loops.
#include "attention/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention/attention_tiles.h"
#include "common/check.h"
#include "common/parallel.h"
#include "common/vector_portable.h"

namespace rotomem {

constexpr AttentionLoops kPortableAttention = attention_loops_of<Portable4, 2, 4, 4, 2>();

namespace {

// Queries that one piece of work answers, three strips of AVX-512: a memory is read from far once for all of them.
constexpr std::int64_t kChunk = 144;
// Elements between two looks at the greatest score: their weights for a chunk, and narrow keys, stay near.
constexpr std::int64_t kBlock = 64;

const AttentionLoops& loops_for(Instructions instructions) {
#ifdef ROTOMEM_X86
  if (instructions >= Instructions::avx512) return kAvx512Attention;
  if (instructions == Instructions::avx2) return kAvx2Attention;
#endif
  (void)instructions;
  return kPortableAttention;
}

// One thread's scratch; queries fill up whole strips, channels whole `channels` of the loops.
struct Worker {
  std::vector<float> query;             // [strips, CK, strip]
  std::vector<float> weight;            // [strips, block, strip]
  std::vector<float> top, shrunk;       // [strips, strip]
  std::vector<float> sum;               // [strips, 2, strip]
  std::vector<float> mixed;             // [strips * strip, pitch]
  std::vector<float> tail;              // [block, channels] the last channels of values, filled up with zeros
};

class Reading {
 public:
  Reading(const Attention& read, const AttentionLoops& loops)
      : read_(read),
        loops_(loops),
        positions_(read.query.size[2]),
        elements_(read.key.size[2]),
        key_channels_(read.query.size[3]),
        value_channels_(read.value.size[3]),
        pitch_((value_channels_ + loops.channels - 1) / loops.channels * loops.channels) {
    for (int d = 0; d < 2; ++d) {
      const char* letter = d == 0 ? "B" : "H";
      check_size((std::string("key ") + letter).c_str(), read.key.size[d], read.query.size[d]);
      check_size((std::string("value ") + letter).c_str(), read.value.size[d], read.query.size[d]);
      check_size((std::string("readout ") + letter).c_str(), read.readout.size[d], read.query.size[d]);
    }
    check_size("key CK", read.key.size[3], key_channels_);
    check_size("value N", read.value.size[2], elements_);
    check_size("readout P", read.readout.size[2], positions_);
    check_size("readout CV", read.readout.size[3], value_channels_);
    check(elements_ > 0, "there are no elements to attend to");
    check(key_channels_ > 0, "keys have no channels");
    const auto contiguous = [](const auto& span) { return span.size[3] <= 1 || span.stride[3] == 1; };
    check(empty() || (contiguous(read.query) && contiguous(read.key) && contiguous(read.value) &&
                      contiguous(read.readout)),
          "channels are not contiguous");
  }

  void run(int threads) const {
    const std::int64_t heads = read_.query.size[1], chunks = (positions_ + kChunk - 1) / kChunk;
    if (empty()) return;
    std::vector<Worker> workers(static_cast<std::size_t>(std::max(threads, 1)));
    parallel_for(read_.query.size[0] * heads * chunks, threads, [&](std::int64_t i, int worker) {
      const std::int64_t first = i % chunks * kChunk;
      chunk(workers[static_cast<std::size_t>(worker)], i / chunks / heads, i / chunks % heads, first,
            std::min(positions_ - first, kChunk));
    });
  }

 private:
  bool empty() const {
    return std::any_of(read_.readout.size.begin(), read_.readout.size.end(), [](std::int64_t n) { return n == 0; });
  }

  void chunk(Worker& worker, std::int64_t b, std::int64_t h, std::int64_t first, std::int64_t count) const {
    const std::int64_t strip = loops_.strip, strips = (count + strip - 1) / strip;
    const auto padded = static_cast<std::size_t>(strips * strip);
    worker.top.assign(padded, -std::numeric_limits<float>::infinity());
    worker.sum.assign(2 * padded, 0.0f);
    worker.shrunk.resize(padded);
    worker.weight.resize(padded * kBlock);
    worker.mixed.assign(padded * static_cast<std::size_t>(pitch_), 0.0f);
    worker.tail.assign(static_cast<std::size_t>(kBlock * loops_.channels), 0.0f);
    pack(worker, b, h, first, count, strips);
    for (std::int64_t n = 0; n < elements_; n += kBlock) {
      const int here = static_cast<int>(std::min(kBlock, elements_ - n));
      for (std::int64_t s = 0; s < strips; ++s) {
        loops_.compare(worker.query.data() + s * key_channels_ * strip, &read_.key(b, h, n, 0), read_.key.stride[2],
                       here, static_cast<int>(key_channels_), worker.weight.data() + s * kBlock * strip,
                       worker.top.data() + s * strip, worker.sum.data() + 2 * s * strip,
                       worker.shrunk.data() + s * strip);
      }
      if (n > 0) shrink(worker, count);
      mix(worker, &read_.value(b, h, n, 0), here, strips);
    }
    for (std::int64_t p = 0; p < count; ++p) {
      const float share = 1.0f / worker.sum[static_cast<std::size_t>(p / strip * 2 * strip + p % strip)];
      const float* from = worker.mixed.data() + p * pitch_;
      float* to = &read_.readout(b, h, first + p, 0);
      for (std::int64_t c = 0; c < value_channels_; ++c) to[c] = from[c] * share;
    }
  }

  // Scores are wanted as powers of two.
  void pack(Worker& worker, std::int64_t b, std::int64_t h, std::int64_t first, std::int64_t count,
            std::int64_t strips) const {
    const std::int64_t strip = loops_.strip;
    const auto scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(key_channels_)));
    worker.query.assign(static_cast<std::size_t>(strips * strip * key_channels_), 0.0f);
    for (std::int64_t p = 0; p < count; ++p) {
      const float* from = &read_.query(b, h, first + p, 0);
      float* to = worker.query.data() + p / strip * key_channels_ * strip + p % strip;
      for (std::int64_t c = 0; c < key_channels_; ++c) to[c * strip] = scale * from[c];
    }
  }

  void shrink(Worker& worker, std::int64_t count) const {
    for (std::int64_t p = 0; p < count; ++p) {
      const float by = worker.shrunk[static_cast<std::size_t>(p)];
      if (by == 1.0f) continue;
      float* row = worker.mixed.data() + p * pitch_;
      for (std::int64_t c = 0; c < pitch_; ++c) row[c] *= by;
    }
  }

  void mix(Worker& worker, const float* value, int count, std::int64_t strips) const {
    const std::int64_t channels = loops_.channels, strip = loops_.strip;
    for (std::int64_t c = 0; c < value_channels_; c += channels) {
      const float* from = value + c;
      std::int64_t row = read_.value.stride[2];
      if (c + channels > value_channels_) {
        for (int n = 0; n < count; ++n)
          std::copy_n(from + n * row, value_channels_ - c, worker.tail.data() + n * channels);
        from = worker.tail.data();
        row = channels;
      }
      for (std::int64_t i = 0; i < strips * strip; i += loops_.queries)
        loops_.mix(worker.weight.data() + i / strip * kBlock * strip + i % strip, from, row, count,
                   worker.mixed.data() + i * pitch_ + c, pitch_);
    }
  }

  const Attention& read_;
  const AttentionLoops& loops_;
  const std::int64_t positions_, elements_, key_channels_, value_channels_, pitch_;
};

}  // namespace

void attention(const Attention& read, Instructions instructions, int threads) {
  Reading(read, loops_for(instructions)).run(threads);
}

}  // namespace rotomem
