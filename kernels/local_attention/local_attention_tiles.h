// The loops of LocalLoops, written once over a vector type V (common/vector_*.h) whose lanes are queries side by side,
// and compiled once for every instruction set. Everything has internal linkage.
#pragma once

#include <cstdint>

#include "common/softmax.h"
#include "local_attention/local_attention_loops.h"

namespace rotomem {
namespace {

// score[r][j] (+)= sum_c query[r][c] * from[c * pitch + j * step], one `from` for each of COUNT places. Keys are read
// as vectors, a lane each; relative keys as one number for all lanes.
template <class V, int ROWS, int COUNT, bool KEYS>
inline void compare(const float* query, std::int64_t query_row, const float* from, std::int64_t pitch,
                    std::int64_t step, const float* bias, int depth, float* const* score) {
  typename V::Reg sum[ROWS][COUNT];
  for (int r = 0; r < ROWS; ++r)
    for (int j = 0; j < COUNT; ++j) sum[r][j] = KEYS ? V::load(score[r] + j * V::lanes) : V::all(bias[j]);
  for (int c = 0; c < depth; ++c) {
    typename V::Reg q[ROWS];
    for (int r = 0; r < ROWS; ++r) q[r] = V::load(query + r * query_row + c * V::lanes);
#pragma GCC unroll 8
    for (int j = 0; j < COUNT; ++j) {
      const float* at = from + c * pitch + j * step;
      const typename V::Reg k = KEYS ? V::load(at) : V::all(*at);
      for (int r = 0; r < ROWS; ++r) sum[r][j] = V::fma(q[r], k, sum[r][j]);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int j = 0; j < COUNT; ++j) V::store(score[r] + j * V::lanes, sum[r][j]);
}

// `compare` for any number of places, five at a time: 15 of them fit a window of the published models.
template <class V, int ROWS, bool KEYS>
inline void compare_all(const float* query, std::int64_t query_row, const float* from, std::int64_t pitch,
                        std::int64_t step, const float* bias, int depth, int count, float* const* score) {
  constexpr int block = 5;
  int j = 0;
  for (; j < count; j += j + block <= count ? block : 1) {
    float* at[ROWS];
    for (int r = 0; r < ROWS; ++r) at[r] = score[r] + j * V::lanes;
    const float* own = KEYS ? nullptr : bias + j;
    if (j + block <= count)
      compare<V, ROWS, block, KEYS>(query, query_row, from + j * step, pitch, step, own, depth, at);
    else
      compare<V, ROWS, 1, KEYS>(query, query_row, from + j * step, pitch, step, own, depth, at);
  }
}

// out[r][c] += sum_j weight[r][j] * from[c * pitch + j * step] for COUNT channels.
template <class V, int ROWS, int COUNT, bool VALUES>
inline void add(const float* const* weight, const float* from, std::int64_t pitch, std::int64_t step, int places,
                float* out, std::int64_t out_row) {
  typename V::Reg sum[ROWS][COUNT];
  for (int r = 0; r < ROWS; ++r)
    for (int c = 0; c < COUNT; ++c) sum[r][c] = V::load(out + r * out_row + c * V::lanes);
  for (int j = 0; j < places; ++j) {
    typename V::Reg w[ROWS];
    for (int r = 0; r < ROWS; ++r) w[r] = V::load(weight[r] + j * V::lanes);
#pragma GCC unroll 8
    for (int c = 0; c < COUNT; ++c) {
      const float* at = from + c * pitch + j * step;
      const typename V::Reg v = VALUES ? V::load(at) : V::all(*at);
      for (int r = 0; r < ROWS; ++r) sum[r][c] = V::fma(w[r], v, sum[r][c]);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int c = 0; c < COUNT; ++c) V::store(out + r * out_row + c * V::lanes, sum[r][c]);
}

template <class V, int CHANNELS, int ROWS, bool VALUES>
inline void add_all(const float* const* weight, const float* from, std::int64_t pitch, std::int64_t step, int places,
                    int depth, float* out, std::int64_t out_row) {
  int c = 0;
  for (; c + CHANNELS <= depth; c += CHANNELS)
    add<V, ROWS, CHANNELS, VALUES>(weight, from + c * pitch, pitch, step, places, out + c * V::lanes, out_row);
  for (; c < depth; ++c)
    add<V, ROWS, 1, VALUES>(weight, from + c * pitch, pitch, step, places, out + c * V::lanes, out_row);
}

// Scores of rows [begin, end) of the window to what a softmax has above its line; `share` gets 1 over their sum.
template <class V>
inline void exponentials(float* weight, int side, int begin, int end, const float* outside, float* share) {
  constexpr int lanes = V::lanes;
  float top[lanes], sum[lanes];
  for (int i = 0; i < lanes; ++i) {
    top[i] = kNoMatch;
    sum[i] = 0.0f;
  }
  for (int dy = begin; dy < end; ++dy)
    for (int dx = 0; dx < side; ++dx) {
      float* at = weight + (dy * side + dx) * lanes;
      const float* never = outside + dx * lanes;
      for (int i = 0; i < lanes; ++i) {
        const float score = at[i] + never[i];
        at[i] = is_match(score) ? score : kNoMatch;
        top[i] = at[i] > top[i] ? at[i] : top[i];
      }
    }
  for (int place = begin * side; place < end * side; ++place) {
    float* at = weight + place * lanes;
    for (int i = 0; i < lanes; ++i) {
      at[i] = exp_nonpositive(at[i] - top[i]);  // NaN, and so 0, where nothing at all matches
      sum[i] += at[i];
    }
  }
  for (int i = 0; i < lanes; ++i) share[i] = sum[i] > 0.0f ? 1.0f / sum[i] : 0.0f;
}

template <class V, int CHANNELS, int ROWS>
void read_rows(const LocalBlock& b) {
  constexpr int lanes = V::lanes;
  const int side = b.side, depth = b.depth, line = side * lanes;
  const std::int64_t row = static_cast<std::int64_t>(depth) * lanes;
  float* weight[ROWS];
  for (int r = 0; r < ROWS; ++r) weight[r] = b.weight + r * side * line;
  // Rows of the window that any, and that each, row of queries has inside the map.
  const int low = b.first - (ROWS - 1) > 0 ? b.first - (ROWS - 1) : 0, high = b.last < side ? b.last : side;
  int begin[ROWS], end[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    begin[r] = b.first - r > 0 ? b.first - r : 0;
    end[r] = b.last - r < side ? b.last - r : side;
  }

  float* at[ROWS];
  for (int r = 0; r < ROWS; ++r) at[r] = weight[r] + low * line;
  compare_all<V, ROWS, false>(b.query, row, b.relative_key + low * side * depth, 1, depth,
                              b.relative_bias + low * side, depth, (high - low) * side, at);
  for (int k = b.first; k < b.last; ++k) {
    const float* key = b.key + k * depth * b.pitch;
    if (ROWS == 2 && k > 0 && k < side) {
      for (int r = 0; r < ROWS; ++r) at[r] = weight[r] + (k - r) * line;
      compare_all<V, ROWS, true>(b.query, row, key, b.pitch, 1, nullptr, depth, side, at);
    } else {
      const int r = k < side ? 0 : 1;
      at[0] = weight[r] + (k - r) * line;
      compare_all<V, 1, true>(b.query + r * row, row, key, b.pitch, 1, nullptr, depth, side, at);
    }
  }

  float share[ROWS][lanes];
  for (int r = 0; r < ROWS; ++r) {
    exponentials<V>(weight[r], side, begin[r], end[r], b.outside, share[r]);
    for (int i = low * line; i < begin[r] * line; ++i) weight[r][i] = 0.0f;
    for (int i = end[r] * line; i < high * line; ++i) weight[r][i] = 0.0f;
  }

  for (std::int64_t i = 0; i < ROWS * row; ++i) b.readout[i] = 0.0f;
  const float* from[ROWS];
  for (int r = 0; r < ROWS; ++r) from[r] = weight[r] + low * line;
  add_all<V, CHANNELS, ROWS, false>(from, b.relative_value + low * side * depth, 1, depth, (high - low) * side, depth,
                                    b.readout, row);
  for (int k = b.first; k < b.last; ++k) {
    const float* value = b.value + k * depth * b.pitch;
    if (ROWS == 2 && k > 0 && k < side) {
      for (int r = 0; r < ROWS; ++r) from[r] = weight[r] + (k - r) * line;
      add_all<V, CHANNELS, ROWS, true>(from, value, b.pitch, 1, side, depth, b.readout, row);
    } else {
      const int r = k < side ? 0 : 1;
      from[0] = weight[r] + (k - r) * line;
      add_all<V, CHANNELS, 1, true>(from, value, b.pitch, 1, side, depth, b.readout + r * row, row);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int c = 0; c < depth; ++c)
      for (int i = 0; i < lanes; ++i) b.readout[r * row + c * lanes + i] *= share[r][i];
}

// CHANNELS sums of each row stay in registers.
template <class V, int CHANNELS>
void read_block(const LocalBlock& block) {
  if (block.rows == 2)
    read_rows<V, CHANNELS, 2>(block);
  else
    read_rows<V, CHANNELS, 1>(block);
}

}  // namespace
}  // namespace rotomem
