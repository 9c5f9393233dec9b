// AMX: 32 elements by 32 queries, four tiles of sums. Compiled with -mamx-tile -mamx-bf16 and what
// topk_readout_avx512.cpp is compiled with.
#include "common/vector_avx512.h"
#include "topk_readout/topk_sieve_tiles.h"

namespace rotomem {
namespace {

constexpr int kGroup = 32;

// Eight tiles of 16 rows of 64 bytes. They belong to the thread, and are given back so that a switch of threads need
// not save them.
struct alignas(64) Config {
  std::uint8_t palette, start_row, reserved[14];
  std::uint16_t row_bytes[16];
  std::uint8_t rows[16];
};

// Not a local variable: gcc does not know that the instruction reads it, and would leave out writing it.
constexpr Config kConfig{1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

void begin() { _tile_loadconfig(&kConfig); }

void end() { _tile_release(); }

void sums(const Panel& panel, const Asked& asked, const Shape& shape, float* tile) {
  const int features = shape.features;
  const auto* key = static_cast<const std::uint16_t*>(panel.feature);
  const auto* query = static_cast<const std::uint16_t*>(asked.feature);
  const std::int64_t pitch = features * static_cast<std::int64_t>(sizeof *query);
  if (shape.selected) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, panel.bias, 0);  // the same row 16 times, which is slow
    _tile_loadd(1, panel.bias + 16, 0);
    _tile_loadd(2, panel.bias, 0);
    _tile_loadd(3, panel.bias + 16, 0);
  }
  for (int f = 0; f < features; f += 32) {
    _tile_loadd(4, query + f, pitch);
    _tile_loadd(6, key, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, key + 512, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, query + 16 * features + f, pitch);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    key += 1024;
  }
  _tile_stored(0, tile, 128);
  _tile_stored(1, tile + 16, 128);
  _tile_stored(2, tile + 512, 128);
  _tile_stored(3, tile + 528, 128);
  asm volatile("" ::: "memory");  // gcc does not know that these instructions write
}

}  // namespace

constexpr Sieve kAmxSieve = {32, kGroup, true, begin, end,
                             scan<Avx512x16, 2, kGroup, sums>, probe<Avx512x16, 2, kGroup, sums>,
                             pack_panel<32, true>, keep<Avx512x16>, kth<Avx512x16>, score<Avx512x16>};

}  // namespace rotomem
