"""Trains the puppet model's denoiser on stored clips, by flow matching.

    python train_animate.py --work WORK --minutes 180

Reads every round under WORK/puppets (and looks for new ones now and then), goes on from
WORK/animate.pt if that exists. Each clip is a segment that is given no earlier frames, one or five.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from transformers import UMT5EncoderModel

import animate_model
import model
import muon
import run_state
import tokenizer as tokenizer_module
from encode_puppets import PER_ROUND

PEAK_RATE = 1.5e-3
MUON_RATE = 1e-2
AVERAGE_DECAY = 0.998
TOKENS = 1536  # per step and process
TRAIN_SHIFT = 8.0  # the conditions say nearly all: what counts is the mean that they leave, at high noise
RESCAN_STEPS = 100
COLOR_SHARE = 0.9  # of the loss that is weighted by what the latents do to the colours; the rest is the plain square
REFERENCE_WEIGHT = 0.25  # of the reference's place in the loss: its frame is thrown away
LENGTH_SHARES = {5: 0.08, 9: 0.12, 13: 0.1, 17: 0.3, 21: 0.15, 33: 0.2, 81: 0.05}
FACE_SHARE = 0.2  # of the steps; in the others the face video is -1, as the unconditional pass of guidance has it


class Clips:
    """The stored clips by length. All workers pick the same lengths (their generators are equal) and each takes its
    own share of a common order."""

    def __init__(self, root: Path, rng: np.random.Generator, team: run_state.Team):
        self._root, self._rng, self._team = root, rng, team
        self._files: dict[int, list[Path]] = {}
        self._arrays: dict[int, dict[str, np.ndarray]] = {}
        self._order: dict[int, list[int]] = {}
        self.grey = torch.from_numpy(np.load(root / "grey.npy")).float()

    def rescan(self) -> None:
        found = self._team.share({length: sorted((self._root / str(length)).glob("*.npz")) for length in PER_ROUND})
        for length, files in found.items():
            new = [file for file in files if file not in self._files.get(length, [])]
            if not new:
                continue
            loaded = [np.load(file) for file in new]
            arrays = {name: np.concatenate([part[name] for part in loaded]) for name in loaded[0].files}
            if length in self._arrays:
                arrays = {name: np.concatenate([self._arrays[length][name], arrays[name]]) for name in arrays}
            self._files[length] = files
            self._arrays[length] = arrays
            self._order[length] = []
            if self._team.leads:
                print(f"{length} frames: {len(arrays['video'])} clips", flush=True)

    def pick_length(self) -> int:
        lengths = list(self._arrays)
        shares = np.array([LENGTH_SHARES[length] for length in lengths])
        return int(self._rng.choice(lengths, p=shares / shares.sum()))

    def batch(self, length: int, tokens: int) -> dict[str, torch.Tensor]:
        arrays = self._arrays[length]
        latent_frames, height, width = arrays["video"].shape[2:]
        size = max(1, tokens // ((latent_frames + 1) * (height // 2) * (width // 2)))
        everybody = min(size * self._team.size, len(arrays["video"]) // self._team.size * self._team.size)
        if len(self._order[length]) < everybody:
            self._order[length] = self._rng.permutation(len(arrays["video"])).tolist()
        picked = [self._order[length].pop() for _ in range(everybody)][self._team.rank::self._team.size]
        return {name: torch.from_numpy(values[picked]).float() for name, values in arrays.items()}


def known_of(batch: dict[str, torch.Tensor], grey: torch.Tensor) -> torch.Tensor:
    """Mask and latents that are given, [B, 20, 1 + F, h, w]: the reference, then a segment that is grey but for the
    first frames of those clips that carry some."""
    clips, _, frames, height, width = batch["video"].shape
    latents = grey[None, :, :frames].repeat(clips, 1, 1, 1, 1)
    latents[:, :, :batch["known"].shape[2]] = batch["known"]
    carried = (batch["carried"] + 3) // 4  # in latent frames
    mask = (torch.arange(frames) < carried[:, None]).float()[:, None, :, None, None].expand(-1, 4, -1, height, width)
    segment = torch.cat([mask, latents], 1)
    reference = torch.cat([torch.ones(clips, 4, height, width), batch["reference"]], 1)
    return torch.cat([reference.unsqueeze(2), segment], 2)


def color_weights(sensitivity: np.ndarray) -> torch.Tensor:
    """[16, 16]: errors of the latents are multiplied by it before they are squared. Normalised latents all vary by one,
    but what they do to a picture differs a thousandfold: unweighted, most of the loss is about what nobody sees."""
    mixed = COLOR_SHARE * sensitivity.astype(np.float64) + (1 - COLOR_SHARE) * np.eye(len(sensitivity))
    values, vectors = np.linalg.eigh(mixed)
    return torch.from_numpy((vectors * np.sqrt(values)) @ vectors.T).float()


def loss_of(dit: torch.nn.Module, batch: dict[str, torch.Tensor], known: torch.Tensor, text: torch.Tensor,
            bias: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], with_faces: bool, colors: torch.Tensor,
            rng: torch.Generator) -> torch.Tensor:
    """Mean squared error of the velocity noise - clean, weighted in its channels by `color_weights` (colors) and in its
    places by the clips' own weights."""
    clean = torch.cat([batch["reference"].unsqueeze(2), batch["video"]], 2)
    uniform = torch.rand(len(clean), generator=rng)
    sigma = TRAIN_SHIFT * uniform / (1 + (TRAIN_SHIFT - 1) * uniform)
    noise = torch.randn(clean.shape, generator=rng)
    mixed = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1, 1))
    faces = (batch["face"].permute(0, 1, 4, 2, 3) / 127.5 - 1).contiguous() if with_faces else None
    velocity = animate_model.denoise(dit, mixed, sigma * 1000, known, batch["pose"],
                                     faces, text, bias, batch["image"], rotary)
    error = torch.einsum("cd,bdfhw->bcfhw", colors, velocity - (noise - clean))
    error = error.square().mean(1)
    reference, segment = error[:, 0].mean(), (error[:, 1:] * batch["weight"]).mean()
    frames = clean.shape[2] - 1
    return (frames * segment + REFERENCE_WEIGHT * reference) / (frames + REFERENCE_WEIGHT)


