#include "cuda_bindings.h"
#include "device_arrays.h"
#include "local_attention/local_attention.h"

namespace rotomem {

void bind_local_attention_cuda(py::module_& module) {
  module.attr("local_attention_cuda_most_reach") = kLocalAttentionCudaMostReach;
  module.attr("local_attention_cuda_most_channels") = kLocalAttentionCudaMostChannels;
  module.def(
      "local_attention_cuda",
      [](const py::object& query, const py::object& key, const py::object& value, const py::object& relative_key,
         const py::object& relative_bias, const py::object& relative_value, const py::object& readout, int device,
         std::uintptr_t stream) {
        LocalAttention read;
        read.query = device_span<const float, 4>("query", query);
        read.key = device_span<const float, 4>("key", key);
        read.value = device_span<const float, 4>("value", value);
        read.relative_key = device_span<const float, 3>("relative_key", relative_key);
        read.relative_bias = device_span<const float, 2>("relative_bias", relative_bias);
        read.relative_value = device_span<const float, 3>("relative_value", relative_value);
        read.readout = device_span<float, 4>("readout", readout);
        local_attention_cuda(read, queue_of(device, stream));
      },
      py::kw_only(), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("relative_key"),
      py::arg("relative_bias"), py::arg("relative_value"), py::arg("readout"), py::arg("device"), py::arg("stream"));
}

}  // namespace rotomem
