#include <pybind11/pybind11.h>

#include "aggregate/aggregate.h"
#include "arrays.h"

namespace rotomem {

void bind_aggregate(py::module_& module) {
  module.def(
      "aggregate",
      [](const py::array& logits, const py::array& aggregated, int threads) {
        const Span<const float, 3> from = span_of<const float, 3>("logits", logits);
        const Span<float, 3> to = span_of<float, 3>("aggregated", aggregated);
        py::gil_scoped_release others_may_run;
        aggregate(from, to, threads);
      },
      py::kw_only(), py::arg("logits"), py::arg("aggregated"), py::arg("threads") = 1);
}

}  // namespace rotomem
