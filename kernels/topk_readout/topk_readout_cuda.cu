// Reading on a device, exact although almost all of its arithmetic is in float16. Let F(n, p) be the similarity in
// float32, A(n, p) what tensor cores make of it in float16, and m(n, p) a bound of their difference.
//
//   pack     keys and queries in float16, and how much that lost; a query's square of its own
//   bound    some of the memory: the greatest A - m of every group of elements. k groups whose greatest is at least t
//            hold k elements whose F is at least t, so that the k-th greatest of the groups' greatest is a threshold
//            which the k-th greatest F cannot be below. Groups take every 32nd element: neighbours resemble each
//            other, and if they shared a group, few groups would have something to show.
//   collect  all of the memory: every n whose A + m is not below the threshold goes to its query's list
//   choose   F of all on the list, the best k of them, their softmax. Where a list overflowed, F of all elements:
//            slow, exact, and rare (bounds are loose where keys lie far apart, and flat pictures have many like keys)
//   gather   the weighted sums of the values
//
// Small memories and wide keys are not worth the first three steps: their lists count as overflown.
//
// Counted, not measured, for XMem's sizes (CK 64, CV 512, one object, k 30; a quarter of the memory bounds; lists of 160
// a query, as keys of a 480p shot gave), against an H200's 990 TFLOP/s in float16 and 4.8 TB/s:
//
//               N        P       products        bytes through device memory   least time
//   480p        26,200    1,620   13.6 GFLOP      0.08 GB                       16 us   memory
//   1080p       40,000    8,160   104 GFLOP       0.13 GB                       105 us  products
//   4K         345,600   34,560   3.82 TFLOP      1.1 GB                        3.9 ms  products
//
// products = 2 * 2 CK * N * P * 1.25; bytes: keys and values once, 272 a packed element, 2 KiB a query of readout. mma.sync
// reaches about 60 % of a Hopper's peak (the rest is wgmma's), so that twice these times would be a good result.
#include "topk_readout/topk_readout_cuda.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "common/check.h"
#include "common/launch.cuh"
#include "common/ptx.cuh"
#include "common/stored.cuh"
#include "topk_readout/topk_readout_math.h"

