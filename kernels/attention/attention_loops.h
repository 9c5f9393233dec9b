// What every instruction set provides to the driver in attention_cpu.cpp. Internal to this kernel.
#pragma once

#include <cstdint>

namespace rotomem {

struct AttentionLoops {
  int strip;     // queries side by side in one strip; a multiple of `queries`
  int queries;   // that `mix` answers at once
  int channels;  // of values that `mix` sums at once

  // weight[n][i] = 2^(query i . key n - top[i]) for `count` keys and a strip of queries, with top[i] raised to the
  // greatest score first; sum[i] = sum[i] * shrunk[i] + sum_n weight[n][i], shrunk[i] = 2^(top before - top now). The
  // sum is in two numbers: rounded, and what rounding lost.
  void (*compare)(const float* query,   // [CK, strip]
                  const float* key,     // [count, CK], rows `key_row` apart
                  std::int64_t key_row, int count, int key_channels,
                  float* weight,        // [count, strip]
                  float* top,           // [strip]
                  float* sum,           // [2, strip]
                  float* shrunk);       // [strip]

  // out[i][c] += sum_n weight[n][i] * value[n][c] for `queries` of a strip and `channels`.
  void (*mix)(const float* weight,  // of the first query; [count, strip]
              const float* value,   // [count, channels], rows `value_row` apart
              std::int64_t value_row, int count,
              float* out,  // [queries, channels], rows `out_row` apart
              std::int64_t out_row);
};

extern const AttentionLoops kPortableAttention;
extern const AttentionLoops kAvx2Attention;
extern const AttentionLoops kAvx512Attention;

}  // namespace rotomem
