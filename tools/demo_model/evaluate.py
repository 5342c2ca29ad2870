"""Generates videos for held-out prompts with WanPipeline and has them judged.

    python evaluate.py --model models/demo-t2v --prompts 200 --output OUT

Writes OUT/videos.safetensors (key `video`), OUT/prompts.json, OUT/report.md and OUT/sheet.png.
The prompts' first things are combinations of colour, shape and motion that training never shows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import WanPipeline
from PIL import Image
from safetensors.numpy import save_file

import data
import judge

FIRST_SEED = 30_000_000


def held_out_prompts(count: int) -> list[str]:
    scenes = [data.sample_scene(FIRST_SEED + index, want_held_out=True) for index in range(count)]
    return [data.caption(scene, scene.seed) for scene in scenes]


def generate(pipeline: WanPipeline, prompts: list[str], args: argparse.Namespace) -> np.ndarray:
    """[B, F, H, W, 3] in 0..1, a generator per prompt, seeded by its index."""
    videos = []
    for first in range(0, len(prompts), args.batch):
        some = prompts[first:first + args.batch]
        generators = [torch.Generator().manual_seed(first + index) for index in range(len(some))]
        videos.append(pipeline(some, height=args.height, width=args.width, num_frames=args.frames,
                               num_inference_steps=args.steps, guidance_scale=args.guidance, generator=generators,
                               output_type="np").frames)
    return np.concatenate(videos).astype(np.float32)


def contact_sheet(videos: np.ndarray, path: Path, columns: int = 2, shown: int = 6, zoom: int = 2) -> None:
    """Each video as a strip of `shown` frames."""
    picks = np.linspace(0, videos.shape[1] - 1, shown).round().astype(int)
    strips = [np.concatenate(list(video[picks]), 1) for video in videos]
    strips += [np.ones_like(strips[0])] * (-len(strips) % columns)
    sheet = np.concatenate([np.concatenate(strips[i::columns], 0) for i in range(columns)], 1)
    picture = Image.fromarray((sheet * 255).round().astype(np.uint8))
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline = WanPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompts = held_out_prompts(args.prompts)
    started = time.monotonic()
    videos = generate(pipeline, prompts, args)
    print(f"{(time.monotonic() - started) / len(prompts):.2f} s per video")
    args.output.mkdir(parents=True, exist_ok=True)
    save_file({"video": np.ascontiguousarray(videos.transpose(0, 1, 4, 2, 3))}, args.output / "videos.safetensors")
    (args.output / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n")
    contact_sheet(videos[:24], args.output / "sheet.png")
    score = judge.Score()
    for prompt, video in zip(prompts, videos):
        score.add(prompt, data.understand(prompt), judge.read(video))
    (args.output / "report.md").write_text(score.report())
    (args.output / "failures.txt").write_text("\n".join(score.failures) + "\n")
    print(score.report())


if __name__ == "__main__":
    main()
