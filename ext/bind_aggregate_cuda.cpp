#include "aggregate/aggregate.h"
#include "cuda_bindings.h"
#include "device_arrays.h"

namespace rotomem {

void bind_aggregate_cuda(py::module_& module) {
  module.def(
      "aggregate_cuda",
      [](const py::object& logits, const py::object& aggregated, int device, std::uintptr_t stream) {
        aggregate_cuda(device_span<const float, 3>("logits", logits), device_span<float, 3>("aggregated", aggregated),
                       queue_of(device, stream));
      },
      py::kw_only(), py::arg("logits"), py::arg("aggregated"), py::arg("device"), py::arg("stream"));
}

}  // namespace rotomem