namespace rotomem {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A block multiplies kBlockQueries queries, kWarpQueries a warp, by tiles of kTile elements that its warps share.
constexpr int kWarps = 8, kWarpQueries = 32, kBlockQueries = kWarps * kWarpQueries, kTile = 64;
constexpr int kGroups = 32;        // groups of elements that one block keeps apart
constexpr int kSample = 4;         // one tile of so many bounds
constexpr int kChooseWarps = 4;    // queries that a block of `choose` answers
constexpr int kGatherQueries = 32, kGatherChannels = 128;

// Beside what rounding to float16 loses, which is measured: sums of up to 128 products in the tensor cores' float32, and
// the squares' own rounding. Generous, since both are small against the first.
constexpr float kSumLoss = 1.0f / 32768.0f, kSquareLoss = 1.0f / 16384.0f;
// Keeps norms of zeros, and of what is too small for float16, from multiplying infinities to NaN.
constexpr float kLeastNorm = 1e-30f;

// What a packed element counts for. With a query's numbers, A = scale * (product - square), and m is
// loss * norm + size * rest + least * square, all of them already multiplied by |scale|.
struct alignas(16) Element {
  float scale;  // NaN where there is no element
  float loss;  // |x - half(x)|, plus what sums lose on |x|
  float size;  // |half(x)|
  float least;
};

struct alignas(16) Position {
  float square;  // of the query, weighted by its selection
  float norm;    // |y|
  float rest;    // |y - half(y)|
  float threshold;
};

// How one read is cut up.
struct Plan {
  bool coarse;  // whether tensor cores look first
  int width;    // numbers of a packed row: 64 or 128
  std::int64_t elements, positions;  // padded
  std::int64_t tiles, each;          // tiles of elements; how many one block takes
  int splits, groups;                // blocks that share the elements; groups of all of them
  int k, room, list;                 // chosen; sorted at once; elements on a list
};

struct Scratch {
  float* origin;            // [CK]
  std::uint16_t* key;       // [elements, width] float16
  Element* element;         // [elements]
  std::uint16_t* query;     // [positions, width] float16
  Position* position;       // [positions]
  float* bound;             // [P, groups]
  int* listed;              // [P]
  std::int32_t* list;       // [P, list]
  std::int32_t* index;      // [P, k]
  float* weight;            // [P, k]
  unsigned long long* use;  // [N]
};

Plan plan_of(const TopkReadoutCuda& read, int device) {
  const std::int64_t channels = read.key.size[0], elements = read.key.size[1], positions = read.query_key.size[1];
  const std::int64_t used = read.similarity == Similarity::dot ? channels : 2 * channels;
  Plan plan = {};
  plan.k = static_cast<int>(std::min<std::int64_t>(read.top_k, elements));
  plan.room = 128;
  while (plan.room < plan.k + 96) plan.room *= 2;
  plan.list = std::min(32 * plan.k + 64, 4096);
  plan.width = used <= 64 ? 64 : 128;
  plan.elements = (elements + kTile - 1) / kTile * kTile;
  plan.positions = (positions + kBlockQueries - 1) / kBlockQueries * kBlockQueries;
  plan.tiles = plan.elements / kTile;
  int multiprocessors = 0;
  cuda_check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "looking at the device");
  // Enough groups that k of them show something, where there are eight tiles for each; and as many splits more as keep
  // multiprocessors from waiting for the last block. Registers leave each room for one.
  const std::int64_t blocks = std::max<std::int64_t>(plan.positions / kBlockQueries, 1);
  const std::int64_t most = std::max<std::int64_t>(plan.tiles / 8, 1);
  std::int64_t splits = std::min<std::int64_t>((4 * plan.k + kGroups - 1) / kGroups, most);
  const auto rounds = [&](std::int64_t some) { return (blocks * some + multiprocessors - 1) / multiprocessors; };
  for (std::int64_t more = splits + 1; more <= std::min<std::int64_t>(most, multiprocessors); ++more)
    if (rounds(more) * splits * 10 < rounds(splits) * more * 9) splits = more;  // worth it from 10 % less time
  plan.each = (plan.tiles + splits - 1) / splits;
  plan.splits = static_cast<int>((plan.tiles + plan.each - 1) / plan.each);
  plan.groups = kGroups * plan.splits;
  plan.coarse = used <= 128 && plan.groups >= 2 * plan.k && elements > plan.list;
  return plan;
}

Scratch scratch_of(const TopkReadoutCuda& read, const Plan& plan, Carver& carver) {
  const std::int64_t positions = read.query_key.size[1];
  Scratch scratch = {};
  scratch.origin = carver.take<float>(read.key.size[0]);
  if (plan.coarse) {
    scratch.key = carver.take<std::uint16_t>(plan.elements * plan.width);
    scratch.element = carver.take<Element>(plan.elements);
    scratch.query = carver.take<std::uint16_t>(plan.positions * plan.width);
    scratch.position = carver.take<Position>(plan.positions);
    scratch.bound = carver.take<float>(positions * plan.groups);
    scratch.listed = carver.take<int>(positions);
    scratch.list = carver.take<std::int32_t>(positions * plan.list);
  }
  scratch.index = read.index ? read.index.data : carver.take<std::int32_t>(positions * plan.k);
  scratch.weight = read.weight ? read.weight.data : carver.take<float>(positions * plan.k);
  if (read.usage) scratch.use = carver.take<unsigned long long>(read.key.size[1]);
  return scratch;
}

// What kernels are told of the arguments.
struct Keys {
  const float* key;
  std::int64_t key_channel, key_element;  // strides
  const float* query;
  std::int64_t query_channel, query_position;
  const float* shrinkage;
  std::int64_t shrinkage_element;
  const float* selection;
  std::int64_t selection_channel, selection_position;
  const unsigned char* valid;
  std::int64_t valid_element;
  int channels;
  std::int64_t elements, positions;
  bool squares;   // of differences; otherwise a product
  bool relative;  // the query's own square, which then all its scores have in common, is left out with its rounding
  float root;     // 1 / sqrt(channels)

