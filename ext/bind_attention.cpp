#include <pybind11/pybind11.h>

#include "arrays.h"
#include "attention/attention.h"

namespace rotomem {

void bind_attention(py::module_& module) {
  module.def(
      "attention",
      [](const py::array& query, const py::array& key, const py::array& value, const py::array& readout,
         const std::string& instructions, int threads) {
        Attention read;
        read.query = span_of<const float, 4>("query", query);
        read.key = span_of<const float, 4>("key", key);
        read.value = span_of<const float, 4>("value", value);
        read.readout = span_of<float, 4>("readout", readout);
        const Instructions chosen = instructions_named(instructions);
        py::gil_scoped_release others_may_run;
        attention(read, chosen, threads);
      },
      py::kw_only(), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("readout"),
      py::arg("instructions") = "auto", py::arg("threads") = 1);
}

}  // namespace rotomem
