// What every instruction set provides to the driver in topk_readout_grad_cpu.cpp. Internal to this kernel.
#pragma once

namespace rotomem {

struct GradLoops {
  // sum_c a[c] * b[c]
  float (*product)(const float* a, const float* b, int count);

  // out[c] = sum_j weight[j] * row[j][c] over `rows` rows.
  void (*weigh)(const float* const* row, const float* weight, int rows, int count, float* out);

  // With d = key - query: first[c] += slope * d, and second[c] += slope * d^2 unless second is null.
  void (*query_side)(const float* key, const float* query, float slope, int count, float* first, float* second);

  // With d = key - query and e = trust, or ones where trust is null: out[c] += slope * e * d; returns sum_c e * d^2.
  float (*memory_side)(const float* key, const float* query, const float* trust, float slope, int count, float* out);
};

extern const GradLoops kPortableGrad;
extern const GradLoops kAvx2Grad;

}  // namespace rotomem
