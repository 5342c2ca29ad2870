// Help texts: a table's rows in two columns, with the flags that are not built at the end.
#include "cli/flags.h"

#include <fmt/core.h>

#include <sys/ioctl.h>

#include <algorithm>

namespace zoetrope::cli {
namespace {

constexpr std::size_t kColumn = 32;  // where the second column begins

// `text` in lines that end before `width`, each behind `indent` spaces; the first line stands
// behind `head`.
std::string two_columns(std::string_view head, std::string_view text, std::size_t indent,
                        std::size_t width) {
    std::string out(head);
    std::size_t column = head.size();
    if (!head.empty() && column + 2 > indent) {
        out += '\n';
        column = 0;
    }
    out.append(indent - column, ' ');
    column = indent;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(' '), text.size());
        const std::string_view word = text.substr(0, end);
        if (column > indent && column + 1 + word.size() > width) {
            out += '\n' + std::string(indent, ' ');
            column = indent;
        } else if (column > indent) {
            out += ' ';
            ++column;
        }
        out += word;
        column += word.size();
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return out + '\n';
}

std::string row(const Flag& flag, std::size_t width) {
    std::string head = fmt::format("  {}", flag.name);
    if (!flag.placeholder.empty()) head += fmt::format(" {}", flag.placeholder);
    return two_columns(head, flag.help, kColumn, width);
}

}  // namespace

std::string help_text(const Command& command, std::span<const Flag> flags, std::size_t width) {
    std::string text = two_columns("", command.summary, 0, width);
    text += fmt::format("\nusage: zoetrope {} {}\n\n", command.name, command.usage);
    text += two_columns("",
                        "Switches, the flags without a placeholder, take --flag, --flag true and "
                        "--flag false. --flag=value is --flag value.",
                        0, width);
    std::string not_built;
    std::string_view heading = "Flags";
    for (const Flag& flag : flags) {
        if (flag.kind == FlagKind::heading) {
            heading = flag.help;
        } else if (!flag.refusal.empty()) {
            not_built += row(flag, width);
        } else {
            if (!heading.empty()) text += fmt::format("\n{}\n", heading);
            heading = {};
            text += row(flag, width);
        }
    }
    text += row({"--help", FlagKind::toggle, "", "this text", {}, {}}, width);
    if (!not_built.empty()) {
        text += "\nNot built yet: what would need them ends with a sentence that says so\n";
        text += not_built;
    }
    return text;
}

std::size_t terminal_width(int descriptor, std::size_t otherwise) {
    winsize size{};
    if (::ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return otherwise;
    return size.ws_col;
}

}  // namespace zoetrope::cli
