// The subcommands. Each takes the words behind its name, prints its result, and returns the exit
// code or throws Error.
#pragma once

#include "base/progress.h"
#include "cli/flags.h"
#include "engine/model_folder.h"
#include "net/pull.h"

#include <span>
#include <stop_token>

namespace zoetrope::cli {

std::span<const Flag> generate_flags();
// `own`, and behind them those of generate that a command takes, without headings of nothing.
std::vector<Flag> generate_flags_without(std::span<const std::string_view> not_taken,
                                         std::span<const Flag> own);

// zoetrope::pull with a bar on stderr.
PullResult pull_with_progress(const PullOptions& options, std::stop_token stop);

int generate(Words words, std::stop_token stop);
int convert(Words words, std::stop_token stop);
int plan(Words words);
int inspect(Words words);
int sheet(Words words);
int pull(Words words, std::stop_token stop);
int preprocess_clip(Words words, std::stop_token stop);
int bench(Words words, std::stop_token stop);
int bench_cost(Words words, std::stop_token stop);
int bench_quality(Words words, std::stop_token stop);
int verify(Words words, std::stop_token stop);

}  // namespace zoetrope::cli
