#!/usr/bin/env python3
"""Checks a wheel against its SHA-256 and unpacks some of its members.

usage: tools/unpack_wheel.py SHA256 WHEEL FOLDER PATTERN...

Members below the package's own folder keep their path without it (openvino/libs/x -> FOLDER/libs/x); networks
and licences lie in FOLDER itself.
"""
import fnmatch
import hashlib
import pathlib
import sys
import zipfile


def target_of(member: str) -> pathlib.PurePosixPath:
    path = pathlib.PurePosixPath(member)
    if path.suffix == ".tflite" or ".dist-info" in path.parts[0]:
        return pathlib.PurePosixPath(path.name)
    return pathlib.PurePosixPath(*path.parts[1:])


def main() -> int:
    wanted, wheel, folder, *patterns = sys.argv[1:]
    found = hashlib.sha256(pathlib.Path(wheel).read_bytes()).hexdigest()
    if found != wanted:
        print(f"{wheel}: SHA-256 is {found}, expected {wanted}", file=sys.stderr)
        return 1
    with zipfile.ZipFile(wheel) as archive:
        for pattern in patterns:
            members = [name for name in archive.namelist() if fnmatch.fnmatch(name, pattern)]
            if not members:
                print(f"{wheel}: nothing in it is called {pattern}", file=sys.stderr)
                return 1
            for member in members:
                target = pathlib.Path(folder) / target_of(member)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
    return 0


if __name__ == "__main__":
    sys.exit(main())
