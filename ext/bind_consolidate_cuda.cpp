#include "consolidate/consolidate_cuda.h"
#include "cuda_bindings.h"
#include "device_arrays.h"

namespace rotomem {

void bind_consolidate_cuda(py::module_& module) {
  // Without scratch it does nothing but say how many bytes of it are needed.
  module.def(
      "consolidate_cuda",
      [](const py::object& key, const py::object& shrinkage, const py::object& value, const py::object& selection,
         const py::object& index, const py::object& prototype_key, const py::object& prototype_shrinkage,
         const py::object& prototype_value, const py::object& valid, const py::object& scratch, int device,
         std::uintptr_t stream) {
        ConsolidateCuda job;
        job.key = device_span<const float, 2>("key", key);
        job.shrinkage = device_span<const float, 1>("shrinkage", shrinkage);
        job.value = number_span<3>("value", value);
        job.selection = device_span<const float, 2>("selection", selection);
        job.index = device_span<const std::int64_t, 1>("index", index);
        job.prototype_key = device_span<float, 2>("prototype_key", prototype_key);
        job.prototype_shrinkage = device_span<float, 1>("prototype_shrinkage", prototype_shrinkage);
        job.prototype_value = device_span<float, 3>("prototype_value", prototype_value);
        job.valid = device_span<const unsigned char, 1>("valid", valid);
        if (scratch.is_none()) return consolidate_scratch(job);
        const Span<unsigned char, 1> room = device_span<unsigned char, 1>("scratch", scratch);
        job.scratch = room.data;
        job.scratch_bytes = static_cast<std::size_t>(room.size[0]);
        consolidate_cuda(job, queue_of(device, stream));
        return job.scratch_bytes;
      },
      py::kw_only(), py::arg("key"), py::arg("shrinkage"), py::arg("value"), py::arg("selection"), py::arg("index"),
      py::arg("prototype_key"), py::arg("prototype_shrinkage"), py::arg("prototype_value"),
      py::arg("valid") = py::none(), py::arg("scratch") = py::none(), py::arg("device"), py::arg("stream"));
}

}  // namespace rotomem
