#include "common/instructions.h"

#include <stdexcept>

namespace rotomem {

std::vector<Instructions> instructions_present() {
  std::vector<Instructions> present{Instructions::portable};
#ifdef ROTOMEM_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2) present.push_back(Instructions::avx2);
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    present.push_back(Instructions::avx512);
#endif
  return present;
}

const char* instructions_name(Instructions instructions) {
  switch (instructions) {
    case Instructions::avx2: return "avx2";
    case Instructions::avx512: return "avx512";
    default: return "portable";
  }
}

Instructions instructions_named(const std::string& name) {
  const std::vector<Instructions> present = instructions_present();
  if (name == "auto") return present.back();
  for (Instructions one : present)
    if (name == instructions_name(one)) return one;
  throw std::invalid_argument("no instructions called " + name + " on this processor or in this build");
}

}  // namespace rotomem
