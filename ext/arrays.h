// NumPy arrays to spans and back, without a copy. Errors about shapes and types of arguments are made here.
#pragma once

#include <pybind11/numpy.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "common/span.h"

namespace rotomem {

namespace py = pybind11;

template <class T, int D>
Span<T, D> span_of(const char* name, const py::array& array) {
  using Plain = std::remove_const_t<T>;
  if (!py::isinstance<py::array_t<Plain>>(array))
    throw std::invalid_argument(std::string(name) + " has type " + std::string(py::str(array.dtype())) +
                                ", expected " + std::string(py::str(py::dtype::of<Plain>())));
  if (array.ndim() != D)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.ndim()) +
                                " dimensions, expected " + std::to_string(D));
  Span<T, D> span;
  if constexpr (std::is_const_v<T>) {
    span.data = static_cast<T*>(array.data());
  } else {
    span.data = static_cast<T*>(const_cast<py::array&>(array).mutable_data());  // throws for a read-only array
  }
  for (int d = 0; d < D; ++d) {
    const auto bytes = static_cast<std::int64_t>(array.strides(d));
    if (bytes % static_cast<std::int64_t>(sizeof(T)))
      throw std::invalid_argument(std::string(name) + " has a stride that cuts through its numbers");
    span.size[static_cast<std::size_t>(d)] = static_cast<std::int64_t>(array.shape(d));
    span.stride[static_cast<std::size_t>(d)] = bytes / static_cast<std::int64_t>(sizeof(T));
  }
  return span;
}

// None is a span without data.
template <class T, int D>
Span<T, D> span_of(const char* name, const py::object& maybe) {
  if (maybe.is_none()) return {};
  if (!py::isinstance<py::array>(maybe)) throw std::invalid_argument(std::string(name) + " is not an array");
  return span_of<T, D>(name, py::reinterpret_borrow<py::array>(maybe));
}

inline py::array_t<std::int64_t> array_of(const std::vector<std::int64_t>& numbers) {
  return py::array_t<std::int64_t>(static_cast<py::ssize_t>(numbers.size()), numbers.data());
}

}  // namespace rotomem
