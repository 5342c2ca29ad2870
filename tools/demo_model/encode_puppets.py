"""Draws training clips of puppets and stores what the denoiser sees of them.

    python encode_puppets.py --work WORK --rounds 40 --part 0 --parts 2

WORK/puppets/<frames>/<round>.npz, a few clips of every length per round: normalised latents (float16)
of `video` and `pose` [n, 16, F, 8, 8], of the `reference` [n, 16, 8, 8] and of what a segment is given,
`known`, at most its first KNOWN_FRAMES latent frames; `carried`, how many frames those show; `image`,
CLIP's states of the reference; `face` [n, frames, 16, 16, 3] uint8; `weight` [n, F, 8, 8] float16, how
much a latent pixel counts (`latent_weights`). Carried frames are what the VAE makes of the video, in half
the clips a little off in colour, as an earlier segment's may be. LOOKS clips that follow each other have
the same motion.
WORK/puppets/grey.npy: the latents of a grey video, [16, F, 8, 8] float16; WORK/puppets/sensitivity.npy:
what a change of the latents does to the colours, [16, 16] float32 (`sensitivity`).
Goes on where an earlier run stopped; parts may run side by side.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

import animate_model
import puppet_clips
import puppets
import run_state
import vae_passes
from encode_latents import normaliser
from puppet_motion import Motion, load_motions
from train_vae import to_channels_last

LOOKS = 4  # puppets that make the same motion: its pose video costs more than one of them
PER_ROUND = {5: 128, 9: 64, 13: 32, 17: 128, 21: 32, 33: 64, 81: 8}  # clips by frames
LONGEST = 81
KNOWN_FRAMES = 5
CARRIED = (0, 1, 5)
CARRIED_SHARES = (0.36, 0.32, 0.32)
FIRST_SEED = 1_000_000
BATCH_FRAMES = 136
MOTIONS = Path(__file__).resolve().parent / "motions"


class Encoder:
    """The VAE of WORK with the weights that are exported (bfloat16), and CLIP."""

    def __init__(self, work: Path):
        self.vae = AutoencoderKLWan.from_pretrained(work / "vae").to(torch.bfloat16).float().eval()
        to_channels_last(self.vae)
        self._mean, self._std = normaliser(self.vae)
        self._clip = animate_model.make_image_encoder()

    @torch.no_grad()
    def latents(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: [B, 3, F, H, W] in -1..1."""
        pixels = pixels.contiguous(memory_format=torch.channels_last_3d)
        return (vae_passes.encode(self.vae, pixels).mean - self._mean) / self._std

    @torch.no_grad()
    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        return vae_passes.decode(self.vae, latents * self._std + self._mean).clamp(-1, 1)

    def image(self, pictures: np.ndarray) -> torch.Tensor:
        return animate_model.encode_pictures(self._clip, pictures)


def as_pixels(video: np.ndarray) -> torch.Tensor:
    """[B, F, H, W, 3] in 0..1 to [B, 3, F, H, W] in -1..1."""
    return torch.from_numpy(video).float().permute(0, 4, 1, 2, 3) * 2 - 1


def off_color(frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """frames: [3, F, H, W]."""
    if rng.random() < 0.5:
        return frames
    gain = torch.from_numpy(rng.uniform(0.92, 1.08, (3, 1, 1, 1))).float()
    offset = torch.from_numpy(rng.uniform(-0.06, 0.06, (3, 1, 1, 1))).float()
    noise = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.05), frames.shape)).float()
    return (frames * gain + offset + noise).clamp(-1, 1)


def scenes_of(seed: int, frames: int, motions: list[Motion]) -> list[puppet_clips.Scene]:
    """LOOKS puppets of the same proportions and motion."""
    scene = puppet_clips.make_scene(seed, frames, motions)
    looks = [puppets.random_look(np.random.default_rng((seed, 15, index))) for index in range(1, LOOKS)]
    return [scene, *(replace(scene, truth=replace(scene.truth, look=look), reference=replace(scene.reference, look=look))
                     for look in looks)]


def encode_carried(encoder: Encoder, video: torch.Tensor, carried: np.ndarray, seed: int) -> torch.Tensor:
    """The first latent frames of what a segment is given, [B, 16, f, h, w]: grey but for `carried` frames of each clip's
    video ([B, 16, F, h, w]), decoded and off in colour as an earlier segment's may be."""
    first = min(video.shape[2], KNOWN_FRAMES)
    given = torch.zeros(len(video), 3, 4 * first - 3, *(8 * side for side in video.shape[3:]))
    carrying = np.flatnonzero(carried)
    for index, pixels in zip(carrying, encoder.pixels(video[carrying, :, :2]) if len(carrying) else ()):
        count = carried[index]
        given[index, :, :count] = off_color(pixels, np.random.default_rng((seed, 14, index)))[:, :count]
    return encoder.latents(given)


