#include <pybind11/pybind11.h>

#include "arrays.h"
#include "similarity.h"
#include "topk_readout_grad/topk_readout_grad.h"

namespace rotomem {

void bind_topk_readout_grad(py::module_& module) {
  module.def(
      "topk_readout_grad",
      [](const py::array& key, const py::array& query_key, const py::array& value, const py::array& index,
         const py::array& weight, const py::array& grad_readout, const py::array& grad_key,
         const py::array& grad_query_key, const py::array& grad_value, const py::object& shrinkage,
         const py::object& selection, const py::object& grad_shrinkage, const py::object& grad_selection,
         const std::string& similarity, const std::string& instructions, int threads) {
        TopkReadoutGrad job;
        job.key = span_of<const float, 2>("key", key);
        job.query_key = span_of<const float, 2>("query_key", query_key);
        job.value = span_of<const float, 3>("value", value);
        job.shrinkage = span_of<const float, 1>("shrinkage", shrinkage);
        job.selection = span_of<const float, 2>("selection", selection);
        job.index = span_of<const std::int32_t, 2>("index", index);
        job.weight = span_of<const float, 2>("weight", weight);
        job.grad_readout = span_of<const float, 3>("grad_readout", grad_readout);
        job.grad_key = span_of<float, 2>("grad_key", grad_key);
        job.grad_query_key = span_of<float, 2>("grad_query_key", grad_query_key);
        job.grad_value = span_of<float, 3>("grad_value", grad_value);
        job.grad_shrinkage = span_of<float, 1>("grad_shrinkage", grad_shrinkage);
        job.grad_selection = span_of<float, 2>("grad_selection", grad_selection);
        job.similarity = similarity_named(similarity);
        const Instructions chosen = instructions_named(instructions);
        py::gil_scoped_release others_may_run;
        topk_readout_grad(job, chosen, threads);
      },
      py::kw_only(), py::arg("key"), py::arg("query_key"), py::arg("value"), py::arg("index"), py::arg("weight"),
      py::arg("grad_readout"), py::arg("grad_key"), py::arg("grad_query_key"), py::arg("grad_value"),
      py::arg("shrinkage") = py::none(), py::arg("selection") = py::none(), py::arg("grad_shrinkage") = py::none(),
      py::arg("grad_selection") = py::none(), py::arg("similarity") = "anisotropic_l2",
      py::arg("instructions") = "auto", py::arg("threads") = 1);
}

}  // namespace rotomem
