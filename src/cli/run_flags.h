// What the flags of `generate` say of a run, for the commands that take them.
//
// Pure functions of the flags, but for files that are looked for and read. Errors: bad_request,
// not_found.
#pragma once

#include "cli/flags.h"
#include "engine/engine.h"

namespace zoetrope::cli {

Request request_of(const Arguments& arguments);
EngineOptions engine_options_of(const Arguments& arguments);
// --model-path, the flags of the model's parts, and which embedded model the request is for.
ModelPaths model_paths(const Arguments& arguments, const Request& request = {});

// Throws unless a file can be written there: before hours of work, since reports come last.
void check_writable(std::string_view flag, const std::string& path);

bool prompt_is_given(const Arguments& arguments);
// The prompt of a run for which the user gave none. Errors: bad_request where it needs one.
std::string prompt_without_one(const ResolvedRequest& request, const Engine& engine);
// The same for runs that are only measured: never an error.
std::string prompt_otherwise(const ResolvedRequest& request, const Engine& engine);

// Numbers separated by commas; nothing where the flag was not given. Errors: bad_request.
std::optional<std::vector<int>> whole_numbers_of(const Arguments& arguments, std::string_view flag);

}  // namespace zoetrope::cli