  __device__ float scale_of(std::int64_t n) const { return shrinkage ? root * shrinkage[n * shrinkage_element] : root; }
  __device__ bool valid_at(std::int64_t n) const { return !valid || valid[n * valid_element]; }
};

// The half nearest to x, or the greatest one; NaN stays.
__device__ std::uint16_t packed_half(float x) {
  constexpr float most = 65504.0f;
  return half_bits(x > most ? most : x < -most ? -most : x);
}

// Squares of what a row of numbers is, of what halves make of it, and of the difference.
struct Norms {
  float whole = 0.0f, half = 0.0f, loss = 0.0f;

  __device__ std::uint16_t add(float x) {
    const std::uint16_t bits = packed_half(x);
    const float kept = half_value(bits);
    whole += x * x;
    half += kept * kept;
    loss += (x - kept) * (x - kept);
    return bits;
  }
  __device__ void over_warp() {
    whole = sqrtf(warp_sum(whole)) + kLeastNorm;
    half = sqrtf(warp_sum(half)) + kLeastNorm;
    loss = sqrtf(warp_sum(loss)) + kLeastNorm;
  }
};

// origin[c]: the middle one of 32 elements' keys, where most of the memory lies; a warp a channel, a lane an element.
__global__ void origin_kernel(Keys keys, float* origin) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int c = static_cast<int>(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  if (c >= keys.channels) return;
  const float k = keys.key[c * keys.key_channel + lane * keys.elements / 32 * keys.key_element];
  const bool counts = keys.squares && is_match(k);
  const unsigned counted = __ballot_sync(kAll, counts);
  int below = 0;
  for (int i = 0; i < 32; ++i) {
    const float other = __shfl_sync(kAll, k, i);
    below += (counted >> i & 1) && (other < k || (other == k && i < lane));
  }
  if (counts && below == __popc(counted) / 2) origin[c] = k;
  if (!counted && lane == 0) origin[c] = 0.0f;
}

// A warp an element. Rows are [k, k^2], or [k] alone for products, k being moved by the origin; the rest is zeros.
__global__ void pack_keys_kernel(Keys keys, const float* origin, int width, std::int64_t padded, std::uint16_t* packed,
                                 Element* element) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (n >= padded) return;
  const bool there = n < keys.elements && keys.valid_at(n);
  const int half = keys.squares ? width / 2 : width;
  std::uint16_t* row = packed + n * width;
  Norms norms;
  for (int c = lane; c < half; c += 32) {
    const bool some = there && c < keys.channels;
    const float k = some ? keys.key[c * keys.key_channel + n * keys.key_element] - origin[c] : 0.0f;
    row[c] = norms.add(k);
    if (keys.squares) row[half + c] = norms.add(k * k);
  }
  norms.over_warp();
  if (lane) return;
  const float scale = there ? keys.scale_of(n) : NAN, size = fabsf(scale);
  element[n] = {scale, size * (norms.loss + kSumLoss * norms.whole), size * norms.half, size * kSquareLoss};
}

// A warp a query. Rows are [2 e q, -e], or [q] alone.
__global__ void pack_queries_kernel(Keys keys, const float* origin, int width, std::int64_t padded,
                                    std::uint16_t* packed, Position* position) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t p = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (p >= padded) return;
  const int half = keys.squares ? width / 2 : width;
  std::uint16_t* row = packed + p * width;
  Norms norms;
  float square = 0.0f;
  for (int c = lane; c < half; c += 32) {
    const bool some = p < keys.positions && c < keys.channels;
    const float q = some ? keys.query[c * keys.query_channel + p * keys.query_position] - origin[c] : 0.0f;
    const float e =
        some && keys.selection ? keys.selection[c * keys.selection_channel + p * keys.selection_position] : 1.0f;
    row[c] = norms.add(keys.squares ? 2.0f * e * q : q);
    if (keys.squares) {
      row[half + c] = norms.add(some ? -e : 0.0f);
      square += e * q * q;
    }
  }
  norms.over_warp();
  square = warp_sum(square);
  if (lane == 0) position[p] = {square, norms.whole, norms.loss, kInfinity};
}

