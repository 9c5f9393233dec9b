// Scores of all candidates for every prototype, their softmax, and the mixture of values, each a plain tiled loop in
// float32. For P = 128 prototypes of N = 8,100 candidates (five frames at 480p), CK 64, CV 512, counted: 0.3 GFLOP of
// scores, 1.1 GFLOP and 17 MB of values an object: some 0.1 ms of an H200, once in 25 frames.
#include "consolidate/consolidate_cuda.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "common/launch.cuh"
#include "common/stored.cuh"
#include "common/softmax.h"

namespace rotomem {
namespace {

constexpr int kThreads = 256;
constexpr int kElements = 64, kPrototypes = 32, kEach = 8;  // of a tile of scores; prototypes a thread
constexpr int kChannels = 64, kDeep = 32;                   // of a tile of the mixture; elements at a time
constexpr std::int64_t kPiece = 2048, kMostPieces = 16;     // elements that one block mixes at least; pieces at most

struct Candidates {
  const float* key;
  std::int64_t key_channel, key_element;
  const float* shrinkage;
  std::int64_t shrinkage_element;
  const float* selection;
  std::int64_t selection_channel, selection_element;
  const unsigned char* valid;
  std::int64_t valid_element;
  const std::int64_t* index;
  std::int64_t index_step;
  int channels, made;
  std::int64_t elements;
  float root;  // 1 / sqrt(channels)
};

// Grid [tiles of elements, tiles of prototypes]: score[p, n], which is no match's where there is none.
__global__ void __launch_bounds__(kThreads) score_kernel(Candidates from, float* score) {
  constexpr int part = 32;  // channels at a time
  ROTOMEM_SHARED(shared);
  auto* key = reinterpret_cast<float(*)[part + 1]>(shared);           // [kElements]
  auto* query = reinterpret_cast<float(*)[part]>(key + kElements);    // [kPrototypes]
  auto* select = reinterpret_cast<float(*)[part]>(query + kPrototypes);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kElements;
  const int made = static_cast<int>(blockIdx.y) * kPrototypes;
  const int own = static_cast<int>(threadIdx.x) % kElements, group = static_cast<int>(threadIdx.x) / kElements * kEach;
  float sum[kEach] = {};
  for (int c0 = 0; c0 < from.channels; c0 += part) {
    for (int i = static_cast<int>(threadIdx.x); i < kElements * part; i += kThreads) {
      const std::int64_t n = first + i / part;
      const int c = c0 + i % part;
      key[i / part][i % part] = n < from.elements && c < from.channels
                                    ? from.key[c * from.key_channel + n * from.key_element]
                                    : 0.0f;
    }
    for (int i = static_cast<int>(threadIdx.x); i < kPrototypes * part; i += kThreads) {
      const int p = made + i / part, c = c0 + i % part;
      const bool there = p < from.made && c < from.channels;
      const std::int64_t n = there ? from.index[p * from.index_step] : 0;
      query[i / part][i % part] = there ? from.key[c * from.key_channel + n * from.key_element] : 0.0f;
      select[i / part][i % part] = there ? from.selection[c * from.selection_channel + n * from.selection_element] : 0.0f;
    }
    __syncthreads();
    const int deep = from.channels - c0 < part ? from.channels - c0 : part;
    for (int c = 0; c < deep; ++c)
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const float apart = key[own][c] - query[group + j][c];
        sum[j] += select[group + j][c] * (apart * apart);
      }
    __syncthreads();
  }
  const std::int64_t n = first + own;
  if (n >= from.elements) return;
  const float scale = from.root * from.shrinkage[n * from.shrinkage_element];
  const bool valid = !from.valid || from.valid[n * from.valid_element];
  for (int j = 0; j < kEach; ++j) {
    const float one = -scale * sum[j];
    if (made + group + j < from.made) score[(made + group + j) * from.elements + n] = valid && is_match(one) ? one : kNoMatch;
  }
}

// A number of every thread of the block made one: all get it. `room` has a place for every warp.
template <class Join>
__device__ float over_block(float one, float* room, Join&& join) {
  for (int bits = 16; bits > 0; bits /= 2) one = join(one, __shfl_xor_sync(kAll, one, bits));
  __syncthreads();  // whoever still reads the last one
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = one;
  __syncthreads();
  one = room[0];
  for (int w = 1; w < kThreads / 32; ++w) one = join(one, room[w]);
  return one;
}

// A block a prototype: its scores become weights; its key and its mixed shrinkage.
__global__ void __launch_bounds__(kThreads)
    softmax_kernel(Candidates from, float* score, float* key, std::int64_t key_channel, std::int64_t key_prototype,
                   float* shrinkage, std::int64_t shrinkage_prototype) {
  ROTOMEM_SHARED(shared);
  auto* room = reinterpret_cast<float*>(shared);
  const std::int64_t p = blockIdx.x, n0 = from.index[p * from.index_step];
  const int thread = static_cast<int>(threadIdx.x);
  for (int c = thread; c < from.channels; c += kThreads)
    key[c * key_channel + p * key_prototype] = from.key[c * from.key_channel + n0 * from.key_element];
  float* own = score + p * from.elements;
  float top = kNoMatch;
  for (std::int64_t n = thread; n < from.elements; n += kThreads) top = fmaxf(top, own[n]);
  top = over_block(top, room, [](float a, float b) { return fmaxf(a, b); });
  const auto add = [](float a, float b) { return a + b; };
  float sum = 0.0f, mixed = 0.0f;
  for (std::int64_t n = thread; n < from.elements; n += kThreads) {
    const float share = own[n] > kNoMatch ? exp_nonpositive(own[n] - top) : 0.0f;
    own[n] = share;
    sum += share;
    if (share > 0.0f) mixed += share * from.shrinkage[n * from.shrinkage_element];
  }
  sum = over_block(sum, room, add);
  mixed = over_block(mixed, room, add);
  const float norm = sum > 0.0f ? 1.0f / sum : 0.0f;
  for (std::int64_t n = thread; n < from.elements; n += kThreads) own[n] *= norm;
  if (thread == 0) shrinkage[p * shrinkage_prototype] = mixed * norm;
}

// Grid [tiles of channels, tiles of prototypes, objects * pieces of the elements]: sums of weight * value.
template <class Stored>
__global__ void __launch_bounds__(kThreads)
    mix_kernel(const float* weight, std::int64_t elements, int made, const typename Stored::Type* value,
               std::int64_t value_object, std::int64_t value_element, int depth, std::int64_t piece, int pieces,
               float* part) {
  ROTOMEM_SHARED(shared);
  auto* row = reinterpret_cast<float(*)[kChannels]>(shared);      // [kDeep]
  auto* share = reinterpret_cast<float(*)[kDeep]>(row + kDeep);   // [kPrototypes]
  const int channel = static_cast<int>(blockIdx.x) * kChannels, first = static_cast<int>(blockIdx.y) * kPrototypes;
  const int object = static_cast<int>(blockIdx.z) / pieces, which = static_cast<int>(blockIdx.z) % pieces;
  const int own = static_cast<int>(threadIdx.x) % kChannels, group = static_cast<int>(threadIdx.x) / kChannels * kEach;
  const std::int64_t begin = which * piece, end = begin + piece < elements ? begin + piece : elements;
  const auto* values = value + object * value_object;
  float sum[kEach] = {};
  for (std::int64_t n0 = begin; n0 < end; n0 += kDeep) {
    for (int i = static_cast<int>(threadIdx.x); i < kDeep * kChannels; i += kThreads) {
      const std::int64_t n = n0 + i / kChannels;
      const int c = channel + i % kChannels;
      row[i / kChannels][i % kChannels] = n < end && c < depth ? Stored::value(values[n * value_element + c]) : 0.0f;
    }
    for (int i = static_cast<int>(threadIdx.x); i < kPrototypes * kDeep; i += kThreads) {
      const int p = first + i / kDeep;
      const std::int64_t n = n0 + i % kDeep;
      share[i / kDeep][i % kDeep] = p < made && n < end ? weight[p * elements + n] : 0.0f;
    }
    __syncthreads();
    for (int n = 0; n < kDeep; ++n)
#pragma unroll
      for (int j = 0; j < kEach; ++j) sum[j] += share[group + j][n] * row[n][own];
    __syncthreads();
  }
  if (channel + own >= depth) return;
  float* to = part + ((static_cast<std::int64_t>(which) * gridDim.z / pieces + object) * depth + channel + own) * made;
  for (int j = 0; j < kEach; ++j)
    if (first + group + j < made) to[first + group + j] = sum[j];
}

// A thread a number: adds up the pieces, first to last. rows = O * CV.
__global__ void join_kernel(const float* part, int pieces, std::int64_t rows, int depth, int made, float* value,
                            std::int64_t value_object, std::int64_t value_channel) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows * made) return;
  float sum = 0.0f;
  for (int which = 0; which < pieces; ++which) sum += part[which * rows * made + i];
  const std::int64_t row = i / made;
  value[row / depth * value_object + row % depth * value_channel + i % made] = sum;
}

