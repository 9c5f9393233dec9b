// The softmax over all elements, in two passes over tiles of the similarities.
#include "topk_readout/full_softmax.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "common/check.h"
#include "common/parallel.h"
#include "topk_readout/topk_readout_loops.h"
#include "topk_readout/topk_readout_math.h"

namespace rotomem {
namespace {

// Queries that one piece of work answers. Fixed, so that no sum depends on the number of threads.
constexpr int kChunk = 64;

// How the three similarities become the one form of Loops::similarities. What all scores of a query have in common
// makes no difference to its weights and is left out, and with it its rounding; unless shrinkage scales it.
struct Form {
  bool squares;   // squares of differences: |k|^2 counts, and |q|^2 where it is kept
  bool selected;  // two numbers a query and channel
  bool constant;  // the query's own part of the square is kept
};

// The memory, cut into panels and moved by `origin`.
struct Packed {
  std::int64_t elements = 0;              // valid ones
  std::unique_ptr<float[]> key;           // [panels, CK, width]
  std::vector<float> scale, bias;         // [panels * width]
  std::vector<std::uint32_t> element;     // [panels * width], n of every column, ascending
  std::vector<float> origin;              // [CK]
  std::int64_t panels = 0;
};

// Per channel, the median over up to 65 elements: where most of the memory lies. A mean would follow a single outlier
// away from all others.
std::vector<float> typical_key(Span<const float, 2> key, const std::vector<std::uint32_t>& element) {
  const std::size_t samples = std::min<std::size_t>(element.size(), 65);
  std::vector<float> typical(static_cast<std::size_t>(key.size[0])), seen;
  for (std::int64_t c = 0; c < key.size[0]; ++c) {
    seen.clear();
    for (std::size_t s = 0; s < samples; ++s) {
      const float k = key(c, element[s * element.size() / samples]);
      if (is_match(k)) seen.push_back(k);
    }
    if (seen.empty()) continue;
    const auto middle = seen.begin() + static_cast<std::ptrdiff_t>(seen.size() / 2);
    std::nth_element(seen.begin(), middle, seen.end());
    typical[static_cast<std::size_t>(c)] = *middle;
  }
  return typical;
}

Packed pack(const TopkReadout& read, const Form& form, const Loops& loops, int threads) {
  const std::int64_t channels = read.key.size[0], all = read.key.size[1], width = loops.width;
  Packed packed;
  packed.element.reserve(static_cast<std::size_t>(all + width));
  for (std::int64_t n = 0; n < all; ++n)
    if (!read.valid || read.valid(n)) packed.element.push_back(static_cast<std::uint32_t>(n));
  packed.elements = static_cast<std::int64_t>(packed.element.size());
  check(packed.elements > 0, "every memory element is masked out");
  packed.origin = form.squares ? typical_key(read.key, packed.element)
                               : std::vector<float>(static_cast<std::size_t>(channels), 0.0f);
  packed.panels = (packed.elements + width - 1) / width;
  const std::int64_t columns = packed.panels * width;
  packed.element.resize(static_cast<std::size_t>(columns), packed.element.back());
  packed.key.reset(new float[static_cast<std::size_t>(columns * channels)]);
  packed.scale.assign(static_cast<std::size_t>(columns), std::nanf(""));
  packed.bias.assign(static_cast<std::size_t>(columns), 0.0f);

  const float root = 1.0f / std::sqrt(static_cast<float>(channels));
  parallel_for(packed.panels, packed.elements * channels > 65536 ? threads : 1, [&](std::int64_t panel, int) {
    float* to = packed.key.get() + panel * channels * width;
    const std::uint32_t* element = packed.element.data() + panel * width;
    for (std::int64_t w = 0; w < width; ++w) {
      const float* from = read.key.data + element[w] * read.key.stride[1];
      for (std::int64_t c = 0; c < channels; ++c)
        to[c * width + w] = from[c * read.key.stride[0]] - packed.origin[static_cast<std::size_t>(c)];
    }
    const std::int64_t here = std::min(width, packed.elements - panel * width);
    for (std::int64_t w = 0; w < here; ++w)
      packed.scale[static_cast<std::size_t>(panel * width + w)] =
          root * (read.shrinkage ? read.shrinkage(element[w]) : 1.0f);
    if (form.squares && !form.selected) {
      for (std::int64_t w = 0; w < width; ++w) {
        double square = 0.0;
        for (std::int64_t c = 0; c < channels; ++c) square += static_cast<double>(to[c * width + w]) * to[c * width + w];
        packed.bias[static_cast<std::size_t>(panel * width + w)] = static_cast<float>(-square);
      }
    }
  });
  return packed;
}

// One thread's scratch.
struct Worker {
  std::vector<float> query;        // [groups, CK, 1 or 2, group]
  std::vector<float> query_bias;   // [groups, 2, group]
  std::vector<float> threshold;    // [chunk]
  std::vector<float> tile, weight; // [group, width]
  std::vector<std::uint32_t> hits;
  std::vector<float> top;                 // [chunk] greatest similarity
  std::vector<double> sum;                // [chunk] of squares, later of exponentials
  std::vector<const float*> rows;
  std::vector<float> mixed;               // [O, chunk, pitch]
  std::vector<float> panel_usage;         // [width]
  std::vector<std::int64_t> usage;        // [N]
};

void pack_queries(const TopkReadout& read, const Form& form, const Loops& loops, const Packed& packed,
                  std::int64_t first, std::int64_t count, Worker& worker) {
  const std::int64_t channels = read.key.size[0], group = loops.group, parts = form.selected ? 2 : 1;
  const std::int64_t groups = (count + group - 1) / group;
  worker.query.assign(static_cast<std::size_t>(groups * channels * parts * group), 0.0f);
  worker.query_bias.assign(static_cast<std::size_t>(groups * 2 * group), 0.0f);
  worker.sum.assign(static_cast<std::size_t>(count), 0.0);
  for (std::int64_t c = 0; c < channels; ++c) {
    const float origin = packed.origin[static_cast<std::size_t>(c)];
    for (std::int64_t p = 0; p < count; ++p) {
      float* to = worker.query.data() + ((p / group) * channels + c) * parts * group + p % group;
      double& square = worker.sum[static_cast<std::size_t>(p)];  // in double: it may dwarf the scores' differences
      const float q = read.query_key(c, first + p) - origin;
      if (form.selected) {
        const float e = read.selection(c, first + p);
        to[0] = -e;
        to[group] = 2.0f * e * q;
        square += static_cast<double>(e) * q * q;
      } else if (form.squares) {
        to[0] = 2.0f * q;
        square += static_cast<double>(q) * q;
      } else {
        to[0] = q;
      }
    }
  }
  for (std::int64_t p = 0; p < count; ++p) {
    const double square = form.constant ? worker.sum[static_cast<std::size_t>(p)] : 0.0;
    float* to = worker.query_bias.data() + (p / group) * 2 * group + p % group;
    to[0] = static_cast<float>(-square);
    to[group] = std::isfinite(to[0]) ? static_cast<float>(-square - static_cast<double>(to[0])) : 0.0f;
  }
}

class FullReader {
 public:
  FullReader(const TopkReadout& read, const Loops& loops, int threads)
      : read_(read),
        loops_(loops),
        form_{read.similarity != Similarity::dot, static_cast<bool>(read.selection),
              static_cast<bool>(read.shrinkage)},
        packed_(pack(read, form_, loops, threads)),
        objects_(read.value.size[0]),
        depth_(read.value.size[2]),
        pitch_(depth_ + 16) {}  // rows a power of two apart would share cache sets when they are read as columns