// A tile of the packed memory as a block shares it. Rows lie 16 words more than their length apart: eight lanes that
// read 16 bytes each at once meet all 32 banks.
template <int kWidth>
struct alignas(16) Tile {
  static constexpr int kPitch = kWidth / 2 + 16;  // words
  std::uint32_t row[kTile][kPitch];
  Element element[kTile];
};

template <int kWidth>
__device__ void load_tile(Tile<kWidth>& tile, const std::uint16_t* key, const Element* element, std::int64_t first) {
  constexpr int pieces = kWidth / 8;  // of 16 bytes a row
  for (int i = static_cast<int>(threadIdx.x); i < kTile * pieces; i += 32 * kWarps)
    copy_async16(&tile.row[i / pieces][i % pieces * 4], key + (first + i / pieces) * kWidth + i % pieces * 8);
  for (int i = static_cast<int>(threadIdx.x); i < kTile; i += 32 * kWarps)
    copy_async16(&tile.element[i], element + first + i);
}

// bound and collect: queries times elements. Grid [splits, blocks of queries].
//
// A product of 16 queries by 8 elements sums over 16 channels. Which 16 makes no difference as long as both sides
// agree: a lane reads 8 neighbouring channels of a row, 16 bytes, and gives 4 of them to one product, 4 to the next.
template <int kWidth, bool kCollect>
__global__ void __launch_bounds__(32 * kWarps)
    multiply_kernel(const std::uint16_t* key, const Element* element, const std::uint16_t* query,
                    const Position* position, std::int64_t elements, std::int64_t positions, std::int64_t tiles,
                    std::int64_t each, int groups, float* bound, int* listed, std::int32_t* list, int room) {
  constexpr int blocks = kWidth / 32;  // of channels
  constexpr int step = kCollect ? 1 : kSample;
  ROTOMEM_SHARED(shared);
  auto* tile = reinterpret_cast<Tile<kWidth>*>(shared);  // two: one is filled while the other is used
  const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kBlockQueries + threadIdx.x / 32 * kWarpQueries;

  // The lane's part of 32 queries: rows g, g + 8 of the first 16, and of the second.
  uint4 a[4][blocks];
  Position own[4];
  for (int r = 0; r < 4; ++r) {
    const std::int64_t p = first + g + 8 * r;
    for (int b = 0; b < blocks; ++b) a[r][b] = reinterpret_cast<const uint4*>(query + p * kWidth)[4 * b + t];
    own[r] = position[p];
  }
  float best[4][8];
  for (int r = 0; r < 4; ++r)
    for (int j = 0; j < 8; ++j) best[r][j] = kNoMatch;

  const std::int64_t begin = blockIdx.x * each, end = begin + each < tiles ? begin + each : tiles;
  load_tile(tile[0], key, element, begin * kTile);
  copies_commit();
  int now = 0;
  for (std::int64_t i = begin; i < end; i += step, now ^= 1) {
    if (i + step < end) load_tile(tile[now ^ 1], key, element, (i + step) * kTile);
    copies_commit();
    copies_wait<1>();
    __syncthreads();
    for (int half = 0; half < kTile && first < positions; half += 32) {
      float sum[2][4][4] = {};
#pragma unroll
      for (int b = 0; b < blocks; ++b)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint4 k = *reinterpret_cast<const uint4*>(&tile[now].row[half + 8 * j + g][16 * b + 4 * t]);
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            const uint4 low = a[2 * m][b], high = a[2 * m + 1][b];
            mma_f16(sum[m][j], {low.x, high.x, low.y, high.y}, {k.x, k.y});
            mma_f16(sum[m][j], {low.z, high.z, low.w, high.w}, {k.z, k.w});
          }
        }
      unsigned hits = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int one = 0; one < 2; ++one) {
          const Element e = tile[now].element[half + 8 * j + 2 * t + one];
          const bool there = e.scale == e.scale;
#pragma unroll
          for (int r = 0; r < 4; ++r) {
            const float score = e.scale * (sum[r / 2][j][r % 2 * 2 + one] - own[r].square);
            const float margin = e.loss * own[r].norm + (e.size * own[r].rest + e.least * own[r].square);
            if (kCollect)  // what became NaN on the way is looked at again, too
              hits |= static_cast<unsigned>(there && !(score + margin < own[r].threshold)) << (8 * j + 4 * one + r);
            else
              best[r][2 * j + one] = fmaxf(best[r][2 * j + one], score - margin);
          }
        }
      for (; hits; hits &= hits - 1) {
        const int bit = __ffs(static_cast<int>(hits)) - 1, r = bit % 4;
        const std::int64_t n = i * kTile + half + bit / 8 * 8 + 2 * t + bit / 4 % 2, p = first + g + 8 * r;
        if (n >= elements || p >= positions) continue;
        const int place = atomicAdd(listed + p, 1);
        if (place < room) list[p * room + place] = static_cast<std::int32_t>(n);
      }
      if (kCollect) __syncwarp();  // lanes had more hits or fewer, and the next product wants all of them at once
    }
    __syncthreads();
  }
  copies_wait<0>();
  if constexpr (!kCollect)
    for (int r = 0; r < 4; ++r)
      for (int j = 0; j < 8; ++j)
        if (first + g + 8 * r < positions)
          bound[(first + g + 8 * r) * groups + blockIdx.x * kGroups + j / 2 * 8 + 2 * t + j % 2] = best[r][j];
}

