#!/usr/bin/env python3
"""Measures what bench/plots.py draws: runs of `zoetrope bench`, one JSON file each.

    python bench/collect.py --zoetrope build/zoetrope --output bench/data --dry-run
    python bench/collect.py --zoetrope build/zoetrope --output bench/data

Run it on a quiet machine. A file that is there already is kept, so that a run that was stopped goes on where it
stopped; --again measures all anew. Nothing but Python's own library is needed.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

LARGE = (832, 480)
FRAMES = (5, 17, 33, 49, 81)
SIZES = ((448, 256), (640, 384))  # with 81 frames, beside LARGE
NUMBERS = {"bf16": [], "int8": ["--quantization", "int8"]}
LORA_RANK = 32


def tokens(width: int, height: int, frames: int) -> int:
    return (width // 16) * (height // 16) * ((frames - 1) // 4 + 1)


def model_run(shape: str, numbers: str, size: tuple[int, int], frames: int, *more: str) -> list[str]:
    """One layer; the large ones once after the warm-up."""
    count = tokens(*size, frames)
    repeats = 3 if count < 10_000 else 2 if count < 16_000 else 1
    command = ["bench", "model", "--json", "--layers", "1", "--shape", shape, "--repeats", str(repeats)]
    command += ["--width", str(size[0]), "--height", str(size[1]), "--num-frames", str(frames)]
    return [*command, *NUMBERS[numbers], *more]


def plan(shape: str) -> dict[str, list[str]]:
    """Name of the file -> what follows `zoetrope`, the most telling ones first."""
    runs = {"kernels": ["bench", "kernels", "--json", "--repeats", "2"]}
    for numbers in NUMBERS:
        for frames in FRAMES:
            runs[f"layer-{numbers}-{LARGE[0]}x{LARGE[1]}x{frames}"] = model_run(shape, numbers, LARGE, frames)
        for size in SIZES:
            runs[f"layer-{numbers}-{size[0]}x{size[1]}x81"] = model_run(shape, numbers, size, 81)
    for numbers in NUMBERS:
        for frames in (5, 17):
            name = f"{numbers}-{LARGE[0]}x{LARGE[1]}x{frames}"
            runs[f"thread-{name}"] = model_run(shape, numbers, LARGE, frames, "--threads", "1")
            runs[f"lora-{name}"] = model_run(shape, numbers, LARGE, frames, "--lora-rank", str(LORA_RANK))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", type=pathlib.Path, default=pathlib.Path("build/zoetrope"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("bench/data"))
    parser.add_argument("--shape", default="wan2.1-t2v-1.3b")
    parser.add_argument("--tiny", action="store_true", help="64x64 pixels, to see that all of it runs")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    runs = plan(options.shape)
    if options.tiny:
        small = {"--width": "64", "--height": "64", "--tokens": "64"}
        for command in runs.values():
            for flag, value in small.items():
                if flag in command:
                    command[command.index(flag) + 1] = value
        runs["kernels"] += ["--tokens", "64"]
    options.output.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    for number, (name, command) in enumerate(runs.items(), 1):
        file = options.output / f"{name}.json"
        words = [str(options.zoetrope), *command]
        state = "kept" if file.exists() and not options.again else "run"
        print(f"[{number}/{len(runs)}, {time.monotonic() - begin:4.0f} s] {state}: {' '.join(words)}", flush=True)
        if options.dry_run or state == "kept":
            continue
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"{name}: exit code {done.returncode}; what was measured so far is kept")
        result = json.loads(done.stdout)
        result["command"] = " ".join(["zoetrope", *command])
        part = file.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1) + "\n")
        os.replace(part, file)
    print(f"{time.monotonic() - begin:.0f} s in all; now: python bench/plots.py --data {options.output}")


if __name__ == "__main__":
    main()