  void run(int threads) {
    const std::int64_t positions = read_.query_key.size[1], chunks = (positions + kChunk - 1) / kChunk;
    const double work = static_cast<double>(positions) * static_cast<double>(packed_.elements) *
                        static_cast<double>(read_.key.size[0] + 1);
    if (work < 1e6) threads = 1;  // starting a thread would cost more than it saves
    threads = std::max(threads, 1);
    std::vector<Worker> workers(static_cast<std::size_t>(threads));
    parallel_for(chunks, threads, [&](std::int64_t i, int w) {
      Worker& worker = workers[static_cast<std::size_t>(w)];
      const std::int64_t first = i * kChunk, count = std::min<std::int64_t>(kChunk, positions - first);
      if (read_.usage && worker.usage.empty()) worker.usage.assign(static_cast<std::size_t>(read_.key.size[1]), 0);
      prepare(worker, count);
      pack_queries(read_, form_, loops_, packed_, first, count, worker);
      read_all(worker, first, count);
    });
    if (!read_.usage) return;
    for (std::int64_t n = 0; n < read_.key.size[1]; ++n) {
      std::int64_t sum = 0;
      for (const Worker& worker : workers)
        if (!worker.usage.empty()) sum += worker.usage[static_cast<std::size_t>(n)];
      read_.usage(n) = static_cast<float>(static_cast<double>(sum) / kUsageOne);
    }
  }

 private:
  void prepare(Worker& worker, std::int64_t count) const {
    const auto tile = static_cast<std::size_t>(loops_.width * loops_.group);
    worker.tile.resize(tile);
    worker.weight.resize(tile);
    worker.hits.resize(static_cast<std::size_t>(loops_.group));
    // Queries that fill up the last group never get a hit.
    worker.threshold.assign(static_cast<std::size_t>(count + loops_.group), -kNoMatch);
    std::fill_n(worker.threshold.begin(), count, kNoMatch);
  }

