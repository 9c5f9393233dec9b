#include "common/instructions.h"

#include <stdexcept>

#ifdef ROTOMEM_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace rotomem {
#ifdef ROTOMEM_X86
namespace {

bool has_avx512_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
}

// Tiles need the kernel's leave, once a process (arch_prctl: ARCH_REQ_XCOMP_PERM for XFEATURE_XTILEDATA).
bool has_amx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool there = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & (1u << 22)) && (d & (1u << 24));
  return there && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

}  // namespace
#endif

std::vector<Instructions> instructions_present() {
  std::vector<Instructions> present{Instructions::portable};
#ifdef ROTOMEM_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2) present.push_back(Instructions::avx2);
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    present.push_back(Instructions::avx512);
  if (present.back() == Instructions::avx512 && has_avx512_bf16()) present.push_back(Instructions::avx512_bf16);
  static const bool amx = has_amx();
  if (present.back() == Instructions::avx512_bf16 && amx) present.push_back(Instructions::amx);
#endif
  return present;
}

const char* instructions_name(Instructions instructions) {
  switch (instructions) {
    case Instructions::avx2: return "avx2";
    case Instructions::avx512: return "avx512";
    case Instructions::avx512_bf16: return "avx512_bf16";
    case Instructions::amx: return "amx";
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
