// What every instruction set provides to the driver in local_attention_cpu.cpp. Internal to this kernel.
#pragma once

#include <cstdint>

namespace rotomem {

// Up to two rows of queries by `lanes` columns of one head, and what they look at. Two rows share 2*reach of their
// 2*reach + 1 rows of keys, so that every key that is loaded serves both.
struct LocalBlock {
  int rows;                     // 1 or 2
  int first, last;              // rows of keys [first, last) inside the map, counted from `reach` above row 0 of queries
  int depth, side;              // D; 2*reach + 1
  const float* query;           // [2, D, lanes]
  const float* key;             // row 0's first key and lane; [rows of keys, D, pitch], already divided by sqrt(D)
  const float* value;           // likewise
  std::int64_t pitch;           // from channel to channel; D * pitch from row to row
  const float* relative_key;    // [side*side, D]
  const float* relative_bias;   // [side*side]
  const float* relative_value;  // [side*side, D]
  const float* outside;         // [side, lanes] -inf where the column lies outside of the map, else 0
  float* weight;                // [2, side*side, lanes] scratch
  float* readout;               // [2, D, lanes]; written
};

struct LocalLoops {
  int lanes;
  void (*read)(const LocalBlock& block);
};

extern const LocalLoops kPortableLocal;
extern const LocalLoops kAvx2Local;
extern const LocalLoops kAvx512Local;

}  // namespace rotomem