// A warp a query: the k-th greatest of its groups' bounds, found bit by bit.
__global__ void threshold_kernel(const float* bound, int groups, int k, std::int64_t positions, Position* position,
                                 int* listed) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t p = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (p >= positions) return;
  std::uint32_t found = 0;
  for (std::uint32_t bit = 1u << 31; bit; bit >>= 1) {
    int count = 0;
    for (int i = lane; i < groups; i += 32)
      count += __popc(__ballot_sync(kAll, ordered(bound[p * groups + i]) >= (found | bit)));
    if (count >= k) found |= bit;
  }
  if (lane) return;
  const float threshold = from_ordered(found);
  position[p].threshold = is_match(threshold) ? threshold : kNoMatch;
  listed[p] = 0;
}

// One warp's candidates: sorts `size` (a power of two) of them, greatest first.
__device__ void sort_candidates(std::uint64_t* one, int size, int lane) {
  for (int run = 2; run <= size; run *= 2)
    for (int apart = run / 2; apart > 0; apart /= 2) {
      __syncwarp();
      for (int i = lane; i < size / 2; i += 32) {
        const int a = 2 * i - (i & (apart - 1)), b = a + apart;
        const std::uint64_t left = one[a], right = one[b];
        if ((left < right) == ((a & run) == 0)) {
          one[a] = right;
          one[b] = left;
        }
      }
    }
  __syncwarp();
}

