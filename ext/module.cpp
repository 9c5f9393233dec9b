// rotomem._kernels: one bind_<kernel> call per kernel, and what this processor can run.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common/device.h"
#include "common/instructions.h"
#ifdef ROTOMEM_CUDA_BUILD
#include "cuda_bindings.h"
#endif

namespace rotomem {

namespace py = pybind11;

void bind_aggregate(py::module_& module);
void bind_attention(py::module_& module);
void bind_consolidate(py::module_& module);
void bind_copy(py::module_& module);
void bind_forget(py::module_& module);
void bind_local_attention(py::module_& module);
void bind_topk_readout(py::module_& module);
void bind_topk_readout_grad(py::module_& module);

}  // namespace rotomem

PYBIND11_MODULE(_kernels, module) {
  module.doc() = "Native kernels of rotomem; rotomem.ops is the documented way to call them.";
  module.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (rotomem::Instructions one : rotomem::instructions_present())
      names.emplace_back(rotomem::instructions_name(one));
    return names;
  });
  module.def("cuda_status", [] {
    const rotomem::CudaStatus status = rotomem::cuda_status();
    std::vector<std::string> devices;
    for (const rotomem::CudaDevice& one : status.devices)
      devices.push_back(one.name + " (" + std::to_string(one.major) + "." + std::to_string(one.minor) + ")");
    return std::make_pair(devices, status.trouble);
  }, "CUDA devices, \"name (compute capability)\", and why none of them can be used: \"\" where all can.");
  rotomem::bind_aggregate(module);
  rotomem::bind_attention(module);
  rotomem::bind_consolidate(module);
  rotomem::bind_copy(module);
  rotomem::bind_forget(module);
  rotomem::bind_local_attention(module);
  rotomem::bind_topk_readout(module);
  rotomem::bind_topk_readout_grad(module);
#ifdef ROTOMEM_CUDA_BUILD
  rotomem::bind_cuda(module);
#endif
}