def make_optimizers(dit: torch.nn.Module, team: run_state.Team) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the rest."""
    matrices, others = [], []
    for name, parameter in dit.named_parameters():
        inner = name.startswith(("blocks.", "face_adapter.")) and parameter.ndim == 2
        (matrices if inner else others).append(parameter)
    return [muon.Muon(matrices, team, lr=MUON_RATE),
            torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)]


@torch.no_grad()
def encode_prompts(text_model: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Rows and attention bias of every training prompt, from another model's text encoder."""
    words = tokenizer_module.load(text_model / "tokenizer")
    encoder = UMT5EncoderModel.from_pretrained(text_model / "text_encoder", dtype=torch.float32).eval()
    return [model.encode_text(encoder, *model.tokenize(words, [prompt])) for prompt in animate_model.PROMPTS]


def train(team: run_state.Team, args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    dit = animate_model.make_dit()
    parameters = list(dit.parameters())
    optimizers = make_optimizers(dit, team)
    average = run_state.Average(dit, AVERAGE_DECAY)
    step, worked_s = 0, 0.0
    checkpoint = args.work / "animate.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint)
        dit.load_state_dict(state["dit"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        average.values = state["average"]
        step, worked_s = state["step"], state["worked_s"]

    prompts = encode_prompts(args.text_model)
    common_rng = np.random.default_rng((step, 0))
    own_rng = np.random.default_rng((step, 1 + team.rank))
    noise_rng = torch.Generator().manual_seed(2 * step + team.rank)
    clips = Clips(args.work / "puppets", common_rng, team)
    colors = color_weights(np.load(args.work / "puppets" / "sensitivity.npy"))
    clock = run_state.Clock(args.minutes, args.pause_file, worked_s)
    rotary: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    recent: dict[int, list[float]] = {}
    saved_at, first_step = time.monotonic(), step
    while clock.progress < 1:
        if (step - first_step) % RESCAN_STEPS == 0:
            clips.rescan()
        run_state.set_rates(optimizers, (MUON_RATE, PEAK_RATE), step, clock.progress)
        length = clips.pick_length()
        batch = clips.batch(length, args.tokens)
        known = known_of(batch, clips.grey)
        if length not in rotary:
            rotary[length] = model.rotary_table(dit, known)
        text, bias = prompts[int(own_rng.integers(len(prompts)))]
        loss = loss_of(dit, batch, known, text, bias, rotary[length], common_rng.random() < FACE_SHARE, colors,
                       noise_rng)
        clock.worked_s = run_state.descend(loss, dit, parameters, optimizers, team, clock.worked_s)
        average.update(dit, step)
        step += 1
        recent.setdefault(length, []).append(loss.item())
        clock.wait()
        if team.leads and step % 50 == 0:
            means = " ".join(f"{name}: {np.mean(values):.4f}" for name, values in sorted(recent.items()))
            print(f"step {step} {clock.worked_s:.0f} s loss {means}", flush=True)
            recent.clear()
        if team.leads and (time.monotonic() - saved_at > run_state.CHECKPOINT_EVERY_S or clock.progress >= 1):
            run_state.save(checkpoint, {"dit": dit.state_dict(), "average": average.values, "step": step,
                                        "optimizers": [o.state_dict() for o in optimizers],
                                        "worked_s": clock.worked_s})
            saved_at = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=180)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--text-model", type=Path, default=Path(__file__).resolve().parents[2] / "models" / "demo-t2v",
                        help="the model whose text encoder and tokenizer are taken")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pause-file", type=Path)
    run_state.launch(train, parser.parse_args())


if __name__ == "__main__":
    main()
