#include "cli/flags.h"

#include "base/error.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include <utility>

namespace zoetrope::cli {
namespace {

constexpr std::size_t kHelpWidth = 100;  // columns where stdout is no terminal

std::string lower(std::string_view text) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return out;
}

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> accepted) {
    return std::find(accepted.begin(), accepted.end(), lower(text)) != accepted.end();
}

bool is_true(std::string_view value) { return is_one_of(value, {"true", "1", "on", "yes"}); }
bool is_false(std::string_view value) { return is_one_of(value, {"false", "0", "off", "no"}); }

template <typename Number>
std::optional<Number> parse_number(const std::string& text) {
    Number number{};
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || rest != end) return std::nullopt;
    return number;
}

// Digits with at most a sign, however many: ranges are the flag's business.
bool is_whole_number(std::string_view text) {
    if (text.starts_with('-')) text.remove_prefix(1);
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {  // Levenshtein's
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i);
        for (std::size_t j = 1; j < row.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
        }
    }
    return row.back();
}

[[noreturn]] void refuse_unknown(const Command& command, std::span<const Flag> flags,
                                 std::string_view typed, std::string_view origin) {
    std::vector<std::string_view> names = {"--help"};
    for (const Flag& flag : flags) {
        if (flag.kind != FlagKind::heading) names.push_back(flag.name);
    }
    fail(ErrorKind::bad_request, "{}{} is no flag of zoetrope {}{} (zoetrope {} --help lists them)",
         origin, typed, command.name, did_you_mean(names, typed), command.name);
}

std::string_view wanted_by(const Flag& flag) {
    switch (flag.kind) {
        case FlagKind::integer: return "a whole number";
        case FlagKind::number: return "a number";
        default: return flag.placeholder;
    }
}

// Whether the word behind a flag is its value: a word like --this is a flag, unless it has a blank.
bool is_value(std::string_view word) {
    return !word.starts_with("--") || word.find(' ') != std::string_view::npos;
}

}  // namespace

const Flag* find_flag(std::span<const Flag> flags, std::string_view name) {
    for (const Flag& flag : flags) {
        if (flag.kind != FlagKind::heading && flag.name == name) return &flag;
    }
    return nullptr;
}

std::string did_you_mean(std::span<const std::string_view> names, std::string_view typed) {
    std::string_view best;
    std::size_t least = std::min<std::size_t>(typed.size() / 2, 6);
    for (const std::string_view name : names) {
        const std::size_t distance = edit_distance(typed, name);
        if (distance >= least) continue;
        least = distance;
        best = name;
    }
    return best.empty() ? "" : fmt::format("; did you mean {}?", best);
}

void Arguments::read_words(const Command& command, std::span<const Flag> flags, Words words) {
    bool flags_ended = false;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string_view word = words[i];
        if (!flags_ended && word == "--") {
            flags_ended = true;
            continue;
        }
        if (flags_ended || word.size() < 2 || word.front() != '-') {
            positionals_.emplace_back(word);
            continue;
        }
        const std::size_t equals = word.find('=');
        std::string name(word.substr(0, equals));
        if (find_flag(flags, name) == nullptr) std::replace(name.begin(), name.end(), '_', '-');
        const Flag* flag = find_flag(flags, name);
        if (flag == nullptr) refuse_unknown(command, flags, word.substr(0, equals), "");
        const std::string_view next = i + 1 < words.size() ? words[i + 1] : "--";
        std::string value;
        if (equals != std::string_view::npos) {
            value = word.substr(equals + 1);
        } else if (flag->kind == FlagKind::toggle) {
            const bool takes_next =
                is_true(next) || is_false(next) ||
                (!command.positionals && !next.empty() && !next.starts_with('-'));
            value = takes_next ? words[++i] : "true";
        } else {
            ZT_CHECK(i + 1 < words.size(), bad_request,
                     "{} was given without a value: {} is wanted", name, wanted_by(*flag));
            ZT_CHECK(is_value(next), bad_request,
                     "{} was given without a value: {} is wanted, and {} looks like the next flag "
                     "({}={} if it is the value)",
                     name, wanted_by(*flag), next, name, next);
            value = words[++i];
        }
        auto& values = values_[name];
        if (flag->kind != FlagKind::list) values.clear();
        values.push_back(std::move(value));
    }
}

void Arguments::read_config(const Command& command, std::span<const Flag> flags,
                            const std::string& file) {
    const std::string origin = fmt::format("{} {}: ", kConfigFlag.name, file);
    for (auto& [name, values] : read_config_file(file)) {
        const Flag* flag = find_flag(flags, name);
        if (flag == nullptr || name == kConfigFlag.name)
            refuse_unknown(command, flags, name, origin);
        if (given(name)) continue;
        check(*flag, values, origin);
        values_[name] = std::move(values);
    }
}

