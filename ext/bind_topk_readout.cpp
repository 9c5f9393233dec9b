#include <pybind11/pybind11.h>

#include "arrays.h"
#include "similarity.h"
#include "topk_readout/topk_readout.h"

namespace rotomem {

void bind_topk_readout(py::module_& module) {
  py::class_<PackedKeys>(module, "PackedKeys")
      .def(py::init([](std::int64_t channels, const std::string& similarity, bool selected,
                       const std::string& instructions) {
             return PackedKeys(channels, similarity_named(similarity), selected, instructions_named(instructions));
           }),
           py::kw_only(), py::arg("channels"), py::arg("similarity") = "anisotropic_l2", py::arg("selected") = true,
           py::arg("instructions") = "auto")
      .def("cut", &PackedKeys::cut, py::arg("first"))
      .def(
          "extend",
          [](PackedKeys& packed, const py::array& key, const py::object& shrinkage, int threads) {
            const auto keys = span_of<const float, 2>("key", key);
            const auto shrinkages = span_of<const float, 1>("shrinkage", shrinkage);
            py::gil_scoped_release others_may_run;
            packed.extend(keys, shrinkages, threads);
          },
          py::kw_only(), py::arg("key"), py::arg("shrinkage") = py::none(), py::arg("threads") = 1)
      .def_property_readonly("elements", &PackedKeys::elements)
      .def_property_readonly("nbytes", &PackedKeys::bytes);
  module.def(
      "topk_readout",
      [](const py::array& key, const py::array& query_key, const py::array& value, const py::array& readout,
         const py::object& shrinkage, const py::object& selection, const py::object& valid, const py::object& usage,
         const py::object& index, const py::object& weight, const PackedKeys* packed, const py::sequence& others,
         int top_k, const std::string& similarity, const std::string& instructions, int threads) {
        TopkReadout read;
        read.key = span_of<const float, 2>("key", key);
        read.query_key = span_of<const float, 2>("query_key", query_key);
        read.value = span_of<const float, 3>("value", value);
        read.readout = span_of<float, 3>("readout", readout);
        read.shrinkage = span_of<const float, 1>("shrinkage", shrinkage);
        read.selection = span_of<const float, 2>("selection", selection);
        read.valid = span_of<const unsigned char, 1>("valid", valid);
        read.usage = span_of<float, 1>("usage", usage);
        read.index = span_of<std::int32_t, 2>("index", index);
        read.weight = span_of<float, 2>("weight", weight);
        read.packed = packed;
        for (const py::handle& other : others) {
          const auto [v, seen, r] = other.cast<std::tuple<py::array, py::object, py::array>>();
          read.others.push_back({span_of<const float, 3>("value", v), span_of<const unsigned char, 1>("valid", seen),
                                 span_of<float, 3>("readout", r)});
        }
        read.top_k = top_k;
        read.similarity = similarity_named(similarity);
        const Instructions chosen = instructions_named(instructions);
        py::gil_scoped_release others_may_run;
        topk_readout(read, chosen, threads);
      },
      py::kw_only(), py::arg("key"), py::arg("query_key"), py::arg("value"), py::arg("readout"),
      py::arg("shrinkage") = py::none(), py::arg("selection") = py::none(), py::arg("valid") = py::none(),
      py::arg("usage") = py::none(), py::arg("index") = py::none(), py::arg("weight") = py::none(),
      py::arg("packed") = py::none(), py::arg("others") = py::tuple(), py::arg("top_k") = 30,
      py::arg("similarity") = "anisotropic_l2", py::arg("instructions") = "auto", py::arg("threads") = 1);
}

}  // namespace rotomem
