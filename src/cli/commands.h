// The subcommands. Each takes the words behind its name, prints its result, and returns the exit
// code or throws Error.
#pragma once

#include "base/progress.h"
#include "cli/flags.h"

#include <span>
#include <stop_token>

namespace zoetrope::cli {

std::span<const Flag> generate_flags();

int generate(Words words, std::stop_token stop);
int inspect(Words words);
int bench(Words words, std::stop_token stop);

}  // namespace zoetrope::cli