std::optional<Arguments> Arguments::parse(const Command& command, std::span<const Flag> flags,
                                          Words words) {
    const auto asks_for_help = [](std::string_view word) {
        return word == "--help" || word == "-h";
    };
    if (std::any_of(words.begin(), words.end(), asks_for_help)) {
        const std::size_t width = terminal_width(STDOUT_FILENO, kHelpWidth);
        std::cout << help_text(command, flags, std::clamp<std::size_t>(width, 60, 120));
        return std::nullopt;
    }
    Arguments arguments;
    arguments.read_words(command, flags, words);
    for (const Flag& flag : flags) {  // in the table's order
        const auto given = arguments.values_.find(std::string(flag.name));
        if (given != arguments.values_.end()) check(flag, given->second, "");
    }
    ZT_CHECK(command.positionals || arguments.positionals_.empty(), bad_request,
             "'{}' stands without a flag: zoetrope {} takes {}", arguments.positionals_.front(),
             command.name, command.usage);
    if (const auto file = arguments.text(kConfigFlag.name))
        arguments.read_config(command, flags, *file);
    return arguments;
}

void Arguments::check(const Flag& flag, const std::vector<std::string>& values,
                      std::string_view origin) {
    ZT_CHECK(!values.empty() && (flag.kind == FlagKind::list || values.size() == 1), bad_request,
             "{}{} takes one value, {} were given", origin, flag.name, values.size());
    for (const std::string& value : values) {
        bool fits = true;
        std::string_view wanted = "a value";
        switch (flag.kind) {
            case FlagKind::integer:
                fits = is_whole_number(value);
                wanted = "a whole number";
                break;
            case FlagKind::number: {
                const auto number = parse_number<double>(value);
                fits = number && std::isfinite(*number);
                wanted = "a number";
                break;
            }
            case FlagKind::toggle:
                fits = is_true(value) || is_false(value);
                wanted = "true or false";
                break;
            case FlagKind::text: fits = !value.empty() || flag.placeholder == "TEXT"; break;
            case FlagKind::list: fits = !value.empty(); break;
            case FlagKind::heading: break;
        }
        ZT_CHECK(fits, bad_request, "{}{} is '{}': {} is wanted", origin, flag.name, value, wanted);
        if (flag.refusal.empty()) continue;
        const std::string allowed = fmt::format("|{}|", flag.harmless);
        const bool harmless =
            (flag.kind == FlagKind::toggle && is_false(value)) ||
            (!value.empty() && allowed.find("|" + value + "|") != std::string::npos);
        ZT_CHECK(harmless, unsupported, "{}{} {}: {}", origin, flag.name, value, flag.refusal);
    }
}

std::optional<std::string> Arguments::text(std::string_view flag) const {
    const auto found = values_.find(std::string(flag));
    if (found == values_.end()) return std::nullopt;
    return found->second.back();
}

Arguments Arguments::with(const Flag& flag, const std::string& value) const {
    check(flag, {value}, "");
    Arguments changed = *this;
    changed.values_[std::string(flag.name)] = {value};
    return changed;
}

std::vector<std::string> Arguments::list(std::string_view flag) const {
    const auto found = values_.find(std::string(flag));
    return found == values_.end() ? std::vector<std::string>() : found->second;
}

std::optional<double> Arguments::number(std::string_view flag) const {
    const auto value = text(flag);
    return value ? parse_number<double>(*value) : std::nullopt;
}

bool Arguments::on(std::string_view flag) const {
    const auto value = text(flag);
    return value && is_true(*value);
}

std::optional<int> int_in(const Arguments& arguments, std::string_view flag, int least, int most) {
    const auto value = arguments.text(flag);
    if (!value) return std::nullopt;
    const auto number = parse_number<int>(*value);
    ZT_CHECK(number && *number >= least && *number <= most, bad_request,
             "{} is {}: accepted are {} to {}", flag, *value, least, most);
    return number;
}

std::optional<std::uint64_t> unsigned_of(const Arguments& arguments, std::string_view flag) {
    const auto value = arguments.text(flag);
    if (!value) return std::nullopt;
    const auto number = parse_number<std::uint64_t>(*value);
    ZT_CHECK(number, bad_request, "{} is {}: accepted are 0 to {}", flag, *value, UINT64_MAX);
    return number;
}

}  // namespace zoetrope::cli
