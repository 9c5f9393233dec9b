// A block answers 8 rows by 32 columns of queries of one head, a warp a row, a thread a query, whose channels and sums
// stay in registers. Rows of keys and values pass through shared memory one by one, the next one being fetched meanwhile;
// a warp takes part where the row lies within its reach. The softmax is a running one.
//
// Counted for 32 channels and 15x15, a query: 28,800 multiply-adds; of shared memory 480 numbers a row of its own (keys
// and values) and 240 16-byte words that the whole warp shares (relative terms), which is what bounds it: some four times
// the time of the multiply-adds. Of device memory a key is read by (8 + 14) * (32 + 14) / 256 = 4 queries' blocks.
#include <cuda_runtime.h>

#include <cmath>

#include "common/launch.cuh"
#include "common/ptx.cuh"
#include "common/softmax.h"
#include "local_attention/local_attention.h"
#include "local_attention/local_attention_check.h"

namespace rotomem {
namespace {

constexpr int D = kLocalAttentionCudaMostChannels;  // fewer are filled up with zeros
constexpr int kRows = 8, kColumns = 32, kThreads = kRows * kColumns;
constexpr int kMostSide = 2 * kLocalAttentionCudaMostReach + 1;
// Columns of keys that a block looks at, and from channel to channel: odd, so that neither a warp that walks along
// columns nor one that walks along channels meets a bank of shared memory twice.
constexpr int kWidth = kColumns + kMostSide - 1, kPitch = kWidth | 1;

// Spans as device code takes them: std::array's operators are for hosts.
template <class T>
struct MapOf {
  T* data;
  std::int64_t batch, channel, row, column;  // strides
};
using Map = MapOf<const float>;

struct Relative {
  const float* data;
  std::int64_t head, place, channel;  // strides
  __device__ float at(int h, int p, int c) const { return data[h * head + p * place + c * channel]; }
};

struct Job {
  Map query, key, value;
  Relative relative_key, relative_bias, relative_value;
  MapOf<float> readout;
  int depth, side, rows, columns;
  float scale;
};

// The numbers that one thread fetches of a row: kWidth columns by D channels.
struct Fetched {
  static constexpr int count = (kWidth * D + kThreads - 1) / kThreads;
  float number[count];

  // Neighbouring threads fetch what lies side by side: channels of tokens, columns of maps.
  __device__ static void place(int i, const Map& map, int* c, int* x) {
    const int n = i * kThreads + static_cast<int>(threadIdx.x);
    const bool tokens = map.channel == 1;
    *c = tokens ? n % D : n / kWidth;
    *x = tokens ? n / D : n % kWidth;
  }

  __device__ void load(const Map& map, const float* head, int y, int first, const Job& job) {
    for (int i = 0; i < count; ++i) {
      int c, x;
      place(i, map, &c, &x);
      const int column = first + x;
      const bool inside = c < job.depth && x < kWidth && column >= 0 && column < job.columns;
      number[i] = inside ? head[c * map.channel + y * map.row + column * map.column] : 0.0f;
    }
  }

  __device__ void store(const Map& map, float scale, float* row) const {  // row [D, kPitch]
    for (int i = 0; i < count; ++i) {
      int c, x;
      place(i, map, &c, &x);
      if (c < D && x < kWidth) row[c * kPitch + x] = scale * number[i];
    }
  }
};

struct Shared {
  float relative_key[kMostSide * kMostSide * D];    // [places, D]
  float relative_value[kMostSide * kMostSide * D];  // [places, D]
  float relative_bias[kMostSide * kMostSide];
  float key[D * kPitch], value[D * kPitch];
};

__global__ void __launch_bounds__(kThreads) local_attention_kernel(Job job) {
  ROTOMEM_SHARED(memory);
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z);
  const int tiles = (job.columns + kColumns - 1) / kColumns, reach = job.side / 2;
  const int lane = static_cast<int>(threadIdx.x) % kColumns;
  const int top = static_cast<int>(blockIdx.x) / tiles * kRows, left = static_cast<int>(blockIdx.x) % tiles * kColumns;
  const int y = top + static_cast<int>(threadIdx.x) / kColumns, x = left + lane;
  const auto of_head = [&](const auto& map) {
    return map.data + batch * map.batch + static_cast<std::int64_t>(head) * job.depth * map.channel;
  };

  const int places = job.side * job.side;
  for (int i = static_cast<int>(threadIdx.x); i < places * D; i += kThreads) {
    const int place = i / D, c = i % D;
    const bool is = c < job.depth;
    shared.relative_key[i] = is ? job.relative_key.at(head, place, c) : 0.0f;
    shared.relative_value[i] = is ? job.relative_value.at(head, place, c) : 0.0f;
  }
  for (int i = static_cast<int>(threadIdx.x); i < places; i += kThreads)
    shared.relative_bias[i] = job.relative_bias.at(head, i, 0);

