"""How colours drift over a long video under every way of joining its segments.

    python bench/joins.py --zoetrope build/zoetrope --image picture.png --prompt "a red circle moving right"

One run each of image-to-video (the embedded model, unless --model names another): 301 frames in windows of 17. Prints
a table: the largest change of a channel's mean and contrast from the shared frames before a join to the new ones behind
it, and of the last segment against the first.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import tempfile

WAYS = [
    (str(overlap), carry, fusion, match)
    for overlap, carry in itertools.product((1, 5, 9), ("pixels", "latents"))
    for fusion, match in (("last", False), ("last", True), ("linear", False), ("cosine", False))
    if (overlap > 1 or fusion == "last") and not (match and carry == "latents")
]


def run(arguments: argparse.Namespace, folder: str, way: tuple) -> dict:
    overlap, carry, fusion, match = way
    command = [arguments.zoetrope, "generate", "--prompt", arguments.prompt, "--image", arguments.image, "--seed", "1"]
    command += ["--num-frames", str(arguments.frames), "--segment-length", str(arguments.length), "--json"]
    command += ["--segment-overlap", overlap, "--carry", carry, "--overlap-fusion", fusion]
    command += ["--color-match"] if match else []
    command += ["--model-path", arguments.model] if arguments.model else []
    command += ["--output-path", str(pathlib.Path(arguments.keep or folder) / ("-".join(map(str, way)) + ".mp4"))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def farthest(rows: list[dict], key: str, neutral: float) -> float:
    return max((value for row in rows for value in row[key]), key=lambda value: abs(value - neutral))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", default="build/zoetrope")
    parser.add_argument("--image", required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--frames", type=int, default=301)
    parser.add_argument("--length", type=int, default=17)
    parser.add_argument("--keep", default="", help="folder for the videos")
    arguments = parser.parse_args()
    print("| overlap | carry | fusion | at a join: mean, contrast | last segment against the first | seconds |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            report = run(arguments, folder, way)
            rows, last = report["drift"], report["drift"][-1:]
            join = f"{farthest(rows, 'mean_difference', 0):+.3f}, {farthest(rows, 'contrast_ratio', 1):.2f}"
            whole = f"{farthest(last, 'mean_difference_from_first', 0):+.3f}, "
            whole += f"{farthest(last, 'contrast_ratio_to_first', 1):.2f}"
            fusion = way[2] + (", colours matched" if way[3] else "")
            print(f"| {way[0]} | {way[1]} | {fusion} | {join} | {whole} | {report['total_seconds']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
