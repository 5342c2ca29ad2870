// What earlier runs on the same inputs made. Inside preprocess.
//
// Any thread. Errors: not_found for an input or a network that is not there.
#pragma once

#include "preprocess/preprocess.h"

#include <string>

namespace zoetrope::preprocess {

// A hash of everything that decides what run() makes: contents of the inputs, options, networks.
std::string result_key(const Options& options);

}  // namespace zoetrope::preprocess
