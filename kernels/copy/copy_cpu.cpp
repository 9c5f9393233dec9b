#include "copy/copy.h"

#include <algorithm>

#include "common/check.h"
#include "common/parallel.h"
#include "copy/copy_math.h"

namespace rotomem {

void copy_avx2(const float* from, float* to, std::int64_t count);

void copy(Span<const float, 1> from, Span<float, 1> to, Instructions instructions, int threads) {
  const std::int64_t count = from.size[0];
  check_size("to", to.size[0], count);
  check(count <= 1 || to.stride[0] == 1, "to is not contiguous");
  constexpr std::int64_t piece = 1 << 16;
  parallel_for((count + piece - 1) / piece, threads, [&](std::int64_t i, int) {
    const std::int64_t first = i * piece, last = std::min(count, first + piece);
#ifdef ROTOMEM_X86
    if (instructions != Instructions::portable && from.stride[0] == 1) {
      copy_avx2(from.data + first, to.data + first, last - first);
      return;
    }
#endif
    (void)instructions;
    for (std::int64_t n = first; n < last; ++n) to.data[n] = copied(from(n));
  });
}

}  // namespace rotomem
