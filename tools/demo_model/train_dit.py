"""Trains the denoiser and the text encoder together on stored latents, by flow matching.

    python train_dit.py --work WORK --minutes 80

Reads every shard under WORK/latents (and looks for new ones now and then), goes on from WORK/dit.pt
if that exists. First mostly stills, which are cheap and teach what words look like, then mostly
clips. A quarter of the clips keeps the first latent frame clean at time 0, which is how Wan2.2's 5B
model does image-to-video.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import data
import model
import muon
import run_state
import tokenizer as tokenizer_module

PEAK_RATE = 1.5e-3
MUON_RATE = 1e-2
TOKENS = 1024  # per step and process
CAPTION_DROPOUT = 0.1
IMAGE_SHARE = 0.25
STRANGE_WORD_SHARE = 0.1
TRAIN_SHIFT = 3.0
RESCAN_STEPS = 50


class Latents:
    """The stored clips, grouped by shape; a batch is drawn from one group. All workers pick the same
    shape (they hold equal generators) and each takes its own share of a common order."""

    def __init__(self, root: Path, rng: np.random.Generator, team: run_state.Team):
        self._root = root
        self._rng = rng
        self._team = team
        self._files: dict[str, list[Path]] = {}
        self._seeds: dict[str, np.ndarray] = {}
        self._rows: dict[str, torch.Tensor] = {}
        self._order: dict[str, list[int]] = {}

    def rescan(self) -> None:
        found = self._team.share({p.name: sorted(p.glob("*.npy")) for p in sorted(self._root.iterdir())})
        for shape, files in found.items():
            if not files or files == self._files.get(shape):
                continue
            arrays = [np.load(file) for file in files]
            self._files[shape] = files
            self._rows[shape] = torch.from_numpy(np.concatenate(arrays))
            self._seeds[shape] = np.concatenate([int(file.stem) + np.arange(len(a)) for file, a in zip(files, arrays)])
            self._order[shape] = []
            if self._team.leads:
                print(f"{shape}: {len(self._seeds[shape])} clips", flush=True)

    def batch(self, size: int, shape: str) -> tuple[torch.Tensor, np.ndarray]:
        """Latents [size, 16, F, H, W] and the seeds of their scenes, each clip once per epoch."""
        everybody = size * self._team.size
        if len(self._order[shape]) < everybody:
            self._order[shape] = self._rng.permutation(len(self._seeds[shape])).tolist()
        picked = [self._order[shape].pop() for _ in range(everybody)][self._team.rank::self._team.size]
        return self._rows[shape][picked].float(), self._seeds[shape][picked]

    def pick_shape(self, progress: float) -> str:
        """Stills for most of the first third of the time, for a tenth of the rest."""
        stills = [shape for shape in self._rows if shape.startswith("1x")]
        clips = [shape for shape in self._rows if not shape.startswith("1x")]
        wants_stills = self._rng.random() < (0.8 if progress < 0.35 else 0.1)
        options = (stills if wants_stills else clips) or stills or clips
        return options[int(self._rng.integers(len(options)))]

    def tokens_of(self, shape: str) -> int:
        _, _, frames, height, width = self._rows[shape].shape
        return frames * (height // 2) * (width // 2)


def make_prompt(seed: int, rng: np.random.Generator) -> str:
    """A fresh caption of the scene; sometimes none, sometimes with a word that means nothing."""
    if rng.random() < CAPTION_DROPOUT:
        return ""
    text = data.caption(data.sample_scene(int(seed)), int(rng.integers(1 << 30)))
    if rng.random() < STRANGE_WORD_SHARE:
        letters = rng.integers(97, 123, size=int(rng.integers(3, 9)))
        words = text.split(" ")
        words.insert(int(rng.integers(len(words) + 1)), bytes(letters.tolist()).decode())
        text = " ".join(words)
    return text


def split_parameters(modules: list[torch.nn.Module]) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The matrices of the layers, which Muon takes, and everything else."""
    matrices, others = [], []
    for module in modules:
        for name, parameter in module.named_parameters():
            inner = name.startswith("blocks.") or ".block." in name
            is_matrix = inner and parameter.ndim == 2 and "relative_attention_bias" not in name
            (matrices if is_matrix else others).append(parameter)
    return matrices, others


