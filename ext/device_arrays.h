// Device memory to spans. Python tells an array as (address, shape, strides in numbers, name of the number type):
// what torch knows of every tensor, and all that a kernel needs.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "common/device.h"
#include "common/span.h"

namespace rotomem {

namespace py = pybind11;

struct DeviceArray {
  std::uintptr_t address = 0;
  std::vector<std::int64_t> shape, strides;
  std::string type;  // "float32", "float16", "bfloat16", "int64", "uint8"
};

inline DeviceArray device_array(const char* name, const py::handle& told) {
  try {
    const auto parts = py::cast<py::tuple>(told);
    if (parts.size() != 4) throw py::cast_error();
    return {parts[0].cast<std::uintptr_t>(), parts[1].cast<std::vector<std::int64_t>>(),
            parts[2].cast<std::vector<std::int64_t>>(), parts[3].cast<std::string>()};
  } catch (const py::cast_error&) {
    throw std::invalid_argument(std::string(name) + " is not (address, shape, strides, type)");
  }
}

template <class T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, float>) return "float32";
  if constexpr (std::is_same_v<T, std::int64_t>) return "int64";
  return "uint8";
}

// None is a span without data.
template <class T, int D>
Span<T, D> device_span(const char* name, const py::handle& told) {
  if (told.is_none()) return {};
  const DeviceArray array = device_array(name, told);
  const char* expected = type_name<std::remove_const_t<T>>();
  if (array.type != expected)
    throw std::invalid_argument(std::string(name) + " has type " + array.type + ", expected " + expected);
  if (array.shape.size() != D || array.strides.size() != D)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.shape.size()) +
                                " dimensions, expected " + std::to_string(D));
  Span<T, D> span;
  span.data = reinterpret_cast<T*>(array.address);
  for (std::size_t d = 0; d < D; ++d) {
    span.size[d] = array.shape[d];
    span.stride[d] = array.strides[d];
  }
  return span;
}

inline Queue queue_of(int device, std::uintptr_t stream) { return {device, reinterpret_cast<void*>(stream)}; }

}  // namespace rotomem