  const bool mine = y < job.rows && x < job.columns;
  float query[D], sum[D];
  {
    const float* from = of_head(job.query) + y * job.query.row + x * job.query.column;
#pragma unroll
    for (int c = 0; c < D; ++c) {
      query[c] = mine && c < job.depth ? from[c * job.query.channel] : 0.0f;
      sum[c] = 0.0f;
    }
  }
  float greatest = kNoMatch, total = 0.0f;

  const int first = max(top - reach, 0), last = min(top + kRows - 1 + reach, job.rows - 1);
  Fetched key, value;
  key.load(job.key, of_head(job.key), first, left - reach, job);
  value.load(job.value, of_head(job.value), first, left - reach, job);
  for (int at = first; at <= last; ++at) {
    __syncthreads();  // everybody is done with the row before (and, the first time, with the relative terms)
    key.store(job.key, job.scale, shared.key);
    value.store(job.value, 1.0f, shared.value);
    __syncthreads();
    if (at < last) {
      key.load(job.key, of_head(job.key), at + 1, left - reach, job);
      value.load(job.value, of_head(job.value), at + 1, left - reach, job);
    }
    const int dy = at - y + reach;
    if (dy < 0 || dy >= job.side || y >= job.rows) continue;  // the same for the whole warp

    float score[kMostSide], above = greatest;
#pragma unroll
    for (int dx = 0; dx < kMostSide; ++dx) {
      const int column = x + dx - reach;
      score[dx] = kNoMatch;
      if (dx >= job.side) continue;
      const float* relative = shared.relative_key + (dy * job.side + dx) * D;
      float s = shared.relative_bias[dy * job.side + dx];
#pragma unroll
      for (int c = 0; c < D; c += 4) {
        const float4 r = *reinterpret_cast<const float4*>(relative + c);
        const float* k = shared.key + c * kPitch + lane + dx;
        s += query[c] * (k[0] + r.x) + query[c + 1] * (k[kPitch] + r.y) + query[c + 2] * (k[2 * kPitch] + r.z) +
             query[c + 3] * (k[3 * kPitch] + r.w);
      }
      if (column >= 0 && column < job.columns && is_match(s)) {
        score[dx] = s;
        above = max(above, s);
      }
    }
    if (above > greatest) {
      const float shrunk = exp_nonpositive(greatest - above);
      total *= shrunk;
#pragma unroll
      for (int c = 0; c < D; ++c) sum[c] *= shrunk;
      greatest = above;
    }
#pragma unroll
    for (int dx = 0; dx < kMostSide; ++dx) {
      if (dx >= job.side) continue;
      const float share = score[dx] == kNoMatch ? 0.0f : exp_nonpositive(score[dx] - greatest);
      const float* relative = shared.relative_value + (dy * job.side + dx) * D;
      total += share;
#pragma unroll
      for (int c = 0; c < D; c += 4) {
        const float4 r = *reinterpret_cast<const float4*>(relative + c);
        const float* v = shared.value + c * kPitch + lane + dx;
        sum[c] += share * (v[0] + r.x);
        sum[c + 1] += share * (v[kPitch] + r.y);
        sum[c + 2] += share * (v[2 * kPitch] + r.z);
        sum[c + 3] += share * (v[3 * kPitch] + r.w);
      }
    }
  }
  if (!mine) return;
  const float norm = total > 0.0f ? 1.0f / total : 0.0f;
  float* to = of_head(job.readout) + y * job.readout.row + x * job.readout.column;
#pragma unroll
  for (int c = 0; c < D; ++c)
    if (c < job.depth) to[c * job.readout.channel] = norm * sum[c];
}

template <class T>
MapOf<T> map_of(const Span<T, 4>& span) {
  return {span.data, span.stride[0], span.stride[1], span.stride[2], span.stride[3]};
}

}  // namespace

void local_attention_cuda(const LocalAttention& read, const Queue& queue) {
  const LocalShape shape = check_local_attention(read);
  check(shape.side <= kMostSide, "the window is too large for a device");
  check(shape.depth <= D, "a head has too many channels for a device");
  const std::int64_t batch = read.query.size[0], rows = read.query.size[2], columns = read.query.size[3];
  check(batch <= 65535 && shape.heads <= 65535, "more than 65535 passes or heads");
  const Job job{map_of(read.query),
                map_of(read.key),
                map_of(read.value),
                {read.relative_key.data, read.relative_key.stride[0], read.relative_key.stride[1],
                 read.relative_key.stride[2]},
                {read.relative_bias.data, read.relative_bias.stride[0], read.relative_bias.stride[1], 0},
                {read.relative_value.data, read.relative_value.stride[0], read.relative_value.stride[2],
                 read.relative_value.stride[1]},
                map_of(read.readout),
                static_cast<int>(shape.depth),
                static_cast<int>(shape.side),
                static_cast<int>(rows),
                static_cast<int>(columns),
                1.0f / std::sqrt(static_cast<float>(shape.depth))};
  const dim3 grid(blocks_of(rows, kRows) * blocks_of(columns, kColumns), static_cast<unsigned>(shape.heads),
                  static_cast<unsigned>(batch));
  const OnDevice current(queue);
  launch("local_attention", local_attention_kernel, grid, kThreads, sizeof(Shared), queue, job);
}

}  // namespace rotomem