def loss_of(networks: torch.nn.ModuleDict, clean: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor,
            rotary: tuple[torch.Tensor, torch.Tensor], rng: torch.Generator) -> torch.Tensor:
    """Mean squared error of the velocity noise - clean, over the frames that are noisy."""
    batch, _, frames = clean.shape[:3]
    uniform = torch.rand(batch, generator=rng)
    sigma = (TRAIN_SHIFT * uniform / (1 + (TRAIN_SHIFT - 1) * uniform)).view(batch, 1).repeat(1, frames)
    if frames > 1:
        sigma[torch.rand(batch, generator=rng) < IMAGE_SHARE, 0] = 0.0
    noise = torch.randn(clean.shape, generator=rng)
    weight = sigma.view(batch, 1, frames, 1, 1)
    noisy = (1 - weight) * clean + weight * noise
    text, bias = model.encode_text(networks["text_encoder"], ids, mask)
    velocity = model.denoise(networks["dit"], noisy, sigma * 1000, text, bias, rotary)
    counted = (sigma > 0).float().view(batch, 1, frames, 1, 1)
    error = (velocity.float() - (noise - clean)).square() * counted
    return error.sum() / (counted.sum() * clean[0, :, 0].numel())


def make_optimizers(networks: torch.nn.ModuleDict, team: run_state.Team) -> list[torch.optim.Optimizer]:
    matrices, others = split_parameters(list(networks.values()))
    return [muon.Muon(matrices, team, lr=MUON_RATE),
            torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)]


def train(team: run_state.Team, args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    words = tokenizer_module.load(args.work / "tokenizer")
    networks = torch.nn.ModuleDict({"text_encoder": model.make_text_encoder(words.vocab_size()),
                                    "dit": model.make_dit()})
    parameters = list(networks.parameters())
    optimizers = make_optimizers(networks, team)
    average = run_state.Average(networks, 0.998)
    step, worked_s = 0, 0.0
    checkpoint = args.work / "dit.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint)
        networks.load_state_dict(state["networks"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        average.values = state["average"]
        step, worked_s = state["step"], state["worked_s"]

    shape_rng = np.random.default_rng((step, 0))
    noise_rng = torch.Generator().manual_seed(2 * step + team.rank)
    prompt_rng = np.random.default_rng((step, 1 + team.rank))
    latents = Latents(args.work / "latents", shape_rng, team)
    clock = run_state.Clock(args.minutes, args.pause_file, worked_s)
    rotary: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    recent: dict[str, list[float]] = {}
    saved_at = time.monotonic()
    first_step = step
    while clock.progress < 1:
        if (step - first_step) % RESCAN_STEPS == 0:
            latents.rescan()
        run_state.set_rates(optimizers, (MUON_RATE, PEAK_RATE), step, clock.progress)
        shape = latents.pick_shape(clock.progress)
        clean, seeds = latents.batch(args.tokens // latents.tokens_of(shape), shape)
        if shape not in rotary:
            rotary[shape] = model.rotary_table(networks["dit"], clean)
        ids, mask = model.tokenize(words, [make_prompt(seed, prompt_rng) for seed in seeds])
        loss = loss_of(networks, clean, ids, mask, rotary[shape], noise_rng)
        clock.worked_s = run_state.descend(loss, networks, parameters, optimizers, team, clock.worked_s)
        average.update(networks, step)
        step += 1
        recent.setdefault(shape, []).append(loss.item())
        clock.wait()
        if team.leads and step % 25 == 0:
            means = " ".join(f"{name} {np.mean(values):.4f}" for name, values in sorted(recent.items()))
            print(f"step {step} {clock.worked_s:.0f} s loss {means}", flush=True)
            recent.clear()
        if team.leads and (time.monotonic() - saved_at > run_state.CHECKPOINT_EVERY_S or clock.progress >= 1):
            run_state.save(checkpoint, {"networks": networks.state_dict(), "average": average.values,
                                        "optimizers": [o.state_dict() for o in optimizers], "step": step,
                                        "worked_s": clock.worked_s})
            saved_at = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pause-file", type=Path)
    run_state.launch(train, parser.parse_args())


if __name__ == "__main__":
    main()
