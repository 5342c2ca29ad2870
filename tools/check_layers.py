#!/usr/bin/env python3
"""Checks the house rules that can be read off the sources, against the tables in docs/architecture.md.

Folders include only what the first table allows, other people's headers stay in the folders that the
second table names, LibTorch's umbrella headers are included nowhere, headers name only its core types,
instruction-set files include next to nothing, and no file is longer than 800 lines.

usage: tools/check_layers.py [--self-test]
Prints one line per violation, file:line: sentence, and exits with 1 if there are any.
"""
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 800
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')
ISA_FILE = re.compile(r"_(avx2|avx512|avx512bf16|avx512vnni|amx|amxint8)\.cpp$")
ISA_HEADERS = {"immintrin.h", "cstdint", "cstddef"}
UMBRELLAS = {  # each pulls in thousands of files
    "torch/torch.h", "torch/all.h", "torch/script.h", "torch/extension.h",
    "ATen/ATen.h", "ATen/Functions.h", "ATen/NativeFunctions.h",
}  # fmt: skip
LIBTORCH_IN_HEADERS = ("ATen/core/", "c10/")


def table_rows(text, title):
    """The rows of the markdown table below the heading `title`, as lists of cells without backquotes."""
    section = text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.replace("`", "").strip() for cell in row] for row in rows[2:]]


def read_tables(path):
    """Returns (folder -> folders it may include, [(header prefix, folders it may be in)])."""
    text = path.read_text()
    allowed = {}
    for folder, includes in table_rows(text, "Who may include whom"):
        uses = [] if includes == "nothing" else includes.split()
        unknown = [use for use in uses if use not in allowed]
        if unknown:
            sys.exit(f"{path}: {folder} includes {unknown[0]}, which no row above it names.")
        allowed[folder] = {folder, *uses}
    owners = [
        (prefix, set(folders.split()))
        for headers, folders, _ in table_rows(text, "Other people's headers")
        for prefix in headers.split()
    ]
    return allowed, owners


def includes_of(path):
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match[1] == '"', match[2]


def matches(header, prefix):
    """`SQL/` names a folder, `sqlite3` the start of a name, `immintrin.h` one header."""
    return header == prefix if prefix.endswith(".h") else header.startswith(prefix)


def check_include(folder, path, header, quoted, tables):
    """The sentence that is wrong with this include of a file in src/<folder>, or None."""
    allowed, owners = tables
    room = header.split("/")[0]
    if ISA_FILE.search(path.name):
        if not (quoted and room == folder) and header not in ISA_HEADERS:
            return f"{header}: a file with instruction-set flags includes only its own headers, " + ", ".join(
                f"<{name}>" for name in sorted(ISA_HEADERS)
            )
    if quoted:
        if "/" not in header:
            return f'"{header}": write the folder too, "{folder}/{header}".'
        if room not in allowed:
            return f'"{header}": there is no folder {room} in the table of docs/architecture.md.'
        if room not in allowed[folder]:
            return f"{folder} may not include {room}; it may include: {' '.join(sorted(allowed[folder] - {folder})) or 'nothing'}."
        return None
    if room in allowed:
        return f'<{header}>: our own headers stand in quotes, "{header}".'
    for prefix, folders in owners:
        if matches(header, prefix) and folder not in folders:
            return f"<{header}> stays in: {' '.join(sorted(folders))}."
    libtorch = header.startswith(("ATen/", "torch/"))
    if libtorch and path.suffix == ".h" and not header.startswith(LIBTORCH_IN_HEADERS):
        return f"<{header}>: headers include only ATen/core/ and c10/; move it to the source."
    return None


