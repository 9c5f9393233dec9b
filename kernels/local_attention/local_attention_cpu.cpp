// Checks, packing and threads, shared by all instruction sets; and the portable loops.
#include "local_attention/local_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/parallel.h"
#include "common/vector_portable.h"
#include "local_attention/local_attention_check.h"
#include "local_attention/local_attention_tiles.h"

namespace rotomem {

constexpr LocalLoops kPortableLocal{Portable4::lanes, read_block<Portable4, 4>};

namespace {

// Rows of queries that one piece of work answers, even. Keys of 2*reach more rows are packed with them.
constexpr std::int64_t kStrip = 32;

const LocalLoops& loops_for(Instructions instructions) {
#ifdef ROTOMEM_X86
  if (instructions >= Instructions::avx512) return kAvx512Local;
  if (instructions == Instructions::avx2) return kAvx2Local;
#endif
  (void)instructions;
  return kPortableLocal;
}

// One thread's scratch.
struct Worker {
  std::vector<float> key, value;                                    // [rows, D, pitch]
  std::vector<float> relative_key, relative_bias, relative_value;   // [places, D], [places], [places, D]
  std::vector<float> query, weight, readout, outside;               // see LocalBlock
};

class Read {
 public:
  Read(const LocalAttention& read, const LocalLoops& loops)
      : read_(read),
        loops_(loops),
        shape_(check_local_attention(read)),
        heads_(shape_.heads),
        depth_(shape_.depth),
        side_(shape_.side),
        places_(side_ * side_),
        reach_(side_ / 2),
        rows_(read.query.size[2]),
        columns_(read.query.size[3]),
        blocks_((columns_ + loops.lanes - 1) / loops.lanes),
        // A whole number of lines that is odd: channels of one column lie in different sets of the cache.
        pitch_(((blocks_ * loops.lanes + 2 * reach_ + 15) / 16 | 1) * 16) {}

  void run(int threads) const {
    const std::int64_t strips = (rows_ + kStrip - 1) / kStrip, batch = read_.query.size[0];
    if (batch == 0 || rows_ == 0 || columns_ == 0) return;
    std::vector<Worker> workers(static_cast<std::size_t>(std::max(threads, 1)));
    parallel_for(batch * heads_ * strips, threads, [&](std::int64_t i, int worker) {
      const std::int64_t first = i % strips * kStrip;
      strip(workers[static_cast<std::size_t>(worker)], i / strips / heads_, i / strips % heads_, first,
            std::min(rows_, first + kStrip));
    });
  }

 private:
  // Rows [first, last) of one head's map, with zeros in columns outside of it; first and last may lie outside too.
  void pack(Span<const float, 4> map, std::int64_t b, std::int64_t head, std::int64_t first, std::int64_t last,
            float scale, std::vector<float>& to) const {
    to.assign(static_cast<std::size_t>((last - first) * depth_ * pitch_), 0.0f);
    for (std::int64_t y = std::max<std::int64_t>(first, 0); y < std::min(last, rows_); ++y)
      for (std::int64_t x = 0; x < columns_; ++x) {
        const float* from = &map(b, head * depth_, y, x);
        float* at = to.data() + (y - first) * depth_ * pitch_ + x + reach_;
        for (std::int64_t c = 0; c < depth_; ++c) at[c * pitch_] = scale * from[c * map.stride[1]];
      }
  }

  void pack_relative(std::int64_t head, Worker& worker) const {
    worker.relative_key.resize(static_cast<std::size_t>(places_ * depth_));
    worker.relative_value.resize(static_cast<std::size_t>(places_ * depth_));
    worker.relative_bias.resize(static_cast<std::size_t>(places_));
    for (std::int64_t place = 0; place < places_; ++place) {
      worker.relative_bias[static_cast<std::size_t>(place)] = read_.relative_bias(head, place);
      for (std::int64_t c = 0; c < depth_; ++c) {
        worker.relative_key[static_cast<std::size_t>(place * depth_ + c)] = read_.relative_key(head, place, c);
        worker.relative_value[static_cast<std::size_t>(place * depth_ + c)] = read_.relative_value(head, c, place);
      }
    }
  }

