"""What a choice costs in quality and time: the puppet model under one change at a time, judged.

    python puppet_quality.py --model ../../models/demo-animate --zoetrope ../../build/zoetrope --clips 12 --output OUT

Every row is `evaluate_animate.py` with one thing changed. OUT/rows.json has the rows that are done, and is gone on
from; OUT/table.md is the table. Seconds are the program's own for a clip, on --threads threads with nothing beside it:
the median of the first TIMED clips, which are made once more. Measure on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import evaluate_animate

# Name, then what differs from the plain run.
ROWS: tuple[tuple[str, dict], ...] = (
    ("plain: windows of 17, overlap 5, 4 steps, bf16", {}),
    ("windows of 5, overlap 1", {"length": 5, "overlap": 1}),
    ("windows of 9", {"length": 9}),
    ("windows of 33", {"length": 33}),
    ("windows of 81", {"length": 81}),
    ("exact, at most 33", {"length": 33, "policy": "exact"}),
    ("overlap 1", {"overlap": 1}),
    ("overlap 9", {"overlap": 9}),
    ("carried as latents", {"flags": "--carry latents"}),
    ("linear fusion", {"flags": "--overlap-fusion linear"}),
    ("cosine fusion", {"flags": "--overlap-fusion cosine"}),
    ("colours matched", {"flags": "--color-match"}),
    ("1 step", {"steps": 1}),
    ("2 steps", {"steps": 2}),
    ("8 steps", {"steps": 8}),
    ("16 steps", {"steps": 16}),
    ("fp32", {"flags": "--dtype fp32"}),
    ("int8", {"flags": "--quantization int8"}),
    ("int8 weights", {"flags": "--quantization int8-weight-only"}),
    ("308 frames: windows of 77", {"frames": 308, "length": 77}),
    ("308 frames: exact, at most 77", {"frames": 308, "length": 77, "policy": "exact"}),
)


TIMED = 3


def seconds_of(args: argparse.Namespace) -> float:
    generate = evaluate_animate.with_zoetrope(args)
    clips = [evaluate_animate.held_out_clip(args, index) for index in range(TIMED)]
    return float(np.median([generate(clip, index).seconds for index, clip in enumerate(clips)]))


def measure(args: argparse.Namespace, changes: dict) -> dict:
    changed = argparse.Namespace(**{**vars(args), **changes})
    _, videos, results = evaluate_animate.evaluate(changed)
    last = range(max(videos[0].joins, default=0), len(videos[0].frames))
    whole, end = evaluate_animate.score(results), evaluate_animate.score(results, last)
    inside, joins = evaluate_animate.flicker(results)
    return {"joints": whole.joints, "colors": whole.colors, "last_joints": end.joints if end else None,
            "last_colors": end.colors if end else None, "inside": inside, "joins": joins,
            "seconds": seconds_of(changed), "segments": 1 + len(videos[0].joins)}


def table(rows: dict[str, dict]) -> str:
    lines = ["| | joint error, % (last segment) | colours right, % (last) | flicker inside / at joins | segments | s |",
             "| --- | --- | --- | --- | --- | --- |"]
    for name, row in rows.items():
        last = (f" ({row['last_joints']:.2f})", f" ({row['last_colors']:.1f})") if row["last_joints"] else ("", "")
        lines.append(f"| {name} | {row['joints']:.2f}{last[0]} | {row['colors']:.1f}{last[1]} "
                     f"| {row['inside']:.2f} / {row['joins']:.2f} | {row['segments']} | {row['seconds']:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    args = evaluate_animate.parser_of(__doc__).parse_args()
    args.frames = evaluate_animate.frames_of(args)  # the same for every row
    args.output.mkdir(parents=True, exist_ok=True)
    done: Path = args.output / "rows.json"
    rows = json.loads(done.read_text()) if done.exists() else {}
    for name, changes in ROWS:
        if name not in rows:
            print(name, flush=True)
            rows[name] = measure(args, changes)
            done.write_text(json.dumps(rows, indent=1) + "\n")
            (args.output / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