// A warp a query: the best k of its list, or of all elements where there is none or it overflowed. Eight lanes score
// one element.
__global__ void choose_kernel(Keys keys, const float* origin, const int* listed, const std::int32_t* list, int list_room, int k, int room,
                              std::int32_t* index, float* weight, unsigned long long* use) {
  ROTOMEM_SHARED(shared);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const std::int64_t p = static_cast<std::int64_t>(blockIdx.x) * kChooseWarps + warp;
  if (p >= keys.positions) return;
  auto* best = reinterpret_cast<std::uint64_t*>(shared) + warp * room;
  auto* query = reinterpret_cast<float*>(shared + kChooseWarps * room * sizeof(std::uint64_t)) + warp * 2 * keys.channels;
  float* select = query + keys.channels;
  for (int c = lane; c < keys.channels; c += 32) {
    const float q = keys.query[c * keys.query_channel + p * keys.query_position];
    query[c] = keys.relative ? 2.0f * (q - origin[c]) : q;
    select[c] = keys.selection ? keys.selection[c * keys.selection_channel + p * keys.selection_position] : 1.0f;
  }
  __syncwarp();

  const bool from_list = list && listed[p] <= list_room;
  const std::int64_t count = from_list ? listed[p] : keys.elements;
  int held = 0;
  std::uint64_t worst = 0;  // of the best k; no candidate is 0
  const auto tighten = [&] {
    int size = 32;
    while (size < held) size *= 2;
    for (int i = held + lane; i < size; i += 32) best[i] = 0;
    sort_candidates(best, size, lane);
    held = held < k ? held : k;
    worst = held == k ? best[k - 1] : 0;
  };
  for (std::int64_t i = 0; i < count; i += 4) {
    const std::int64_t at = i + lane / 8;
    const std::int64_t n = at >= count ? 0 : from_list ? list[p * list_room + at] : at;
    const float* row = keys.key + n * keys.key_element;
    float score = 0.0f;
    for (int c = lane % 8; c < keys.channels; c += 8) {
      const float one = row[c * keys.key_channel];
      if (keys.relative) {
        const float moved = one - origin[c];
        score += select[c] * (moved * (query[c] - moved));
      } else if (keys.squares) {
        const float apart = one - query[c];
        score -= select[c] * (apart * apart);
      } else {
        score += one * query[c];
      }
    }
    for (int bits = 4; bits > 0; bits /= 2) score += __shfl_xor_sync(kAll, score, bits);
    score *= keys.scale_of(n);
    const bool match = lane % 8 == 0 && at < count && is_match(score) && keys.valid_at(n);
    const std::uint64_t mine = match ? candidate(score, static_cast<std::uint32_t>(n)) : 0;
    const unsigned takers = __ballot_sync(kAll, mine > worst);
    if (mine > worst) best[held + __popc(takers & ((1u << lane) - 1))] = mine;
    held += __popc(takers);
    if (held + 4 > room) tighten();
  }
  tighten();

  float sum = 0.0f;
  const float top = held ? candidate_similarity(best[0]) : 0.0f;
  for (int j = lane; j < held; j += 32) sum += exp_nonpositive(candidate_similarity(best[j]) - top);
  sum = warp_sum(sum);
  for (int j = lane; j < k; j += 32) {
    const bool some = j < held;
    const float share = some ? exp_nonpositive(candidate_similarity(best[j]) - top) / sum : 0.0f;
    const std::uint32_t n = some ? candidate_element(best[j]) : 0;
    index[p * k + j] = some ? static_cast<std::int32_t>(n) : -1;
    weight[p * k + j] = share;
    if (use && some) atomicAdd(use + n, static_cast<unsigned long long>(llrintf(share * static_cast<float>(kUsageOne))));
  }
}

__global__ void usage_kernel(const unsigned long long* use, std::int64_t elements, float* usage) {
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n < elements) usage[n] = static_cast<float>(static_cast<double>(use[n]) / kUsageOne);
}

// Grid [blocks of queries, blocks of channels, objects]. A warp takes a query at a time, a lane every 32nd channel, so
// that rows of values are read whole; shared memory turns what it sums, so that rows of the readout are written whole.
template <class Stored>
__global__ void __launch_bounds__(256)
    gather_kernel(const std::int32_t* index, const float* weight, int k, const typename Stored::Type* value,
                  std::int64_t value_object, std::int64_t value_element, int depth, float* readout,
                  std::int64_t readout_object, std::int64_t readout_channel, std::int64_t positions) {
  constexpr int parts = kGatherChannels / 32;
  ROTOMEM_SHARED(shared);
  auto* turned = reinterpret_cast<float(*)[kGatherQueries + 1]>(shared);  // [kGatherChannels]
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kGatherQueries;
  const int channel = static_cast<int>(blockIdx.y) * kGatherChannels;
  const auto* values = value + blockIdx.z * value_object + channel;
  for (int q = warp; q < kGatherQueries; q += 8) {
    float sum[parts] = {};
    const std::int64_t p = first + q;
    for (int from = 0; from < k && p < positions; from += 32) {
      const std::int32_t mine = from + lane < k ? index[p * k + from + lane] : -1;
      const float share = from + lane < k ? weight[p * k + from + lane] : 0.0f;
      const int many = __popc(__ballot_sync(kAll, mine >= 0));  // those that are there come first
#pragma unroll 4
      for (int j = 0; j < many; ++j) {
        const auto* row = values + __shfl_sync(kAll, mine, j) * value_element;
        const float by = __shfl_sync(kAll, share, j);
#pragma unroll
        for (int i = 0; i < parts; ++i)
          if (channel + lane + 32 * i < depth) sum[i] += by * Stored::value(row[lane + 32 * i]);
      }
    }
#pragma unroll
    for (int i = 0; i < parts; ++i) turned[lane + 32 * i][q] = sum[i];
  }
  __syncthreads();
  const std::int64_t p = first + lane;
  for (int c = warp; c < kGatherChannels && channel + c < depth; c += 8)
    if (p < positions) readout[blockIdx.z * readout_object + (channel + c) * readout_channel + p] = turned[c][lane];
}

