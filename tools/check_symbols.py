#!/usr/bin/env python3
"""Fails where an object built with wide instruction-set flags defines a weak symbol.

A weak symbol is an inline function or template instance that the linker may take for the whole program:
an AVX-512 copy of it would then run on a CPU without AVX-512. Such files keep all code in anonymous
namespaces and export one plain function or table.

usage: tools/check_symbols.py <build folder>
"""
import re
import subprocess
import sys
from pathlib import Path

ISA_OBJECT = re.compile(r"_(avx2|avx512|avx512bf16|avx512vnni|amx|amxint8)\.cpp\.o$")


def weak_symbols(obj):
    """The weak symbols an object defines: nm's V, W and u (GNU unique)."""
    listing = subprocess.run(
        ["nm", "--defined-only", "--demangle", str(obj)], check=True, capture_output=True, text=True
    ).stdout
    rows = (line.split(maxsplit=2) for line in listing.splitlines())
    return [row[2] for row in rows if len(row) == 3 and row[1] in ("V", "W", "u")]


def main():
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: tools/check_symbols.py <build folder>")
    objects = sorted(p for p in Path(sys.argv[1]).rglob("*.o") if ISA_OBJECT.search(p.name))
    found = 0
    for obj in objects:
        for symbol in weak_symbols(obj):
            print(f"{obj}: weak symbol {symbol}: put it in an anonymous namespace or leave it out.")
            found += 1
    if not objects:
        print("check_symbols: this build has no objects of instruction-set files")
    elif not found:
        print(f"check_symbols: {len(objects)} objects of instruction-set files, no weak symbol")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
