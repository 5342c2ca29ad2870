#include "cli/flags.h"

#include "base/error.h"
#include "base/json.h"

#include <CLI/CLI.hpp>

#include <charconv>
#include <cmath>
#include <fstream>
#include <iostream>

namespace zoetrope::cli {
namespace {

constexpr std::string_view kConfigFlag = "--config";

bool is_true(const std::string& value) { return value == "true" || value == "1" || value == "on"; }
bool is_false(const std::string& value) {
    return value == "false" || value == "0" || value == "off";
}

template <typename Number>
std::optional<Number> parse_number(const std::string& text) {
    Number number{};
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || rest != end) return std::nullopt;
    return number;
}

// A JSON value as it would be typed.
std::vector<std::string> typed_values(const nlohmann::json& value) {
    if (value.is_array()) {
        std::vector<std::string> values;
        for (const auto& item : value)
            values.push_back(item.is_string() ? item.get<std::string>() : item.dump());
        return values;
    }
    return {value.is_string() ? value.get<std::string>() : value.dump()};
}

// Flag -> values of a TOML or JSON file. Keys are the flags without their dashes; _ counts as -.
std::map<std::string, std::vector<std::string>> read_config(const std::string& path) {
    std::map<std::string, std::vector<std::string>> values;
    const auto flag_of = [](std::string key) {
        std::replace(key.begin(), key.end(), '_', '-');
        return "--" + key;
    };
    if (path.ends_with(".json")) {
        const auto json = read_json(path);
        ZT_CHECK(json.is_object(), bad_request,
                 "--config {}: a JSON object with flags as keys is wanted", path);
        for (const auto& [key, value] : json.items()) values[flag_of(key)] = typed_values(value);
        return values;
    }
    std::ifstream file(path);
    ZT_CHECK(file.good(), not_found, "--config {}: there is no such file", path);
    try {
        for (const auto& item : CLI::ConfigTOML().from_config(file)) {
            if (item.name == "++" || item.name == "--")
                continue;  // CLI11's marks of a section's begin and end
            ZT_CHECK(item.parents.empty(), bad_request,
                     "--config {}: sections are not taken, [{}] is one", path,
                     item.parents.front());
            values[flag_of(item.name)] = item.inputs;
        }
    } catch (const CLI::Error& error) {
        fail(ErrorKind::bad_request, "--config {}: not a TOML file: {}", path, error.what());
    }
    return values;
}

const Flag* find_flag(std::span<const Flag> flags, std::string_view name) {
    for (const Flag& flag : flags) {
        if (flag.name == name) return &flag;
    }
    return nullptr;
}

// The known flag that differs least from what was typed, by Levenshtein's distance.
std::string nearest_flag(std::span<const Flag> flags, std::string_view typed) {
    std::string_view best;
    std::size_t least = typed.size() / 2;
    for (const Flag& flag : flags) {
        std::vector<std::size_t> row(flag.name.size() + 1);
        for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
        for (std::size_t i = 1; i <= typed.size(); ++i) {
            std::size_t diagonal = std::exchange(row[0], i);
            for (std::size_t j = 1; j < row.size(); ++j) {
                const std::size_t replaced = diagonal + (typed[i - 1] == flag.name[j - 1] ? 0 : 1);
                diagonal = row[j];
                row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
            }
        }
        if (row.back() < least) {
            least = row.back();
            best = flag.name;
        }
    }
    return best.empty() ? "" : fmt::format("; did you mean {}?", best);
}

[[noreturn]] void refuse_unknown(std::string_view command, std::span<const Flag> flags,
                                 const std::string& typed) {
    const std::string name = typed.substr(0, typed.find('='));
    fail(ErrorKind::bad_request, "{} is no flag of zoetrope {}{} (zoetrope {} --help lists them)",
         name, command, nearest_flag(flags, name), command);
}

}  // namespace

