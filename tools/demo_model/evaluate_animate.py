"""Moves held-out puppets by held-out motions, in segments, and has the videos judged.

    python evaluate_animate.py --model models/demo-animate --clips 50 --output OUT
    python evaluate_animate.py --model models/demo-animate --clips 50 --output OUT --zoetrope build/zoetrope

Diffusers' WanAnimatePipeline makes the videos, or the program. Writes OUT/videos.npy ([clips, F, H, W, 3]
uint8), OUT/report.md and OUT/sheet.png. The pairs of shirt and trousers are in no training clip.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import puppet_clips
import puppet_judge
from encode_puppets import MOTIONS
from puppet_motion import load_motions

FIRST_SEED = 40_000_000


def as_picture(pixels: np.ndarray) -> Image.Image:
    """[H, W, 3] in 0..1 or bytes."""
    return Image.fromarray(pixels if pixels.dtype == np.uint8 else (pixels * 255).round().astype(np.uint8))


@dataclass
class Video:
    frames: np.ndarray  # [F, H, W, 3] in 0..1
    joins: tuple[int, ...]  # the first new frame of every segment but the first
    seconds: float


# By policy, the flag that --length is for.
LENGTH_FLAG = {"vanilla": "--segment-length", "exact": "--segment-max-length"}


def with_diffusers(args: argparse.Namespace):
    """A function of a clip and a seed that gives a Video."""
    import torch
    from diffusers import WanAnimatePipeline

    torch.set_num_threads(args.threads)
    pipeline = WanAnimatePipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def generate(clip: puppet_clips.Clip, seed: int) -> Video:
        height, width = clip.truth.size
        started = time.monotonic()
        frames = pipeline(image=as_picture(clip.reference), pose_video=[as_picture(p) for p in clip.pose],
                          face_video=[as_picture(f) for f in clip.face], prompt="", height=height, width=width,
                          segment_frame_length=args.length, prev_segment_conditioning_frames=args.overlap,
                          num_inference_steps=args.steps, guidance_scale=1.0, output_type="np",
                          generator=torch.Generator().manual_seed(seed)).frames[0]
        new = args.length - args.overlap
        return Video(np.asarray(frames), tuple(range(args.length, len(frames), new)), time.monotonic() - started)

    return generate


def with_zoetrope(args: argparse.Namespace):
    """The same by the program."""
    from safetensors.numpy import load_file

    def generate(clip: puppet_clips.Clip, seed: int) -> Video:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            as_picture(clip.reference).save(folder / "image.png")
            for kind, video in (("pose", clip.pose), ("face", clip.face)):
                (folder / kind).mkdir()
                for index, picture in enumerate(video):
                    as_picture(picture).save(folder / kind / f"{index:04d}.png")
            height, width = clip.truth.size
            flags = {"--model-path": args.model, "--task": "animate", "--prompt": "", "--image": folder / "image.png",
                     "--pose-video": folder / "pose", "--face-video": folder / "face", "--height": height,
                     "--width": width, "--segment-policy": args.policy, LENGTH_FLAG[args.policy]: args.length,
                     "--segment-overlap": args.overlap, "--num-inference-steps": args.steps, "--guidance-scale": 1,
                     "--seed": seed, "--threads": args.threads, "--output-type": "tensor",
                     "--output-path": folder / "out.safetensors"}
            command = [str(args.zoetrope), "generate", *(str(v) for pair in flags.items() for v in pair)]
            done = subprocess.run([*command, *args.flags.split(), "--json"], check=True, capture_output=True)
            told = json.loads(done.stdout)
            joins = tuple(s["start"] + s["carried_frames"] for s in told["plan"]["segments"][1:])
            frames = load_file(folder / "out.safetensors")["video"][0].transpose(0, 2, 3, 1)
            return Video(frames, joins, told["total_seconds"])

    return generate


def contact_sheet(clips: list[puppet_clips.Clip], videos: list[np.ndarray], path: Path, shown: int = 8,
                  zoom: int = 2) -> None:
    """Per clip a row: the reference, then pose, video and drawn truth of some frames."""
    rows = []
    for clip, video in zip(clips, videos):
        picks = np.linspace(0, len(video) - 1, shown).round().astype(int)
        truth = clip.video()
        columns = [clip.reference] + [np.concatenate([clip.pose[i] / 255, video[i], truth[i]], 0) for i in picks]
        columns[0] = np.pad(columns[0], ((0, 2 * clip.truth.size[0]), (0, 0), (0, 0)))
        rows.append(np.concatenate(columns, 1))
    picture = as_picture(np.concatenate(rows, 0))
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path)


@dataclass
class Score:
    joints: float  # mean error, % of the body height
    colors: float  # parts within puppet_judge.RIGHT_COLOR of the reference's, %
    difference: float  # mean CIE76


def score(results: list[puppet_judge.Result], frames: range | None = None) -> Score | None:
    joints = [e for r in results for e in r.joint_errors(frames)]
    colors = [e for r in results for e in r.color_errors(frames)]
    if not joints or not colors:
        return None
    return Score(float(np.mean(joints)), 100 * puppet_judge.right_share(colors), float(np.mean(colors)))


def report(results: list[puppet_judge.Result], videos: list[Video], args: argparse.Namespace) -> str:
    ends = (0, *videos[0].joins, len(videos[0].frames))
    rows = {"all": None} | {f"segment {i + 1}": range(ends[i], ends[i + 1]) for i in range(len(ends) - 1)}
    lines = [f"{len(results)} clips of {len(videos[0].frames)} frames, {args.policy} {args.length}, overlap {args.overlap}, "
             f"{args.steps} steps {args.flags}".rstrip(), "",
             "| frames | joint error, % of body height | colours right, % | mean CIE76 |", "| --- | --- | --- | --- |"]
    for name, frames in rows.items():
        if found := score(results, frames):
            lines.append(f"| {name} | {found.joints:.2f} | {found.colors:.1f} | {found.difference:.1f} |")
    parts = ", ".join(f"{part} {right:.0f}" for part, right in right_by_part(results).items())
    inside, joins = flicker(results)
    lines += ["", f"Colours right by part, %: {parts}.", "",
              f"Change of the parts' colours from frame to frame (CIE76): {inside:.2f} inside segments, {joins:.2f} at "
              f"joins. {np.median([v.seconds for v in videos]):.1f} s a clip (median)."]
    return "\n".join(lines) + "\n"


def right_by_part(results: list[puppet_judge.Result]) -> dict[str, float]:
    """Of each part's readings, %."""
    readings: dict[str, list[float]] = {}
    for reading in (reading for result in results for reading in result.readings):
        for part, error in reading.colors.items():
            readings.setdefault(part, []).append(error)
    return {part: 100 * puppet_judge.right_share(errors) for part, errors in readings.items()}


