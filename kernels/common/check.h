// What a kernel refuses. Kernels throw and never print; the caller decides who reads it.
#pragma once

#include <stdexcept>
#include <string>

namespace rotomem {

// Throws std::invalid_argument unless `holds`; `what` says what was wrong and what was expected.
inline void check(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

// Throws unless an argument's size is the expected one.
inline void check_size(const char* name, long long got, long long expected) {
  if (got != expected)
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(got) + ", expected " +
                                std::to_string(expected));
}

}  // namespace rotomem