def check(root):
    """All violations below root, as sentences."""
    tables = read_tables(root / "docs/architecture.md")
    found = []
    for path in sorted([*root.glob("src/**/*"), *root.glob("tests/**/*"), *root.glob("tools/**/*")]):
        if path.suffix not in (".h", ".cpp", ".py") or not path.is_file():
            continue
        name = path.relative_to(root)
        lines = len(path.read_text(errors="replace").splitlines())
        if lines > MAX_LINES:
            found.append(f"{name}:{MAX_LINES + 1}: the file has {lines} lines, {MAX_LINES} is the most: split it.")
        if path.suffix == ".py":
            continue
        in_src = name.parts[0] == "src"
        folder = name.parts[1] if in_src else ""
        if in_src and folder not in tables[0]:
            found.append(f"{name}:1: there is no folder {folder} in the table of docs/architecture.md.")
            continue
        if path.suffix == ".h" and "#pragma once" not in path.read_text():
            found.append(f"{name}:1: a header has #pragma once.")
        for number, quoted, header in includes_of(path):
            if header in UMBRELLAS:
                found.append(f"{name}:{number}: <{header}> is included nowhere; take <ATen/ops/...> by name.")
            elif in_src:
                sentence = check_include(folder, path, header, quoted, tables)
                if sentence:
                    found.append(f"{name}:{number}: {sentence}")
    return found


def self_test():
    """Each rule finds the violation that is planted for it, and nothing else is reported."""
    planted = {
        "src/base/a.h": ("int a;\n", "#pragma once"),
        "src/base/b.cpp": ('#include "media/video.h"\n', "base may not include media; it may include: nothing"),
        "src/text/c.cpp": ('#include "vae/decoder.h"\n', "text may not include vae"),
        "src/text/d.cpp": ("#include <libavcodec/avcodec.h>\n", "stays in: media"),
        "src/plan/e.cpp": ("#include <ATen/ops/add.h>\n", "stays in"),
        "src/ops/f.cpp": ("#include <ATen/ATen.h>\n", "included nowhere"),
        "tests/g_test.cpp": ("#include <torch/torch.h>\n", "included nowhere"),
        "src/ops/h.h": ("#pragma once\n#include <ATen/ops/add.h>\n", "headers include only"),
        "src/kernels/i_avx512.cpp": ("#include <vector>\n", "instruction-set flags"),
        "src/ops/j.cpp": ('#include "linear.h"\n', 'write the folder too, "ops/linear.h"'),
        "src/ops/k.cpp": ("#include <kernels/cpu.h>\n", "stand in quotes"),
        "src/attic/l.cpp": ("", "no folder attic"),
        "src/vae/m.cpp": ("\n" * 801, "801 lines"),
        "src/vae/n.cpp": ('#include "cellar/wine.h"\n', "no folder cellar"),
    }
    clean = {
        "src/ops/linear.h": '#pragma once\n#include <ATen/core/Tensor.h>\n#include "base/error.h"\n',
        "src/ops/linear.cpp": '#include "ops/linear.h"\n#include <ATen/ops/linear.h>\n#include "kernels/cpu.h"\n',
        "src/kernels/gemm_avx512.cpp": '#include "kernels/gemm.h"\n#include <immintrin.h>\n',
        "src/media/video.cpp": "#include <libavcodec/avcodec.h>\n#include <fmt/core.h>\n",
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = {name: text for name, (text, _) in planted.items()} | clean
        files["docs/architecture.md"] = (ROOT / "docs/architecture.md").read_text()
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        found = check(root)
    failures = [
        f"{name}: no violation with the words: {words}"
        for name, (_, words) in planted.items()
        if not any(line.startswith(name) and words in line for line in found)
    ]
    failures += [f"more was found than planted: {line}" for line in found if line.split(":")[0] not in planted]
    if len(found) != len(planted):
        failures.append(f"{len(planted)} violations are planted, {len(found)} were found")
    return failures


def main():
    if sys.argv[1:] not in ([], ["--self-test"]):
        sys.exit("usage: tools/check_layers.py [--self-test]")
    problems = self_test() if sys.argv[1:] else check(ROOT)
    print("\n".join(problems) if problems else "check_layers: no violation")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