std::optional<Arguments> Arguments::parse(std::string_view command, std::string_view summary,
                                          std::span<const Flag> flags,
                                          std::span<const char* const> words) {
    CLI::App app{std::string(summary), "zoetrope " + std::string(command)};
    app.get_formatter()->column_width(36);
    app.allow_extras();
    std::map<std::string_view, std::vector<std::string>> parsed;
    for (const Flag& flag : flags) {
        std::string help(flag.help);
        if (!flag.refusal.empty()) help += " (not built yet)";
        auto* option = app.add_option(std::string(flag.name), parsed[flag.name], help);
        option->type_name(std::string(flag.placeholder));
        if (flag.kind == FlagKind::toggle) {
            option->expected(0, 1)->type_name("[true|false]");
        } else if (flag.kind == FlagKind::list) {
            option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
        } else {
            option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
        }
    }
    std::vector<std::string> reversed(words.rbegin(), words.rend());
    try {
        app.parse(reversed);
    } catch (const CLI::CallForHelp&) {
        std::cout << app.help();
        return std::nullopt;
    } catch (const CLI::ArgumentMismatch& error) {
        std::string message = error.what();
        const std::string name = message.substr(0, message.find(':'));
        const Flag* flag = find_flag(flags, name);
        fail(ErrorKind::bad_request, "{} was given without a value: {} is wanted", name,
             flag == nullptr ? "one" : flag->placeholder);
    } catch (const CLI::ParseError& error) {
        fail(ErrorKind::bad_request, "the command line cannot be read: {}", error.what());
    }
    Arguments arguments;
    for (const std::string& extra : app.remaining()) {
        if (extra.size() > 1 && extra.front() == '-') refuse_unknown(command, flags, extra);
        arguments.positionals_.push_back(extra);
    }
    for (const Flag& flag : flags) {
        auto& values = parsed[flag.name];
        if (app.get_option(std::string(flag.name))->count() == 0) continue;
        if (flag.kind == FlagKind::toggle && (values.empty() || values.back().empty()))
            values = {"true"};
        arguments.values_[std::string(flag.name)] = values;
    }
    if (const auto file = arguments.text(kConfigFlag)) {
        for (auto& [name, values] : read_config(*file)) {
            if (find_flag(flags, name) == nullptr) refuse_unknown(command, flags, name);
            arguments.values_.try_emplace(name, std::move(values));
        }
    }
    arguments.check(flags);
    return arguments;
}

void Arguments::check(std::span<const Flag> flags) const {
    for (const auto& [name, values] : values_) {
        const Flag& flag = *find_flag(flags, name);
        ZT_CHECK(!values.empty() && (flag.kind == FlagKind::list || values.size() == 1),
                 bad_request, "{} takes one value, {} were given", name, values.size());
        const std::string& value = values.back();
        switch (flag.kind) {
            case FlagKind::integer:
                ZT_CHECK(parse_number<std::int64_t>(value), bad_request,
                         "{} is '{}': a whole number is wanted", name, value);
                break;
            case FlagKind::number: {
                const auto number = parse_number<double>(value);
                ZT_CHECK(number && std::isfinite(*number), bad_request,
                         "{} is '{}': a number is wanted", name, value);
                break;
            }
            case FlagKind::toggle:
                ZT_CHECK(is_true(value) || is_false(value), bad_request,
                         "{} is '{}': accepted are true and false", name, value);
                break;
            case FlagKind::text:
            case FlagKind::list: break;
        }
        if (flag.refusal.empty()) continue;
        const std::string allowed = fmt::format("|{}|", flag.harmless);
        const bool harmless =
            (flag.kind == FlagKind::toggle && is_false(value)) ||
            (!value.empty() && allowed.find("|" + value + "|") != std::string::npos);
        ZT_CHECK(harmless, unsupported, "{} {}: {}", name, value, flag.refusal);
    }
}

std::optional<std::string> Arguments::text(std::string_view flag) const {
    const auto found = values_.find(std::string(flag));
    if (found == values_.end()) return std::nullopt;
    return found->second.back();
}

std::optional<std::int64_t> Arguments::integer(std::string_view flag) const {
    const auto value = text(flag);
    return value ? parse_number<std::int64_t>(*value) : std::nullopt;
}

std::optional<double> Arguments::number(std::string_view flag) const {
    const auto value = text(flag);
    return value ? parse_number<double>(*value) : std::nullopt;
}

bool Arguments::on(std::string_view flag) const {
    const auto value = text(flag);
    return value && is_true(*value);
}

std::vector<std::string> Arguments::list(std::string_view flag) const {
    const auto found = values_.find(std::string(flag));
    return found == values_.end() ? std::vector<std::string>{} : found->second;
}

std::optional<int> int_in(const Arguments& arguments, std::string_view flag, int least, int most) {
    const auto value = arguments.integer(flag);
    if (!value) return std::nullopt;
    ZT_CHECK(*value >= least && *value <= most, bad_request, "{} is {}: accepted are {} to {}",
             flag, *value, least, most);
    return static_cast<int>(*value);
}

}  // namespace zoetrope::cli
