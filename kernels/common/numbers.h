// Numbers of several types in one argument, and space carved from one piece of scratch.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace rotomem {

enum class Number { float32, float16, bfloat16 };

// A span whose numbers' type is known only when it runs. Sizes and strides count numbers.
template <int D>
struct NumberSpan {
  const void* data = nullptr;
  Number type = Number::float32;
  std::array<std::int64_t, D> size{};
  std::array<std::int64_t, D> stride{};
};

// Hands out pieces of scratch one behind the other, each a multiple of 256 bytes away from it. Over a null base it only counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<unsigned char*>(base)) {}

  template <class T>
  T* take(std::int64_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return piece;
  }

  std::size_t used() const { return used_; }

 private:
  unsigned char* base_;
  std::size_t used_ = 0;
};

}  // namespace rotomem
