"""Renders training clips and stores their normalised VAE latents.

    python encode_latents.py --work WORK --clips 24000

WORK/latents/<frames>x<height>x<width>/<first seed>.npy: float16 [SHARD, 16, F, H, W], the clip of
seed s at row s - first seed. With --frames 1, only the clips' first frames. Goes on where an earlier
run stopped.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

import data
from train_vae import to_channels_last

SHARD = 400
BATCH = 8


def normaliser(vae: AutoencoderKLWan) -> tuple[torch.Tensor, torch.Tensor]:
    """latents_mean and latents_std, each [1, 16, 1, 1, 1]."""
    shape = (1, -1, 1, 1, 1)
    return torch.tensor(vae.config.latents_mean).view(shape), torch.tensor(vae.config.latents_std).view(shape)


@torch.no_grad()
def encode(vae: AutoencoderKLWan, video: np.ndarray) -> torch.Tensor:
    """video: [B, F, H, W, 3] in 0..1. Returns normalised latents."""
    pixels = torch.from_numpy(video).permute(0, 4, 1, 2, 3) * 2 - 1
    mean, std = normaliser(vae)
    latents = vae.encode(pixels.contiguous(memory_format=torch.channels_last_3d)).latent_dist.mean
    return (latents - mean) / std


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=24_000)
    parser.add_argument("--first", type=int, default=0, help="first seed, a multiple of the shard size")
    parser.add_argument("--frames", type=int, default=17, help="1 takes the first of 17")
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vae = AutoencoderKLWan.from_pretrained(args.work / "vae").eval()
    to_channels_last(vae)
    folder = args.work / "latents" / f"{args.frames}x{args.height}x{args.width}"
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(args.first, args.first + args.clips, SHARD):
        path = folder / f"{first:08d}.npy"
        if path.exists():
            continue
        batches = []
        for seed in range(first, first + SHARD, BATCH):
            clips = [data.render(data.sample_scene(s), max(args.frames, 17), args.height, args.width,
                                 slice(0, args.frames)) for s in range(seed, seed + BATCH)]
            batches.append(encode(vae, np.stack(clips)).half().numpy())
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as file:
            np.save(file, np.concatenate(batches))
        os.replace(partial, path)
        print(path, flush=True)


if __name__ == "__main__":
    main()
