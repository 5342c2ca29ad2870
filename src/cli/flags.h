// The command line's flags as tables, and what was given of them.
//
// A table row has the flag's name, its kind, the placeholder and the help text; rows of kind
// `heading` divide the help. Rows of features that are not built carry a refusal: such a flag
// parses, and any value that would need the feature ends with that sentence.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope::cli {

using Words = std::span<const char* const>;

enum class FlagKind {
    text,     // one value; empty only where the placeholder is TEXT
    integer,  // a whole number
    number,   // a finite number
    toggle,   // --flag, --flag true, --flag false
    list,     // may be repeated
    heading,  // no flag: `help` is the title of the rows that follow
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

// A row of every command.
inline constexpr Flag kConfigFlag{
    .name = "--config",
    .kind = FlagKind::text,
    .placeholder = "FILE",
    .help = "TOML or JSON file with defaults; keys are the flags without dashes",
    .refusal = {},
    .harmless = {}};

struct Command {
    std::string_view name;               // "generate"
    std::string_view summary;            // a sentence
    std::string_view usage = "[flags]";  // what follows the name
    bool positionals = false;            // whether words without a flag are taken
};

// Values given on the command line or, behind that, in a --config file. Checked against the table.
class Arguments {
public:
    // Parses what stands behind the subcommand. Returns nothing where --help was asked for (it is
    // printed to stdout). Errors: bad_request (unknown flag, missing or wrong value), not_found and
    // io (--config), unsupported.
    static std::optional<Arguments> parse(const Command& command, std::span<const Flag> flags,
                                          Words words);

    bool given(std::string_view flag) const { return values_.contains(std::string(flag)); }
    // Each of these is empty where the flag was not given.
    std::optional<std::string> text(std::string_view flag) const;
    std::optional<double> number(std::string_view flag) const;
    bool on(std::string_view flag) const;
    // The same with another value of a flag that takes one. Errors: bad_request, unsupported.
    Arguments with(const Flag& flag, const std::string& value) const;
    // All values of a flag of kind `list`.
    std::vector<std::string> list(std::string_view flag) const;

    // What stood without a flag.
    const std::vector<std::string>& positionals() const { return positionals_; }

private:
    using Values = std::map<std::string, std::vector<std::string>>;
    // Throws unless the flag takes these values. `origin` stands in front of the message.
    static void check(const Flag& flag, const std::vector<std::string>& values,
                      std::string_view origin);
    void read_words(const Command& command, std::span<const Flag> flags, Words words);
    void read_config(const Command& command, std::span<const Flag> flags, const std::string& file);

    Values values_;
    std::vector<std::string> positionals_;
};

// A whole number of a flag, with its range in the message. Errors: bad_request.
std::optional<int> int_in(const Arguments& arguments, std::string_view flag, int least, int most);
std::optional<std::uint64_t> unsigned_of(const Arguments& arguments, std::string_view flag);

// The row of that name; null where there is none.
const Flag* find_flag(std::span<const Flag> flags, std::string_view name);

// "; did you mean X?" with the name that differs least from what was typed, or nothing.
std::string did_you_mean(std::span<const std::string_view> names, std::string_view typed);

// Flag -> values of a TOML or JSON file. Keys are the flags without their dashes; _ counts as -.
// Errors: bad_request, not_found, io.
std::map<std::string, std::vector<std::string>> read_config_file(const std::string& path);

// The help text of a command, `width` columns wide.
std::string help_text(const Command& command, std::span<const Flag> flags, std::size_t width);

// Columns of the terminal behind a descriptor; `otherwise` where it is none.
std::size_t terminal_width(int descriptor, std::size_t otherwise);

}  // namespace zoetrope::cli
