// Which vector instructions this processor has, and which of them this build can use.
#pragma once

#include <string>
#include <vector>

namespace rotomem {

// Each has all that those before it have.
enum class Instructions { portable, avx2, avx512, avx512_bf16, amx };

// What can run here, narrowest first; never empty, since portable always can.
std::vector<Instructions> instructions_present();

const char* instructions_name(Instructions instructions);

// The set called `name`; "auto" is the widest present. Throws std::invalid_argument where it is unknown or absent.
Instructions instructions_named(const std::string& name);

}  // namespace rotomem
