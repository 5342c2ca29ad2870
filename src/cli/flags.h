// The command line's flags as tables, and what was given of them.
//
// A table row has the flag's name, its kind, the placeholder and the help text. Rows of features
// that are not built carry a refusal: such a flag parses, and any value that would need the feature
// ends with that sentence.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope::cli {

enum class FlagKind {
    text,     // one value
    integer,  // a whole number
    number,   // a finite number
    toggle,   // --flag, --flag true, --flag false
    list,     // may be repeated
};

struct Flag {
    std::string_view name;  // with dashes: "--num-frames"
    FlagKind kind = FlagKind::text;
    std::string_view placeholder;  // "N", "PATH"
    std::string_view help;         // with unit and default
    // Not built yet: the sentence that says so. Values in `harmless` (separated by '|') are taken
    // all the same.
    std::string_view refusal;
    std::string_view harmless;
};

// Values given on the command line or, behind that, in a --config file. Checked against the table.
class Arguments {
public:
    // Parses what stands behind the subcommand. Returns nothing where --help was asked for (it is
    // printed to stdout). Errors: bad_request (unknown flag, missing or wrong value), not_found and
    // io (--config), unsupported.
    static std::optional<Arguments> parse(std::string_view command, std::string_view summary,
                                          std::span<const Flag> flags,
                                          std::span<const char* const> words);

    bool given(std::string_view flag) const { return values_.contains(std::string(flag)); }
    // Each of these is empty where the flag was not given.
    std::optional<std::string> text(std::string_view flag) const;
    std::optional<std::int64_t> integer(std::string_view flag) const;
    std::optional<double> number(std::string_view flag) const;
    bool on(std::string_view flag) const;
    std::vector<std::string> list(std::string_view flag) const;

    // What stood without a flag.
    const std::vector<std::string>& positionals() const { return positionals_; }

private:
    void check(std::span<const Flag> flags) const;

    std::map<std::string, std::vector<std::string>> values_;
    std::vector<std::string> positionals_;
};

// An int of a flag, with its range in the message. Errors: bad_request.
std::optional<int> int_in(const Arguments& arguments, std::string_view flag, int least, int most);

}  // namespace zoetrope::cli