struct Pieces {
  std::int64_t each;
  int count;
};

Pieces pieces_of(std::int64_t elements) {
  const std::int64_t count = std::min((elements + kPiece - 1) / kPiece, kMostPieces);
  const std::int64_t each = (elements + count - 1) / count;
  return {each, static_cast<int>((elements + each - 1) / each)};
}

struct Scratch {
  float* weight;  // [P, N]
  float* part;    // [pieces, O, CV, P]
};

Scratch scratch_of(const ConsolidateCuda& job, Carver& carver) {
  const std::int64_t made = job.index.size[0], elements = job.key.size[1];
  Scratch scratch;
  scratch.weight = carver.take<float>(made * elements);
  scratch.part = carver.take<float>(pieces_of(elements).count * job.value.size[0] * job.value.size[2] * made);
  return scratch;
}

void check_job(const ConsolidateCuda& job) {
  const std::int64_t channels = job.key.size[0], elements = job.key.size[1], made = job.index.size[0];
  check(channels > 0 && elements > 0, "there are no candidates");
  check(made <= 65535, "more than 65,535 prototypes");
  check_size("shrinkage N", job.shrinkage.size[0], elements);
  check_size("selection CK", job.selection.size[0], channels);
  check_size("selection N", job.selection.size[1], elements);
  check_size("value N", job.value.size[1], elements);
  check(job.value.size[0] * kMostPieces <= 65535, "more than 4,095 objects");
  check(job.value.size[2] <= 1 || job.value.size[0] == 0 || job.value.stride[2] == 1, "value channels are not contiguous");
  if (job.valid) check_size("valid N", job.valid.size[0], elements);
  check_size("prototype_key CK", job.prototype_key.size[0], channels);
  check_size("prototype_key P", job.prototype_key.size[1], made);
  check_size("prototype_shrinkage P", job.prototype_shrinkage.size[0], made);
  check_size("prototype_value O", job.prototype_value.size[0], job.value.size[0]);
  check_size("prototype_value CV", job.prototype_value.size[1], job.value.size[2]);
  check_size("prototype_value P", job.prototype_value.size[2], made);
  check(made <= 1 || job.value.size[0] == 0 || job.prototype_value.stride[2] == 1, "prototypes are not contiguous");
}

}  // namespace