def flicker(results: list[puppet_judge.Result]) -> tuple[float, float]:
    """Inside segments, and at joins (nan without any)."""
    joins = [e for r in results for e in r.at_joins]
    return float(np.mean([e for r in results for e in r.inside])), float(np.mean(joins)) if joins else float("nan")


def frames_of(args: argparse.Namespace) -> int:
    return args.frames or args.segments * (args.length - args.overlap) + args.overlap


def held_out_clip(args: argparse.Namespace, index: int) -> puppet_clips.Clip:
    motions = load_motions(MOTIONS / "held_out")
    return puppet_clips.make_clip(FIRST_SEED + index, frames_of(args), motions, want_held_out=True, clean_pose=True)


def _evaluate_clip(args: argparse.Namespace, index: int) -> tuple[puppet_clips.Clip, Video, puppet_judge.Result]:
    generate = with_zoetrope(args) if args.zoetrope else with_diffusers(args)
    clip = held_out_clip(args, index)
    video = generate(clip, index)
    return clip, video, puppet_judge.judge(video.frames, clip.truth, args.every, video.joins)


def evaluate(args: argparse.Namespace) -> tuple[list[puppet_clips.Clip], list[Video], list[puppet_judge.Result]]:
    rows = []
    started = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for row in pool.imap(functools.partial(_evaluate_clip, args), range(args.clips)):
            rows.append(row)
            print(f"{len(rows)} clips, {time.monotonic() - started:.0f} s", flush=True)
    clips, videos, results = map(list, zip(*rows))
    return clips, videos, results


def parser_of(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--zoetrope", type=Path, help="the program, instead of Diffusers")
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--segments", type=int, default=10)
    parser.add_argument("--frames", type=int, help="of each clip, instead of --segments")
    parser.add_argument("--policy", choices=list(LENGTH_FLAG), default="vanilla")
    parser.add_argument("--length", type=int, default=17)
    parser.add_argument("--overlap", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--flags", default="", help="more of the program's flags")
    parser.add_argument("--every", type=int, default=6, help="joints are read in every so-manieth frame")
    parser.add_argument("--threads", type=int, default=1, help="of a process")
    parser.add_argument("--processes", type=int, default=2, help="clips at a time; 1 where seconds count")
    return parser


def main() -> None:
    args = parser_of(__doc__).parse_args()
    clips, videos, results = evaluate(args)
    args.output.mkdir(parents=True, exist_ok=True)
    frames = [video.frames for video in videos]
    np.save(args.output / "videos.npy", (np.stack(frames) * 255).round().astype(np.uint8))
    contact_sheet(clips[:8], frames[:8], args.output / "sheet.png")
    text = report(results, videos, args)
    (args.output / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
