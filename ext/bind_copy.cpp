#include <pybind11/pybind11.h>

#include "arrays.h"
#include "copy/copy.h"

namespace rotomem {

void bind_copy(py::module_& module) {
  module.def(
      "copy",
      [](const py::array& from, const py::array& to, const std::string& instructions, int threads) {
        const Span<const float, 1> source = span_of<const float, 1>("source", from);
        const Span<float, 1> target = span_of<float, 1>("target", to);
        const Instructions chosen = instructions_named(instructions);
        py::gil_scoped_release others_may_run;
        copy(source, target, chosen, threads);
      },
      py::kw_only(), py::arg("source"), py::arg("target"), py::arg("instructions") = "auto", py::arg("threads") = 1);
}

}  // namespace rotomem
