// Device memory to spans. Python tells an array as (address, shape, strides in numbers, name of the number type):
// what torch knows of every tensor, and all that a kernel needs.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "common/device.h"
#include "common/numbers.h"
#include "common/span.h"

namespace rotomem {

namespace py = pybind11;

struct DeviceArray {
  std::uintptr_t address = 0;
  std::vector<std::int64_t> shape, strides;
  std::string type;  // "float32", "float16", "bfloat16", "int32", "int64", "uint8"
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
  if constexpr (std::is_same_v<T, std::int32_t>) return "int32";
  if constexpr (std::is_same_v<T, std::int64_t>) return "int64";
  return "uint8";
}

// Copies an array's sizes and strides, of which there must be D.
template <class To>
void shape_from(const char* name, const DeviceArray& array, To& to) {
  constexpr std::size_t dimensions = std::tuple_size_v<decltype(to.size)>;
  if (array.shape.size() != dimensions || array.strides.size() != dimensions)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.shape.size()) +
                                " dimensions, expected " + std::to_string(dimensions));
  for (std::size_t d = 0; d < dimensions; ++d) {
    to.size[d] = array.shape[d];
    to.stride[d] = array.strides[d];
  }
}

// None is a span without data.
template <class T, int D>
Span<T, D> device_span(const char* name, const py::handle& told) {
  if (told.is_none()) return {};
  const DeviceArray array = device_array(name, told);
  const char* expected = type_name<std::remove_const_t<T>>();
  if (array.type != expected)
    throw std::invalid_argument(std::string(name) + " has type " + array.type + ", expected " + expected);
  Span<T, D> span;
  span.data = reinterpret_cast<T*>(array.address);
  shape_from(name, array, span);
  return span;
}

template <int D>
NumberSpan<D> number_span(const char* name, const py::handle& told) {
  const DeviceArray array = device_array(name, told);
  NumberSpan<D> span;
  if (array.type == "float16")
    span.type = Number::float16;
  else if (array.type == "bfloat16")
    span.type = Number::bfloat16;
  else if (array.type != "float32")
    throw std::invalid_argument(std::string(name) + " has type " + array.type +
                                ", expected float32, float16 or bfloat16");
  span.data = reinterpret_cast<const void*>(array.address);
  shape_from(name, array, span);
  return span;
}

inline Queue queue_of(int device, std::uintptr_t stream) { return {device, reinterpret_cast<void*>(stream)}; }

}  // namespace rotomem
