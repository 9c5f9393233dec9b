// Every kernel's functions for CUDA devices, for the extension and for the emulation that tests them on a CPU.
#pragma once

#include <pybind11/pybind11.h>

namespace rotomem {

void bind_aggregate_cuda(pybind11::module_& module);
void bind_consolidate_cuda(pybind11::module_& module);
void bind_copy_cuda(pybind11::module_& module);
void bind_local_attention_cuda(pybind11::module_& module);
void bind_topk_readout_cuda(pybind11::module_& module);

inline void bind_cuda(pybind11::module_& module) {
  bind_aggregate_cuda(module);
  bind_consolidate_cuda(module);
  bind_copy_cuda(module);
  bind_local_attention_cuda(module);
  bind_topk_readout_cuda(module);
}

}  // namespace rotomem
