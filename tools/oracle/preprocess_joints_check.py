#!/usr/bin/env python3
"""How many joints that were marked by eye `zoetrope preprocess` finds within 5 % of the body's height.

    python preprocess_joints_check.py --zoetrope build/zoetrope --clips FOLDER [--misses] [--flag=--process-checkpoint=...]

preprocess_joints.json holds the marks and says where each clip comes from; FOLDER has the clips under their own names (those
that are not there are left out). A joint in a frame without the person counts as missed. Needs numpy and Pillow.
"""
import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

NAMES = ["nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
         "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"]  # fmt: skip


def lines_of(arguments, clip, folder):
    source = clip
    if clip.suffix == ".webp":  # which FFmpeg does not read when it moves
        source = folder / "frames"
        source.mkdir()
        picture = Image.open(clip)
        for i in range(picture.n_frames):
            picture.seek(i)
            picture.convert("RGB").save(source / f"{i:05}.png", compress_level=1)
    command = [arguments.zoetrope, "preprocess", "--video", source, "--output-path", folder / "videos", "--cache-dir", "off"]
    command += ["--fps", 0, "--threads", 1, "--points", folder / "points.jsonl", *arguments.flag]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", required=True)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--marks", type=Path, default=Path(__file__).with_name("preprocess_joints.json"))
    parser.add_argument("--within", type=float, default=0.05, help="of the height")
    parser.add_argument("--misses", action="store_true", help="tell each")
    parser.add_argument("--flag", action="append", default=[], help="of the program, several times")
    arguments = parser.parse_args()
    by_joint, frames = {}, 0
    for clip in json.loads(arguments.marks.read_text())["clips"]:
        file = arguments.clips / Path(clip["file"]).name
        if not file.exists():
            print(f"{clip['name']}: {file} is not there")
            continue
        with tempfile.TemporaryDirectory() as folder:
            lines = lines_of(arguments, file, Path(folder))
        hits, all_of_clip = 0, 0
        for marked in clip["frames"]:
            line = lines[marked["frame"]]
            frames += 1
            for name, (x, y) in marked["joints"].items():
                away = math.inf
                if line["found"]:
                    px, py, _ = line["points"][NAMES.index(name)]
                    away = math.hypot(px - x, py - y) / marked["height"]
                hit = away <= arguments.within
                if arguments.misses and not hit:
                    print(f"  {clip['name']} frame {marked['frame']} {name}: {100 * away:.1f} % away from {x}, {y}")
                counts = by_joint.setdefault(name.split("_")[-1], [0, 0])
                counts[0] += hit
                counts[1] += 1
                hits += hit
                all_of_clip += 1
        print(f"{clip['name']}: {len(clip['frames'])} frames, {hits} of {all_of_clip} joints ({100 * hits / all_of_clip:.1f} %)")
    total = [sum(counts[k] for counts in by_joint.values()) for k in (0, 1)]
    print(", ".join(f"{name} {hits}/{count}" for name, (hits, count) in by_joint.items()))
    print(f"{frames} frames, {total[0]} of {total[1]} joints within {100 * arguments.within:g} %: {100 * total[0] / max(total[1], 1):.1f} %")


if __name__ == "__main__":
    main()
