// The bindings of the extension over kernels that run on the CPU, and the knobs of the emulation.
#include "cuda_bindings.h"

#include "fibres.h"
#include "mistakes.h"

PYBIND11_MODULE(cuda_on_cpu, module) {
  rotomem::bind_cuda(module);
  module.def("set_order", [](unsigned order) { cuda_on_cpu::order = order; });
  module.def("set_multiprocessors", [](int count) { cuda_on_cpu::multiprocessors = count; });
  module.def("run_mistake", [](const std::string& name, std::uintptr_t from, std::uintptr_t other, std::uintptr_t to) {
    rotomem::run_mistake(name, reinterpret_cast<const void*>(from), reinterpret_cast<const void*>(other),
                         reinterpret_cast<void*>(to));
  });
}
