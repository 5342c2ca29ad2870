"""What segment lengths cost: one Wan-Animate job under several plans, in alternating runs.

    python tools/oracle/random_model.py MODEL --kind animate --layers 2 --vae-dim 16 --face-size 64
    python bench/segments.py --zoetrope build/zoetrope --model MODEL --output segments

First the plans of --policies take turns, --repeats times each; then windows of every
length of --lengths, --sweeps times. Each run is one process from the videos to the MP4. OUTPUT.json has every
run and is written after each: started again, the script goes on. OUTPUT.md has the tables.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile


def make_inputs(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    """Moving test pictures: what is drawn does not change the time."""
    sizes = {"pose": (arguments.width, arguments.height), "face": (arguments.face_size, arguments.face_size)}
    for name, (width, height) in sizes.items():
        source = f"testsrc2=size={width}x{height}:rate=30:duration={arguments.frames / 30 + 1}"
        command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, "-frames:v", str(arguments.frames)]
        subprocess.run([*command, "-pix_fmt", "yuv420p", str(folder / f"{name}.mp4")], check=True)
    picture = ["ffmpeg", "-v", "error", "-y", "-i", str(folder / "pose.mp4"), "-frames:v", "1"]
    subprocess.run([*picture, str(folder / "image.png")], check=True)


def length_flag(policy: str) -> str:
    return "--segment-length" if policy == "vanilla" else "--segment-max-length"


def run(arguments: argparse.Namespace, folder: pathlib.Path, policy: str, length: int) -> dict:
    command = [arguments.zoetrope, "generate", "--task", "animate", "--model-path", arguments.model]
    command += ["--image", str(folder / "image.png"), "--pose-video", str(folder / "pose.mp4")]
    command += ["--face-video", str(folder / "face.mp4"), "--prompt", "a person", "--seed", "1"]
    command += ["--height", str(arguments.height), "--width", str(arguments.width)]
    command += ["--num-inference-steps", str(arguments.steps), "--guidance-scale", "1"]
    command += ["--segment-policy", policy, length_flag(policy), str(length)]
    command += ["--quantization", arguments.quantization, "--output-path", str(folder / "out.mp4"), "--json"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout)
    stages: dict[str, float] = {}
    for stage in report["stages"]:
        stages[stage["name"]] = stages.get(stage["name"], 0) + stage["seconds"]
    row = {"policy": policy, "length": length, "seconds": report["total_seconds"], "stages": stages}
    row["predicted_seconds"] = sum(segment["predicted_seconds"] for segment in report["plan"]["segments"])
    row["peak_bytes"] = report["memory"]["measured_peak_bytes"]
    return row


def planned(arguments: argparse.Namespace, policy: str, length: int) -> dict:
    command = [arguments.zoetrope, "plan", "--task", "animate", "--num-frames", str(arguments.frames), "--json"]
    command += ["--segment-policy", policy, length_flag(policy), str(length)]
    done = subprocess.run(command, check=True, capture_output=True)
    return json.loads(done.stdout)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def table(arguments: argparse.Namespace, runs: list[dict]) -> str:
    lines = ["| plan | segments | frames denoised | seconds | predicted | of the first, measured / predicted |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    first = None
    groups: dict[tuple[str, int], list[dict]] = {}
    for row in runs:
        groups.setdefault((row["policy"], row["length"]), []).append(row)
    for (policy, length), rows in groups.items():
        plan = planned(arguments, policy, length)
        seconds = statistics.median(row["seconds"] for row in rows)
        predicted = statistics.median(row["predicted_seconds"] for row in rows)
        first = first or (seconds, predicted)
        against = f"{seconds / first[0]:.3f} / {predicted / first[1]:.3f}"
        lengths = ", ".join(str(segment["length"]) for segment in plan["segments"])
        if len(plan["segments"]) > 5:
            lengths = f"{len(plan['segments'])} of {plan['segments'][0]['length']}"
        cells = [f"{policy}, {length}", lengths, str(plan["denoised_frames"]), spread([row["seconds"] for row in rows])]
        lines.append(f"| {' | '.join(cells)} | {predicted:.1f} | {against} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", default="build/zoetrope")
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", default="segments")
    parser.add_argument("--frames", type=int, default=308)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--face-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--policies", default="vanilla:77,exact:97")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lengths", default="21,41,61,77,97,121,153")
    parser.add_argument("--sweeps", type=int, default=1)
    arguments = parser.parse_args()
    policies = [(name, int(length)) for name, length in (entry.split(":") for entry in arguments.policies.split(","))]
    windows = [("vanilla", int(length)) for length in arguments.lengths.split(",") if length]
    wanted = policies * arguments.repeats + windows * arguments.sweeps
    output = pathlib.Path(f"{arguments.output}.json")
    runs = json.loads(output.read_text()) if output.exists() else []
    with tempfile.TemporaryDirectory() as name:
        make_inputs(pathlib.Path(name), arguments)
        for policy, length in wanted[len(runs) :]:
            runs.append(run(arguments, pathlib.Path(name), policy, length))
            print(policy, length, f"{runs[-1]['seconds']:.1f} s", flush=True)
            output.write_text(json.dumps(runs, indent=1) + "\n")
    alternating = len(policies) * arguments.repeats
    text = table(arguments, runs[:alternating]) + "\n" + table(arguments, runs[alternating:])
    pathlib.Path(f"{arguments.output}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
