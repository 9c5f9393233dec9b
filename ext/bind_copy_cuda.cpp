#include "copy/copy.h"
#include "cuda_bindings.h"
#include "device_arrays.h"

namespace rotomem {

void bind_copy_cuda(py::module_& module) {
  module.def(
      "copy_cuda",
      [](const py::object& from, const py::object& to, int device, std::uintptr_t stream) {
        copy_cuda(device_span<const float, 1>("source", from), device_span<float, 1>("target", to),
                  queue_of(device, stream));
      },
      py::kw_only(), py::arg("source"), py::arg("target"), py::arg("device"), py::arg("stream"));
}

}  // namespace rotomem
