"""Trains the VAE (Wan2.1 architecture, small) on generated stills and clips.

    python train_vae.py --work WORK --minutes 35

Goes on from WORK/vae.pt if that exists. At the end, WORK/vae holds the averaged weights with
latents_mean and latents_std measured on fresh clips.

    python train_vae.py --work WORK --minutes 20 --decoder-only

Goes on with the decoder of WORK/vae alone (checkpoint WORK/decoder.pt): latents stay valid.

    python train_vae.py --work WORK --minutes 35 --world puppets --start ../../models/demo-t2v/vae

Trains on puppets and their pose videos instead of shapes, from another VAE's weights.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

import data
import muon
import puppet_clips
import run_state
import vae_passes

CONFIG = dict(base_dim=12, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1, temperal_downsample=[False, True, True])
MUON_RATE = 6e-3
PEAK_RATE = 2e-3
KL_WEIGHT = 1e-4


@dataclass(frozen=True)
class Phase:
    """Until `until` (a share of the working time), batches of this shape in each process."""

    until: float
    batch: int
    frames: int
    crop: int
    poses: float = 0.35  # share of pose videos among puppets


PHASES = (Phase(0.35, 16, 1, 32), Phase(0.70, 4, 5, 32), Phase(2.0, 2, 9, 32))

DECODER_PHASES = (Phase(2.0, 3, 9, 32),)

PUPPET_PHASES = (Phase(0.1, 24, 1, 32), Phase(0.3, 6, 5, 32), Phase(2.0, 4, 9, 32))
PUPPET_DECODER_PHASES = (Phase(2.0, 5, 9, 32, poses=0.0),)  # what the decoder is for


def make_batch(first_seed: int, phase: Phase) -> tuple[torch.Tensor, torch.Tensor]:
    """[batch, 3, frames, crop, crop] in -1..1: a random window of each clip in time and place. Second, how much a pixel
    counts, [batch, 1, frames, crop, crop]."""
    clips = []
    for seed in range(first_seed, first_seed + phase.batch):
        rng = np.random.default_rng((seed, 4))
        start = int(rng.integers(17 - phase.frames + 1))
        side = 64 if rng.random() < 0.8 else 96
        clip = data.render(data.sample_scene(seed), 17, side, side, slice(start, start + phase.frames))
        top, left = rng.integers(side - phase.crop + 1, size=2)
        clips.append(clip[:, top:top + phase.crop, left:left + phase.crop])
    video = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3) * 2 - 1
    return video, torch.ones_like(video[:, :1])


def make_puppet_batch(first_seed: int, phase: Phase) -> tuple[torch.Tensor, torch.Tensor]:
    """As make_batch: puppets (small parts count as much as large ones), pose videos, and now and then a clip that ends
    in grey, as the frames that one segment hands to the next do; a window around some joint."""
    clips, weights = [], []
    for seed in range(first_seed, first_seed + phase.batch):
        rng = np.random.default_rng((seed, 4))
        scene = puppet_clips.make_scene(seed, phase.frames)
        kind = rng.random()
        weight = np.ones((phase.frames, *scene.truth.size), np.float32)
        if kind < phase.poses:
            clip = puppet_clips.pose_video(scene, seed) / np.float32(255)
        else:
            clip, weight = scene.truth.draw(), puppet_clips.part_weights(scene.truth)
        if kind > 0.95 and phase.frames > 1:
            end = int(rng.choice([1, 5]))
            clip[end:], weight[end:] = 0.5, 1
        x, y = scene.truth.joints[0, int(rng.integers(20))] + rng.uniform(-6, 6, 2)
        top, left = (int(np.clip(v - phase.crop / 2, 0, puppet_clips.SIZE - phase.crop)) for v in (y, x))
        clips.append(clip[:, top:top + phase.crop, left:left + phase.crop])
        weights.append(weight[:, top:top + phase.crop, left:left + phase.crop])
    video = torch.from_numpy(np.stack(clips)).float().permute(0, 4, 1, 2, 3) * 2 - 1
    return video, torch.from_numpy(np.stack(weights)).unsqueeze(1)


def to_channels_last(vae: AutoencoderKLWan) -> None:
    """The memory layout in which CPU convolutions of few channels run fastest."""
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def initialise(vae: AutoencoderKLWan) -> None:
    """Starts as a picture autoencoder applied to each frame, which learns clips much sooner."""
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if not isinstance(module, torch.nn.Conv3d):
            continue
        taps = module.weight
        module.bias.zero_()
        if taps.shape[2:] == (3, 1, 1):  # the resampling in time: frames pass as they are
            taps.mul_(0.1)
            for tap, share in enumerate((0.2, 0.3, 0.5) if module.stride[0] == 2 else (0.0, 0.0, 1.0)):
                for row in range(taps.shape[0]):
                    taps[row, row % taps.shape[1], tap] += share
        else:  # the last tap is the present frame
            taps[:, :, :-1].mul_(0.1)
            torch.nn.init.normal_(taps[:, :, -1], std=taps[0, :, -1].numel() ** -0.5)
    vae.quant_conv.bias[vae.config.z_dim:] = -4.0  # log variance: little noise at first


def still_convolution(self: WanCausalConv3d, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
    """WanCausalConv3d.forward, where a first frame meets its own tap only: the others see zeros."""
    if cache_x is None and x.shape[2] == 1 and self.kernel_size[0] == 3 and self._padding[4] == 2:
        return F.conv2d(x[:, :, 0], self.weight[:, :, 2], self.bias, padding=self._padding[0]).unsqueeze(2)
    return plain_convolution(self, x, cache_x)


plain_convolution = WanCausalConv3d.forward
WanCausalConv3d.forward = still_convolution


def losses(vae: AutoencoderKLWan, video: torch.Tensor, weights: torch.Tensor,
           train_encoder: bool) -> tuple[torch.Tensor, dict[str, float]]:
    with torch.set_grad_enabled(train_encoder):
        posterior = vae_passes.encode(vae, video)
    error = vae_passes.decode(vae, posterior.sample()) - video
    charbonnier = (weights * (error.square() + 1e-6).sqrt()).mean()
    edges = sum((weights.narrow(axis, 1, error.shape[axis] - 1) * torch.diff(error, dim=axis).abs()).mean()
                for axis in (3, 4))
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    parts = {"pixel": charbonnier.item(), "edge": edges.item(), "kl": kl.item(), "mse": error.square().mean().item()}
    return charbonnier + 0.5 * edges + KL_WEIGHT * kl, parts


@torch.no_grad()
def measure_latents(vae: AutoencoderKLWan, batch_of, clips: int = 192) -> tuple[list[float], list[float]]:
    latents = []
    for seed in range(10_000_000, 10_000_000 + clips, 8):
        latents.append(vae_passes.encode(vae, batch_of(seed, Phase(1, 8, 17, 64))[0]).mean)
    stacked = torch.cat(latents)
    return stacked.mean((0, 2, 3, 4)).tolist(), stacked.std((0, 2, 3, 4)).tolist()


def train(team: run_state.Team, args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    batch_of, phases = make_batch, DECODER_PHASES if args.decoder_only else PHASES
    if args.world == "puppets":
        batch_of, phases = make_puppet_batch, PUPPET_DECODER_PHASES if args.decoder_only else PUPPET_PHASES
    if args.decoder_only:
        vae = AutoencoderKLWan.from_pretrained(args.work / "vae", torch_dtype=torch.float32)
        parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    else:
        if args.start is not None:
            vae = AutoencoderKLWan.from_pretrained(args.start, torch_dtype=torch.float32)
        else:
            vae = AutoencoderKLWan(**CONFIG)
            initialise(vae)
        parameters = list(vae.parameters())
    to_channels_last(vae)
    kernels = [p for p in parameters if p.ndim >= 4 and min(p.shape[0], p[0].numel()) > 3]
    others = [p for p in parameters if all(p is not k for k in kernels)]
    optimizers = [muon.Muon(kernels, team, lr=MUON_RATE), torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.95))]
    average = run_state.Average(vae, 0.998)
    step, seen, worked_s = 0, 0, 0.0
    checkpoint = args.work / ("decoder.pt" if args.decoder_only else "vae.pt")
    if checkpoint.exists():
        state = torch.load(checkpoint)
        vae.load_state_dict(state["vae"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        average.values = state["average"]
        step, seen, worked_s = state["step"], state["seen"], state["worked_s"]
    torch.manual_seed(1000 * step + team.rank)
    clock = run_state.Clock(args.minutes, args.pause_file, worked_s)
    saved_at = time.monotonic()
    while clock.progress < 1:
        phase = next(p for p in phases if clock.progress < p.until)
        share = 0.5 if args.decoder_only or args.start else 1.0
        run_state.set_rates(optimizers, (share * MUON_RATE, share * PEAK_RATE), step, clock.progress)
        video, weights = batch_of(seen + team.rank * phase.batch, phase)
        loss, parts = losses(vae, video.contiguous(memory_format=torch.channels_last_3d), weights,
                             train_encoder=not args.decoder_only)
        clock.worked_s = run_state.descend(loss, vae, parameters, optimizers, team, clock.worked_s)
        average.update(vae, step)
        step, seen = step + 1, seen + phase.batch * team.size
        clock.wait()
        if team.leads and step % 20 == 0:
            numbers = " ".join(f"{name} {value:.4f}" for name, value in parts.items())
            print(f"step {step} {clock.worked_s:.0f} s frames {phase.frames} {numbers}", flush=True)
        if team.leads and time.monotonic() - saved_at > run_state.CHECKPOINT_EVERY_S:
            run_state.save(checkpoint, {"vae": vae.state_dict(), "average": average.values,
                                        "optimizers": [o.state_dict() for o in optimizers],
                                        "step": step, "seen": seen, "worked_s": clock.worked_s})
            saved_at = time.monotonic()

    if team.leads:
        average.copy_to(vae)
        if not args.decoder_only:
            mean, std = measure_latents(vae, batch_of)
            vae.register_to_config(latents_mean=mean, latents_std=std)
        vae.save_pretrained(args.work / "vae")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--decoder-only", action="store_true")
    parser.add_argument("--world", choices=("shapes", "puppets"), default="shapes")
    parser.add_argument("--start", type=Path, help="a VAE's folder to begin with")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pause-file", type=Path)
    run_state.launch(train, parser.parse_args())


if __name__ == "__main__":
    main()
