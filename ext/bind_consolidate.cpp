#include <pybind11/pybind11.h>

#include "arrays.h"
#include "consolidate/consolidate.h"

namespace rotomem {

void bind_consolidate(py::module_& module) {
  module.def(
      "most_used",
      [](const py::array& usage, std::int64_t count, const py::object& valid) {
        return array_of(most_used(span_of<const float, 1>("usage", usage),
                                  span_of<const unsigned char, 1>("valid", valid), count));
      },
      py::kw_only(), py::arg("usage"), py::arg("count"), py::arg("valid") = py::none());
  module.def(
      "consolidate",
      [](const py::array& key, const py::array& shrinkage, const py::array& value, const py::array& selection,
         const py::array& index, const py::array& prototype_key, const py::array& prototype_shrinkage,
         const py::array& prototype_value, const py::object& valid, const std::string& instructions, int threads) {
        Consolidate job;
        job.key = span_of<const float, 2>("key", key);
        job.shrinkage = span_of<const float, 1>("shrinkage", shrinkage);
        job.value = span_of<const float, 3>("value", value);
        job.selection = span_of<const float, 2>("selection", selection);
        job.index = span_of<const std::int64_t, 1>("index", index);
        job.prototype_key = span_of<float, 2>("prototype_key", prototype_key);
        job.prototype_shrinkage = span_of<float, 1>("prototype_shrinkage", prototype_shrinkage);
        job.prototype_value = span_of<float, 3>("prototype_value", prototype_value);
        job.valid = span_of<const unsigned char, 1>("valid", valid);
        const Instructions chosen = instructions_named(instructions);
        py::gil_scoped_release others_may_run;
        consolidate(job, chosen, threads);
      },
      py::kw_only(), py::arg("key"), py::arg("shrinkage"), py::arg("value"), py::arg("selection"), py::arg("index"),
      py::arg("prototype_key"), py::arg("prototype_shrinkage"), py::arg("prototype_value"),
      py::arg("valid") = py::none(), py::arg("instructions") = "auto", py::arg("threads") = 1);
}

}  // namespace rotomem