template <int kWidth>
void look_coarsely(const Plan& plan, const Keys& keys, const Scratch& scratch, const Queue& queue) {
  const dim3 grid(static_cast<unsigned>(plan.splits), static_cast<unsigned>(plan.positions / kBlockQueries));
  constexpr std::size_t shared = 2 * sizeof(Tile<kWidth>);
  const auto multiply = [&](const char* name, auto kernel) {
    launch(name, kernel, grid, 32 * kWarps, shared, queue, scratch.key, scratch.element, scratch.query,
           scratch.position, keys.elements, keys.positions, plan.tiles, plan.each, plan.groups, scratch.bound,
           scratch.listed, scratch.list, plan.list);
  };
  multiply("bounding similarities", multiply_kernel<kWidth, false>);
  launch("finding thresholds", threshold_kernel, blocks_of(keys.positions, 4), 128, 0, queue, scratch.bound,
         plan.groups, plan.k, keys.positions, scratch.position, scratch.listed);
  multiply("collecting candidates", multiply_kernel<kWidth, true>);
}

template <class Stored>
void gather(const TopkReadoutCuda& read, const Plan& plan, const Scratch& scratch, const Queue& queue) {
  const std::int64_t positions = read.query_key.size[1];
  const dim3 grid(blocks_of(positions, kGatherQueries), blocks_of(read.value.size[2], kGatherChannels),
                  static_cast<unsigned>(read.value.size[0]));
  launch("gathering values", gather_kernel<Stored>, grid, 256,
         sizeof(float) * kGatherChannels * (kGatherQueries + 1), queue, scratch.index, scratch.weight, plan.k,
         static_cast<const typename Stored::Type*>(read.value.data), read.value.stride[0], read.value.stride[1],
         static_cast<int>(read.value.size[2]), read.readout.data, read.readout.stride[0], read.readout.stride[1],
         positions);
}

void check_read(const TopkReadoutCuda& read) {
  const std::int64_t channels = read.key.size[0], elements = read.key.size[1], positions = read.query_key.size[1];
  check(channels > 0 && channels <= kMostKeyChannels, "keys have no channels, or more than 512");
  check(elements > 0, "the memory holds no elements");
  check(elements < (std::int64_t{1} << 31), "more than 2^31 memory elements");
  check(positions <= 65535 * kBlockQueries, "more than 16.7 million queries");
  check(read.top_k > 0 && read.top_k <= kMostTopk, "top_k is not in 1 to 512");
  check_size("query_key CK", read.query_key.size[0], channels);
  check_size("value N", read.value.size[1], elements);
  check(read.value.size[0] <= 65535, "more than 65,535 objects");
  check(read.value.size[2] <= 1 || read.value.size[0] == 0 || read.value.stride[2] == 1, "value channels are not contiguous");
  if (read.shrinkage) check_size("shrinkage N", read.shrinkage.size[0], elements);
  if (read.selection) {
    check_size("selection CK", read.selection.size[0], channels);
    check_size("selection P", read.selection.size[1], positions);
  }
  check(read.similarity == Similarity::anisotropic_l2 || (!read.shrinkage && !read.selection),
        "shrinkage and selection belong to anisotropic_l2");
  if (read.valid) check_size("valid N", read.valid.size[0], elements);
  check_size("readout O", read.readout.size[0], read.value.size[0]);
  check_size("readout CV", read.readout.size[1], read.value.size[2]);
  check_size("readout P", read.readout.size[2], positions);
  check(positions <= 1 || read.readout.size[0] == 0 || read.readout.stride[2] == 1, "readout positions are not contiguous");
  if (read.usage) {
    check_size("usage N", read.usage.size[0], elements);
    check(elements <= 1 || read.usage.stride[0] == 1, "usage is not contiguous");
  }
  check(static_cast<bool>(read.index) == static_cast<bool>(read.weight), "index without weight, or weight without");
  if (read.index) {
    const std::int64_t k = std::min<std::int64_t>(read.top_k, elements);
    for (const auto& [size, stride] : {std::pair(read.index.size, read.index.stride),
                                       std::pair(read.weight.size, read.weight.stride)}) {
      check_size("index or weight P", size[0], positions);
      check_size("index or weight k", size[1], k);
      check((k <= 1 || stride[1] == 1) && (positions <= 1 || stride[0] == k), "index or weight is not contiguous");
    }
  }
}

}  // namespace