  void strip(Worker& worker, std::int64_t b, std::int64_t head, std::int64_t first, std::int64_t last) const {
    const std::int64_t lanes = loops_.lanes;
    pack(read_.key, b, head, first - reach_, last + reach_, 1.0f / std::sqrt(static_cast<float>(depth_)), worker.key);
    pack(read_.value, b, head, first - reach_, last + reach_, 1.0f, worker.value);
    pack_relative(head, worker);
    worker.query.resize(static_cast<std::size_t>(2 * depth_ * lanes));
    worker.readout.resize(static_cast<std::size_t>(2 * depth_ * lanes));
    worker.weight.resize(static_cast<std::size_t>(2 * places_ * lanes));
    worker.outside.resize(static_cast<std::size_t>(side_ * lanes));

    LocalBlock block{};
    block.depth = static_cast<int>(depth_);
    block.side = static_cast<int>(side_);
    block.pitch = pitch_;
    block.query = worker.query.data();
    block.relative_key = worker.relative_key.data();
    block.relative_bias = worker.relative_bias.data();
    block.relative_value = worker.relative_value.data();
    block.outside = worker.outside.data();
    block.weight = worker.weight.data();
    block.readout = worker.readout.data();
    for (std::int64_t x = 0; x < columns_; x += lanes) {
      for (std::int64_t dx = 0; dx < side_; ++dx)
        for (std::int64_t i = 0; i < lanes; ++i) {
          const std::int64_t column = x + i + dx - reach_;
          const bool is = column < 0 || column >= columns_;
          worker.outside[static_cast<std::size_t>(dx * lanes + i)] = is ? kNoMatch : 0.0f;
        }
      for (std::int64_t y = first; y < last; y += 2) {
        block.rows = static_cast<int>(std::min<std::int64_t>(2, last - y));
        block.first = static_cast<int>(std::max<std::int64_t>(0, reach_ - y));
        block.last = static_cast<int>(std::min(side_ + block.rows - 1, rows_ - y + reach_));
        block.key = worker.key.data() + (y - first) * depth_ * pitch_ + x;
        block.value = worker.value.data() + (y - first) * depth_ * pitch_ + x;
        const std::int64_t here = std::min(lanes, columns_ - x);
        std::fill(worker.query.begin(), worker.query.end(), 0.0f);
        each(block.rows, here, b, head, y, x, read_.query, [&](float& mine, const float& theirs) { mine = theirs; },
             worker.query.data());
        loops_.read(block);
        each(block.rows, here, b, head, y, x, read_.readout, [&](float& mine, float& theirs) { theirs = mine; },
             worker.readout.data());
      }
    }
  }

  // Calls move(number in the block, number in the map) for the queries of a block.
  template <class T, class Move>
  void each(std::int64_t rows, std::int64_t columns, std::int64_t b, std::int64_t head, std::int64_t y, std::int64_t x,
            Span<T, 4> map, Move&& move, float* block) const {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < columns; ++i) {
        T* there = &map(b, head * depth_, y + r, x + i);
        for (std::int64_t c = 0; c < depth_; ++c)
          move(block[(r * depth_ + c) * loops_.lanes + i], there[c * map.stride[1]]);
      }
  }

  const LocalAttention& read_;
  const LocalLoops& loops_;
  const LocalShape shape_;
  const std::int64_t heads_, depth_, side_, places_, reach_, rows_, columns_, blocks_, pitch_;
};

}  // namespace

void local_attention(const LocalAttention& read, Instructions instructions, int threads) {
  Read(read, loops_for(instructions)).run(threads);
}

}  // namespace rotomem
