#!/usr/bin/env python3
"""Fails where an object built with wide instruction-set flags defines a weak symbol.

A weak symbol is an inline function or template instance that the linker may take for the whole program:
an AVX-512 copy of it would then run on a CPU without AVX-512. Such files keep all code in anonymous
namespaces and export one plain function or table.

usage: tools/check_symbols.py <build folder>
       tools/check_symbols.py --self-test <compiler>
"""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ISA_OBJECT = re.compile(r"_(avx2|avx512|avx512bf16|avx512fp16|avx512vnni|amx|amxint8)\.cpp\.o$")


def weak_symbols(obj):
    """The weak symbols an object defines: nm's V, W and u (GNU unique)."""
    listing = subprocess.run(
        ["nm", "--defined-only", "--demangle", str(obj)], check=True, capture_output=True, text=True
    ).stdout
    rows = (line.split(maxsplit=2) for line in listing.splitlines())
    return [row[2] for row in rows if len(row) == 3 and row[1] in ("V", "W", "u")]


def check(folder):
    """Returns (number of objects looked at, a sentence per weak symbol)."""
    objects = sorted(p for p in Path(folder).rglob("*.o") if ISA_OBJECT.search(p.name))
    return len(objects), [
        f"{obj}: weak symbol {symbol}: put it in an anonymous namespace or leave it out."
        for obj in objects
        for symbol in weak_symbols(obj)
    ]


def self_test(compiler):
    """The inline function of one file is found; a file that keeps to the rule passes."""
    leak = "inline int twice(int x) { return 2 * x; }\nint leak(int x) { return twice(x); }\n"
    clean = "namespace { inline int twice(int x) { return 2 * x; } }\nint clean(int x) { return twice(x); }\n"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("leak_avx2.cpp", leak), ("leak_ref.cpp", leak), ("clean_amx.cpp", clean)):
            source = Path(folder) / name
            source.write_text(text)
            subprocess.run([compiler, "-O0", "-c", str(source), "-o", f"{source}.o"], check=True)
        count, found = check(folder)
    if count == 2 and len(found) == 1 and "leak_avx2.cpp.o: weak symbol twice(int)" in found[0]:
        return 1, []
    return count, [f"expected one weak symbol in leak_avx2.cpp.o, found: {found}"]


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--self-test":
        count, found = self_test(sys.argv[2])
    elif len(sys.argv) == 2 and Path(sys.argv[1]).is_dir():
        count, found = check(sys.argv[1])
    else:
        sys.exit(__doc__.split("\n\n")[-1])
    if found:
        sys.exit("\n".join(found))
    print(f"check_symbols: {count or 'no'} objects of instruction-set files, no weak symbol")


if __name__ == "__main__":
    main()