std::size_t topk_readout_scratch(const TopkReadoutCuda& read, int device) {
  check_read(read);
  Carver counter(nullptr);
  scratch_of(read, plan_of(read, device), counter);
  return counter.used();
}

void topk_readout_cuda(const TopkReadoutCuda& read, const Queue& queue) {
  check_read(read);
  const OnDevice current(queue);
  const std::int64_t elements = read.key.size[1], positions = read.query_key.size[1];
  const Plan plan = plan_of(read, queue.device);
  Carver carver(read.scratch);
  const Scratch scratch = scratch_of(read, plan, carver);
  check(read.scratch_bytes >= carver.used() && (read.scratch || carver.used() == 0), "too little scratch");
  check(reinterpret_cast<std::uintptr_t>(read.scratch) % 16 == 0, "scratch is not aligned to 16 bytes");

  const Keys keys = {read.key.data,
                     read.key.stride[0],
                     read.key.stride[1],
                     read.query_key.data,
                     read.query_key.stride[0],
                     read.query_key.stride[1],
                     read.shrinkage.data,
                     read.shrinkage.stride[0],
                     read.selection.data,
                     read.selection.stride[0],
                     read.selection.stride[1],
                     read.valid.data,
                     read.valid.stride[0],
                     static_cast<int>(read.key.size[0]),
                     elements,
                     positions,
                     read.similarity != Similarity::dot,
                     read.similarity != Similarity::dot && !read.shrinkage,
                     1.0f / std::sqrt(static_cast<float>(read.key.size[0]))};
  if (read.usage)
    cuda_check(cudaMemsetAsync(scratch.use, 0, static_cast<std::size_t>(elements) * sizeof *scratch.use,
                               static_cast<cudaStream_t>(queue.stream)),
               "clearing usage");
  launch("finding an origin", origin_kernel, blocks_of(keys.channels, 8), 256, 0, queue, keys, scratch.origin);
  if (plan.coarse) {
    launch("packing keys", pack_keys_kernel, blocks_of(plan.elements, 8), 256, 0, queue, keys, scratch.origin, plan.width,
           plan.elements, scratch.key, scratch.element);
    launch("packing queries", pack_queries_kernel, blocks_of(plan.positions, 8), 256, 0, queue, keys, scratch.origin,
           plan.width, plan.positions, scratch.query, scratch.position);
    if (plan.width == 64)
      look_coarsely<64>(plan, keys, scratch, queue);
    else
      look_coarsely<128>(plan, keys, scratch, queue);
  }
  const std::size_t shared = kChooseWarps * (static_cast<std::size_t>(plan.room) * sizeof(std::uint64_t) +
                                             2 * static_cast<std::size_t>(keys.channels) * sizeof(float));
  launch("choosing elements", choose_kernel, blocks_of(positions, kChooseWarps), 32 * kChooseWarps, shared, queue, keys,
         scratch.origin, scratch.listed, scratch.list, plan.list, plan.k, plan.room, scratch.index, scratch.weight, scratch.use);
  if (read.usage)
    launch("writing usage", usage_kernel, blocks_of(elements, 256), 256, 0, queue, scratch.use, elements,
           read.usage.data);
  for_stored(read.value.type, [&](auto stored) { gather<decltype(stored)>(read, plan, scratch, queue); });
}

}  // namespace rotomem
