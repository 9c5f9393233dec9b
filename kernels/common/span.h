// A view of somebody else's numbers: pointer, sizes, strides. Sizes and strides count elements, not bytes.
#pragma once

#include <array>
#include <cstdint>

namespace rotomem {

template <class T, int D>
struct Span {
  T* data = nullptr;
  std::array<std::int64_t, D> size{};
  std::array<std::int64_t, D> stride{};

  // An absent optional argument is a span without data.
  explicit operator bool() const { return data != nullptr; }

  template <class... I>
  T& operator()(I... index) const {
    static_assert(sizeof...(I) == D, "one index per dimension");
    const std::int64_t at[] = {static_cast<std::int64_t>(index)...};
    std::int64_t offset = 0;
    for (int d = 0; d < D; ++d) offset += at[d] * stride[d];
    return data[offset];
  }
};

}  // namespace rotomem
