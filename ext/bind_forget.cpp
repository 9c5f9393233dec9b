#include <pybind11/pybind11.h>

#include "arrays.h"
#include "forget/forget.h"

namespace rotomem {

void bind_forget(py::module_& module) {
  module.def(
      "keep_most_used",
      [](const py::array& usage, std::int64_t keep) {
        const Span<const float, 1> span = span_of<const float, 1>("usage", usage);
        std::vector<std::int64_t> stay;
        {
          py::gil_scoped_release others_may_run;
          stay = keep_most_used(span, keep);
        }
        return array_of(stay);
      },
      py::kw_only(), py::arg("usage"), py::arg("keep"));
}

}  // namespace rotomem