  bool similarities(Worker& worker, std::int64_t panel, std::int64_t group) const {
    const std::int64_t channels = read_.key.size[0], parts = form_.selected ? 2 : 1;
    return loops_.similarities(packed_.key.get() + panel * channels * loops_.width,
                               packed_.scale.data() + panel * loops_.width,
                               packed_.bias.data() + panel * loops_.width,
                               worker.query.data() + group * channels * parts * loops_.group,
                               worker.query_bias.data() + group * 2 * loops_.group,
                               worker.threshold.data() + group * loops_.group, static_cast<int>(channels),
                               form_.selected, worker.tile.data(), worker.hits.data());
  }

  // Full softmax in two passes over the memory: greatest similarity and sum first, then the weights themselves.
  void read_all(Worker& worker, std::int64_t first, std::int64_t count) const {
    const std::int64_t width = loops_.width, group = loops_.group, groups = (count + group - 1) / group;
    const std::int64_t padded = groups * group;
    worker.top.assign(static_cast<std::size_t>(padded), kNoMatch);
    worker.sum.assign(static_cast<std::size_t>(padded), 0.0);
    for (std::int64_t panel = 0; panel < packed_.panels; ++panel)
      for (std::int64_t i = 0; i < groups; ++i) {
        if (!similarities(worker, panel, i)) continue;
        for (std::int64_t g = 0; g < group; ++g) {
          if (!worker.hits[static_cast<std::size_t>(g)]) continue;
          const float* similarity = worker.tile.data() + g * width;
          float greatest = kNoMatch;
          for (std::int64_t w = 0; w < width; ++w)
            if (is_match(similarity[w]) && similarity[w] > greatest) greatest = similarity[w];
          if (greatest == kNoMatch) continue;
          float& top = worker.top[static_cast<std::size_t>(i * group + g)];
          double& sum = worker.sum[static_cast<std::size_t>(i * group + g)];
          if (greatest > top) {
            sum *= std::exp(static_cast<double>(top) - static_cast<double>(greatest));
            top = greatest;
          }
          sum += static_cast<double>(loops_.exponentials(similarity, top, worker.weight.data()));
        }
      }

    worker.rows.resize(static_cast<std::size_t>(width));
    worker.panel_usage.resize(static_cast<std::size_t>(width));
    worker.mixed.assign(static_cast<std::size_t>(objects_ * padded * pitch_), 0.0f);
    for (std::int64_t panel = 0; panel < packed_.panels; ++panel) {
      const std::uint32_t* element = packed_.element.data() + panel * width;
      const std::int64_t here = std::min(width, packed_.elements - panel * width);
      std::fill(worker.panel_usage.begin(), worker.panel_usage.end(), 0.0f);
      for (std::int64_t i = 0; i < groups; ++i) {
        if (!similarities(worker, panel, i)) continue;
        for (std::int64_t g = 0; g < group; ++g) {
          float* weight = worker.weight.data() + g * width;
          const float top = worker.top[static_cast<std::size_t>(i * group + g)];
          if (!worker.hits[static_cast<std::size_t>(g)] || top == kNoMatch) {
            std::fill(weight, weight + width, 0.0f);
            continue;
          }
          loops_.exponentials(worker.tile.data() + g * width, top, weight);
          const auto norm = static_cast<float>(1.0 / worker.sum[static_cast<std::size_t>(i * group + g)]);
          for (std::int64_t w = 0; w < width; ++w) {
            weight[w] *= norm;
            worker.panel_usage[static_cast<std::size_t>(w)] += weight[w];
          }
        }
        for (std::int64_t o = 0; o < objects_; ++o) {
          for (std::int64_t w = 0; w < here; ++w)
            worker.rows[static_cast<std::size_t>(w)] =
                read_.value.data + o * read_.value.stride[0] + element[w] * read_.value.stride[1];
          loops_.mix(worker.rows.data(), worker.weight.data(), static_cast<int>(here), static_cast<int>(depth_),
                     worker.mixed.data() + (o * padded + i * group) * pitch_, pitch_);
        }
      }
      if (read_.usage)
        for (std::int64_t w = 0; w < here; ++w)
          worker.usage[element[w]] +=
              std::llrint(static_cast<double>(worker.panel_usage[static_cast<std::size_t>(w)]) * kUsageOne);
    }
    for (std::int64_t o = 0; o < objects_; ++o)
      store_columns(worker.mixed.data() + o * padded * pitch_, pitch_, count, depth_, read_.readout, o, first);
  }

  const TopkReadout& read_;
  const Loops& loops_;
  const Form form_;
  const Packed packed_;
  const std::int64_t objects_, depth_, pitch_;
};

}  // namespace

void full_softmax(const TopkReadout& read, Instructions instructions, int threads) {
  FullReader(read, loops_for(instructions), threads).run(threads);
}

}  // namespace rotomem
