#!/usr/bin/env python3
"""What a clip would take on servers that have not been measured: printed as the table of docs/performance.md.

    python bench/on_paper.py [--clock 2.4] [--attention 0.45] [--linear 0.70] [--bandwidth 300]

Operations are counted from the models' shapes; seconds follow from a core's peak and the fraction of it that each kind
of work reaches. Every assumption is a flag or a constant below, with its source. Nothing but Python's own library.
"""

import argparse
import dataclasses

TEXT = 512  # tokens of the prompt, padded
STEPS = 4
WIDTH, HEIGHT, FRAMES = 832, 480, 81
AMX_BF16 = 1024  # operations a cycle and core: TDPBF16PS is 16 x 16 x 32 multiply-adds, one every 16 cycles (Intel's optimisation manual)
VAE_DECODE_TFLOP = 13.87 / 5  # a frame of 832x480, from `zoetrope bench model --stage vae-decode --num-frames 5`


@dataclasses.dataclass
class Model:
    name: str
    layers: int
    dim: int
    ffn: int


@dataclasses.dataclass
class Machine:
    name: str
    cores: int
    sockets: int


MODELS = (Model("1.3B", 30, 1536, 8960), Model("14B", 40, 5120, 13824))
MACHINES = (Machine("64 cores, 1 socket", 64, 1), Machine("128 cores, 2 sockets", 128, 2), Machine("192 cores, 2 sockets", 192, 2))


def operations(model: Model) -> dict[str, float]:
    """Of one step without guidance: as `Dit::flop` counts them."""
    tokens = (WIDTH // 16) * (HEIGHT // 16) * ((FRAMES - 1) // 4 + 1)
    per_layer = {
        "attention": 4.0 * tokens * (tokens + TEXT) * model.dim,
        "linear": 2.0 * model.dim**2 * (6 * tokens + 2 * TEXT) + 4.0 * tokens * model.dim * model.ffn,
    }
    return {kind: model.layers * flop for kind, flop in per_layer.items()}


def bytes_moved(model: Model) -> float:
    """Of one step through memory, at least: the passes between the products (measured ones of docs/performance.md move
    some 60 bytes per token and channel in a layer), the products' own operands, and the weights once."""
    tokens = (WIDTH // 16) * (HEIGHT // 16) * ((FRAMES - 1) // 4 + 1)
    passes = 60.0 * tokens * model.dim
    operands = 2.0 * tokens * (6 * 2 * model.dim + 2 * (model.dim + model.ffn) + 4 * model.dim)
    weights = 2.0 * (8 * model.dim**2 + 2 * model.dim * model.ffn)
    return model.layers * (passes + operands + weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock", type=float, default=2.4, help="GHz of all cores under AMX")
    parser.add_argument("--attention", type=float, default=0.45, help="part of the peak")
    parser.add_argument("--linear", type=float, default=0.70, help="part of the peak")
    parser.add_argument("--vae", type=float, default=0.35, help="part of the peak")
    parser.add_argument("--bandwidth", type=float, default=300, help="GB/s of a socket")
    parser.add_argument("--numa", type=float, default=0.85, help="what is left of the second socket's speed")
    options = parser.parse_args()
    print(f"| {WIDTH}x{HEIGHT}, {FRAMES} frames, {STEPS} steps, no guidance | operations, PFLOP | "
          + " | ".join(machine.name for machine in MACHINES) + " |")  # fmt: skip
    print("| --- | --- |" + " --- |" * len(MACHINES))

    def speed(machine: Machine) -> float:
        """Peak, operations a second."""
        sockets = 1 + options.numa * (machine.sockets - 1)
        return machine.cores / machine.sockets * sockets * AMX_BF16 * options.clock * 1e9

    def row(name: str, flop: float, seconds: list[float]) -> None:
        counted = f"{flop / 1e15:.2f}" if flop else ""
        print(f"| {name} | {counted} | " + " | ".join(f"{s:.1f} s" for s in seconds) + " |")

    vae_flop = VAE_DECODE_TFLOP * 1e12 * FRAMES
    vae = [vae_flop / (speed(machine) * options.vae) for machine in MACHINES]
    print("| peak, TFLOP/s | | " + " | ".join(f"{speed(machine) / 1e12:.0f}" for machine in MACHINES) + " |")
    for model in MODELS:
        flop = operations(model)
        total = STEPS * sum(flop.values())
        computing, moving = [], []
        for machine in MACHINES:
            at = speed(machine)
            computing.append(STEPS * (flop["attention"] / options.attention + flop["linear"] / options.linear) / at)
            bandwidth = options.bandwidth * 1e9 * (1 + options.numa * (machine.sockets - 1))
            moving.append(STEPS * bytes_moved(model) / bandwidth)
        row(f"{model.name}: products of the steps", total, computing)
        row(f"{model.name}: their memory, did nothing overlap", 0, moving)
        row(f"**{model.name}: steps and decoding**", total + vae_flop, [a + b + c for a, b, c in zip(computing, moving, vae)])
    row("decoding alone", vae_flop, vae)


if __name__ == "__main__":
    main()