def encode_batch(encoder: Encoder, seeds: range, frames: int, motions: list[Motion]) -> dict[str, np.ndarray]:
    groups = [scenes_of(seed, frames, motions) for seed in seeds]
    scenes = [scene for group in groups for scene in group]
    poses = np.stack([puppet_clips.pose_video(group[0], seed) for group, seed in zip(groups, seeds)]) / np.float32(255)
    references = np.stack([scene.reference.draw()[0] for scene in scenes])
    faces = np.stack([puppets.draw_face(np.random.default_rng((seed, 13)), group[0].truth.face, puppet_clips.FACE_SIZE)
                      for group, seed in zip(groups, seeds)])
    video = encoder.latents(as_pixels(np.stack([scene.truth.draw() for scene in scenes])))
    carried = np.random.default_rng((seeds[0], 16)).choice(CARRIED, size=len(scenes), p=CARRIED_SHARES)
    known = encode_carried(encoder, video, carried, seeds[0])
    pose = encoder.latents(as_pixels(poses)).half().numpy()
    return {"video": video.half().numpy(), "pose": pose.repeat(LOOKS, 0),
            "reference": encoder.latents(as_pixels(references[:, None]))[:, :, 0].half().numpy(),
            "weight": np.stack([latent_weights(scene.truth) for scene in scenes]).astype(np.float16),
            "known": known.half().numpy(), "carried": carried, "image": encoder.image(references).half().numpy(),
            "face": (faces * 255 + 0.5).astype(np.uint8).repeat(LOOKS, 0)}


def latent_weights(truth: puppet_clips.Truth) -> np.ndarray:
    """`puppet_clips.part_weights` for F latent frames, [F, 8, 8]: of four pictures the last says it."""
    weights = np.concatenate([puppet_clips.part_weights(truth, frames) for frames in (slice(0, 1), slice(3, None, 4))])
    weights = weights.reshape(len(weights), truth.size[0] // 8, 8, truth.size[1] // 8, 8).mean((2, 4))
    return weights / weights.mean()


def sensitivity(encoder: Encoder, latents: torch.Tensor, nudge: float = 0.1) -> np.ndarray:
    """[16, 16] with a trace of 16: a small error e of a latent pixel's channels changes the decoded colours (CIE76,
    squared, summed over pixels) by a multiple of e' S e. latents: [B, 16, F, h, w], around which the decoder is
    linearised; errors are taken to be half the same everywhere, half independent."""
    def colors(changed: torch.Tensor) -> torch.Tensor:
        pixels = encoder.pixels(changed).permute(0, 2, 3, 4, 1).numpy()
        return torch.from_numpy(puppets.to_lab((pixels + 1) / 2)).flatten()

    generator = torch.Generator().manual_seed(0)
    clips, channels, *extent = latents.shape
    field = torch.randn(clips, *extent, generator=generator) + torch.randn(clips, 1, 1, 1, generator=generator)
    before = colors(latents)
    changes = []
    for channel in range(channels):
        changed = latents.clone()
        changed[:, channel] += nudge * field
        changes.append(colors(changed) - before)
    product = torch.stack(changes) @ torch.stack(changes).T
    return (product * channels / product.trace()).float().numpy()


def write(path: Path, save) -> None:
    """Under its name complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial{os.getpid()}")
    with open(partial, "wb") as file:
        save(file)
    os.replace(partial, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--pause-file", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoder = Encoder(args.work)
    motions = load_motions(MOTIONS)
    clock = run_state.Clock(1, args.pause_file)
    root = args.work / "puppets"
    grey = root / "grey.npy"
    if not grey.exists():
        latents = encoder.latents(torch.zeros(1, 3, LONGEST, puppet_clips.SIZE, puppet_clips.SIZE))[0]
        write(grey, lambda file: np.save(file, latents.half().numpy()))
    if not (root / "sensitivity.npy").exists():
        scenes = [scene for seed in range(FIRST_SEED, FIRST_SEED + 4) for scene in scenes_of(seed, 9, motions)]
        latents = encoder.latents(as_pixels(np.stack([scene.truth.draw() for scene in scenes])))
        write(root / "sensitivity.npy", lambda file: np.save(file, sensitivity(encoder, latents)))
    for number in range(args.part, args.rounds, args.parts):
        started = time.monotonic()
        for length, clips in PER_ROUND.items():
            path = root / str(length) / f"{number:05d}.npz"
            if path.exists():
                continue
            first_seed = FIRST_SEED + 100_000 * length + number * 256
            size, scenes = max(1, BATCH_FRAMES // length // LOOKS), clips // LOOKS
            batches = []
            for start in range(0, scenes, size):
                clock.wait()
                seeds = range(first_seed + start, first_seed + min(start + size, scenes))
                batches.append(encode_batch(encoder, seeds, length, motions))
            arrays = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
            write(path, lambda file: np.savez(file, **arrays))
        print(f"round {number}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
