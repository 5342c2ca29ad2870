// The flags that say how a driving clip is looked at: `preprocess` and `generate` take the same.
#pragma once

#include "cli/flags.h"
#include "engine/preprocessing.h"

#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace zoetrope::cli {

std::span<const Flag> preprocess_flags();

// Reads them into the options; others stay as they are. Errors: bad_request, not_found.
void read_preprocess_flags(const Arguments& arguments, preprocess::Options& options);

// The first of them that was given (a switch that was put on); empty where none was.
std::string preprocess_flag_given(const Arguments& arguments);

// The path that a flag names; empty where it was not given. Errors: not_found.
std::filesystem::path existing_path(const Arguments& arguments, std::string_view flag);

}  // namespace zoetrope::cli
