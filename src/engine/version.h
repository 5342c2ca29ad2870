// What this program is and what it found on this machine, for --version, reports and files.
#pragma once

#include <string>

namespace zoetrope {

// "0.1.0"
std::string version();

// Several lines: version, LibTorch, instruction sets found and in use, threads, devices.
// Errors: bad_request where ZOETROPE_ISA names a set that the CPU lacks.
std::string version_text();

}  // namespace zoetrope
