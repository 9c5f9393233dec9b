// Room for numbers that begins at a cache line: no vector or tile row lies across two.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace rotomem {

struct FreeAligned {
  void operator()(void* room) const { ::operator delete(room, std::align_val_t{64}); }
};

template <class T>
using Aligned = std::unique_ptr<T[], FreeAligned>;

// Uninitialised; throws std::bad_alloc.
template <class T>
Aligned<T> aligned(std::int64_t count) {
  return Aligned<T>(static_cast<T*>(::operator new(static_cast<std::size_t>(count) * sizeof(T), std::align_val_t{64})));
}

}  // namespace rotomem
