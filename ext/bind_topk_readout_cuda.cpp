#include "cuda_bindings.h"
#include "device_arrays.h"
#include "similarity.h"
#include "topk_readout/topk_readout_cuda.h"

namespace rotomem {

void bind_topk_readout_cuda(py::module_& module) {
  module.attr("topk_readout_cuda_most") = kMostTopk;
  module.attr("topk_readout_cuda_most_channels") = kMostKeyChannels;
  // Without scratch it does nothing but say how many bytes of it are needed.
  module.def(
      "topk_readout_cuda",
      [](const py::object& key, const py::object& query_key, const py::object& value, const py::object& readout,
         const py::object& shrinkage, const py::object& selection, const py::object& valid, const py::object& usage,
         const py::object& index, const py::object& weight, int top_k, const std::string& similarity,
         const py::object& scratch, int device, std::uintptr_t stream) {
        TopkReadoutCuda read;
        read.key = device_span<const float, 2>("key", key);
        read.query_key = device_span<const float, 2>("query_key", query_key);
        read.value = number_span<3>("value", value);
        read.readout = device_span<float, 3>("readout", readout);
        read.shrinkage = device_span<const float, 1>("shrinkage", shrinkage);
        read.selection = device_span<const float, 2>("selection", selection);
        read.valid = device_span<const unsigned char, 1>("valid", valid);
        read.usage = device_span<float, 1>("usage", usage);
        read.index = device_span<std::int32_t, 2>("index", index);
        read.weight = device_span<float, 2>("weight", weight);
        read.top_k = top_k;
        read.similarity = similarity_named(similarity);
        if (scratch.is_none()) return topk_readout_scratch(read, device);
        const Span<unsigned char, 1> room = device_span<unsigned char, 1>("scratch", scratch);
        read.scratch = room.data;
        read.scratch_bytes = static_cast<std::size_t>(room.size[0]);
        topk_readout_cuda(read, queue_of(device, stream));
        return read.scratch_bytes;
      },
      py::kw_only(), py::arg("key"), py::arg("query_key"), py::arg("value"), py::arg("readout"),
      py::arg("shrinkage") = py::none(), py::arg("selection") = py::none(), py::arg("valid") = py::none(),
      py::arg("usage") = py::none(), py::arg("index") = py::none(), py::arg("weight") = py::none(),
      py::arg("top_k") = 30, py::arg("similarity") = "anisotropic_l2", py::arg("scratch") = py::none(),
      py::arg("device"), py::arg("stream"));
}

}  // namespace rotomem
