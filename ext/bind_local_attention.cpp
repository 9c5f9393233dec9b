#include <pybind11/pybind11.h>

#include "arrays.h"
#include "local_attention/local_attention.h"

namespace rotomem {

void bind_local_attention(py::module_& module) {
  module.def(
      "local_attention",
      [](const py::array& query, const py::array& key, const py::array& value, const py::array& relative_key,
         const py::array& relative_bias, const py::array& relative_value, const py::array& readout,
         const std::string& instructions, int threads) {
        LocalAttention read;
        read.query = span_of<const float, 4>("query", query);
        read.key = span_of<const float, 4>("key", key);
        read.value = span_of<const float, 4>("value", value);
        read.relative_key = span_of<const float, 3>("relative_key", relative_key);
        read.relative_bias = span_of<const float, 2>("relative_bias", relative_bias);
        read.relative_value = span_of<const float, 3>("relative_value", relative_value);
        read.readout = span_of<float, 4>("readout", readout);
        const Instructions chosen = instructions_named(instructions);
        py::gil_scoped_release others_may_run;
        local_attention(read, chosen, threads);
      },
      py::kw_only(), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("relative_key"),
      py::arg("relative_bias"), py::arg("relative_value"), py::arg("readout"), py::arg("instructions") = "auto",
      py::arg("threads") = 1);
}

}  // namespace rotomem
