#pragma once

#include <string>

namespace rotomem {

// Runs the kernel of this name.
void run_mistake(const std::string& name, const void* from, const void* other, void* to);

}  // namespace rotomem