std::size_t consolidate_scratch(const ConsolidateCuda& job) {
  check_job(job);
  Carver counter(nullptr);
  scratch_of(job, counter);
  return counter.used();
}

void consolidate_cuda(const ConsolidateCuda& job, const Queue& queue) {
  check_job(job);
  Carver carver(job.scratch);
  const Scratch scratch = scratch_of(job, carver);
  check(job.scratch_bytes >= carver.used() && (job.scratch || carver.used() == 0), "too little scratch");
  check(reinterpret_cast<std::uintptr_t>(job.scratch) % 16 == 0, "scratch is not aligned to 16 bytes");
  const OnDevice current(queue);
  const std::int64_t elements = job.key.size[1], objects = job.value.size[0];
  const int made = static_cast<int>(job.index.size[0]), depth = static_cast<int>(job.value.size[2]);
  const Candidates from = {job.key.data,
                           job.key.stride[0],
                           job.key.stride[1],
                           job.shrinkage.data,
                           job.shrinkage.stride[0],
                           job.selection.data,
                           job.selection.stride[0],
                           job.selection.stride[1],
                           job.valid.data,
                           job.valid.stride[0],
                           job.index.data,
                           job.index.stride[0],
                           static_cast<int>(job.key.size[0]),
                           made,
                           elements,
                           1.0f / std::sqrt(static_cast<float>(job.key.size[0]))};
  launch("scoring candidates", score_kernel, dim3(blocks_of(elements, kElements), blocks_of(made, kPrototypes)), kThreads,
         sizeof(float) * (kElements * 33 + 2 * kPrototypes * 32), queue, from, scratch.weight);
  launch("weighing candidates", softmax_kernel, static_cast<unsigned>(made), kThreads, sizeof(float) * kThreads / 32, queue,
         from, scratch.weight, job.prototype_key.data, job.prototype_key.stride[0], job.prototype_key.stride[1],
         job.prototype_shrinkage.data, job.prototype_shrinkage.stride[0]);
  const Pieces pieces = pieces_of(elements);
  const dim3 grid(blocks_of(depth, kChannels), blocks_of(made, kPrototypes),
                  static_cast<unsigned>(objects * pieces.count));
  for_stored(job.value.type, [&](auto stored) {
    using Stored = decltype(stored);
    launch("mixing values", mix_kernel<Stored>, grid, kThreads, sizeof(float) * (kDeep * kChannels + kPrototypes * kDeep),
           queue, scratch.weight, elements, made, static_cast<const typename Stored::Type*>(job.value.data),
           job.value.stride[0], job.value.stride[1], depth, pieces.each, pieces.count, scratch.part);
  });
  launch("adding up values", join_kernel, blocks_of(objects * depth * made, kThreads), kThreads, 0, queue, scratch.part,
         pieces.count, objects * depth, depth, made, job.prototype_value.data, job.prototype_value.stride[0],
         job.prototype_value.stride[1]);
}

}  // namespace rotomem
