"""What the two training programs share: worker processes, a clock of working time, checkpoints, averages.

A run is a team of processes with one thread each that average their gradients once per step. On a
machine whose cores are shared with other work, that is several times faster than threads, which
wait for each other in every operation.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

CHECKPOINT_EVERY_S = 120


class Team:
    """This process's place among the workers; rank 0 keeps the time and writes the checkpoints."""

    def __init__(self, rank: int, size: int, meeting_point: Path):
        self.rank, self.size = rank, size
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=size,
                                timeout=datetime.timedelta(hours=12))

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> None:
        """Replaces everybody's values by their sum."""
        dist.all_reduce(values)

    def share(self, value: object) -> object:
        """Rank 0's value."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def average_gradients(self, parameters: list[torch.nn.Parameter], worked_s: float) -> float:
        """Also tells everybody rank 0's working time, so that all follow the same schedule."""
        with_gradients = [p for p in parameters if p.grad is not None]
        flat = torch.cat([p.grad.flatten() for p in with_gradients] + [torch.tensor([worked_s if self.leads else 0.0])])
        self.sum(flat)
        offset = 0
        for parameter in with_gradients:
            parameter.grad.copy_(flat[offset:offset + parameter.numel()].view_as(parameter.grad) / self.size)
            offset += parameter.numel()
        return float(flat[-1])


def set_rates(optimizers: list, peaks: tuple[float, ...], step: int, progress: float) -> None:
    for optimizer, peak in zip(optimizers, peaks):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(peak, step, progress)


def descend(loss: torch.Tensor, module: torch.nn.Module, parameters: list[torch.nn.Parameter], optimizers: list,
            team: Team, worked_s: float) -> float:
    """One step against the gradients of the whole team. Gives rank 0's working time."""
    module.zero_grad(set_to_none=True)
    loss.backward()
    worked_s = team.average_gradients(parameters, worked_s)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return worked_s


def launch(worker: Callable[[Team, argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Runs worker(team, args) in args.processes processes."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_start, (worker, args, Path(folder) / "team"), nprocs=args.processes)


def _start(rank: int, worker: Callable[[Team, argparse.Namespace], None], args: argparse.Namespace, meeting_point: Path):
    worker(Team(rank, args.processes, meeting_point), args)


class Clock:
    """Working seconds of a run, over restarts, as this process's time on a core: on a busy machine a run takes longer
    but gets as far. `wait` blocks while the pause file exists."""

    def __init__(self, minutes: float, pause_file: Path | None, worked_s: float = 0.0):
        self.total_s = minutes * 60
        self.worked_s = worked_s
        self._pause_file = pause_file
        self._last = time.process_time()

    def wait(self) -> None:
        """Called once per step: adds the step's time, then sleeps as long as it is told to."""
        now = time.process_time()
        self.worked_s += now - self._last
        self._last = now
        while self._pause_file is not None and self._pause_file.exists():
            time.sleep(1.0)

    @property
    def progress(self) -> float:
        return min(1.0, self.worked_s / self.total_s)


def learning_rate(peak: float, step: int, progress: float, warmup_steps: int = 200) -> float:
    """Linear warm-up by steps, then a cosine over the working time down to 2 % of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * min(1.0, (step + 1) / warmup_steps) * (0.02 + 0.98 * cosine)


class Average:
    """Exponential moving average of a module's parameters; young averages forget faster."""

    def __init__(self, module: torch.nn.Module, decay: float):
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, parameter in module.named_parameters():
            self.values[name].lerp_(parameter, weight)

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        for name, parameter in module.named_parameters():
            parameter.copy_(self.values[name])


def save(path: Path, state: dict) -> None:
    """Writes beside the old checkpoint, then replaces it: a killed run leaves a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)
