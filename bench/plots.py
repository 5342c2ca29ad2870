#!/usr/bin/env python3
"""Draws docs/images/bench-*.svg from what bench/collect.py measured.

    python -m venv .venv-plots && .venv-plots/bin/pip install -r bench/requirements.txt
    .venv-plots/bin/python bench/plots.py --data bench/data --output docs/images
"""

import argparse
import json
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

# Operators of a layer from the bottom of a bar up: name, operators of the bench, colour.
GROUPS = (
    ("self-attention", ("self_attention",), "#33658a"),
    ("linear layers", ("linear", "linear_int8", "linear_fp32", "linear_low_rank"), "#f6ae2d"),
    ("attention to the prompt", ("cross_attention",), "#86bbd8"),
    ("norms, rotation, gates", ("add_gated", "layer_norm", "layer_norm_modulate", "rms_norm", "rms_norm_rotary"), "#7a9e7e"),
)  # fmt: skip
OTHER = "#b0b0b0"
NUMBERS = ("bf16", "int8")
INT8 = ("avx512vnni", "amxint8")  # instruction sets whose peak is of int8

# Per element of a pass over memory: operators of the bench, operations (nominal: a multiplication and an addition are
# two) and bytes read and written, with a float32 residual stream and bf16 between the products.
PASSES = {
    "layer norms": (("layer_norm", "layer_norm_modulate"), 9, 6),
    "norm and rotation": (("rms_norm_rotary",), 7, 4),
    "gated sums": (("add_gated",), 2, 10),
}
DIMENSIONS = {"wan2.1-t2v-1.3b": (1536, 8960), "wan2.1-t2v-14b": (5120, 13824), "wan2.2-ti2v-5b": (3072, 14336)}
TEXT = 512  # tokens of the prompt


def load(folder: pathlib.Path) -> dict[str, dict]:
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def tokens_of(run: dict) -> int:
    return (run["width"] // 16) * (run["height"] // 16) * ((run["num_frames"] - 1) // 4 + 1)


def stacks(run: dict) -> list[float]:
    """Seconds of each group, then of what no operator counts."""
    parts = {name: part["seconds"] for name, part in run["parts"].items()}
    sums = [sum(parts.get(name, 0) for name in names) for _, names, _ in GROUPS]
    return [*sums, max(0.0, run["seconds_all"][-1] - sum(sums))]


def runs_like(data: dict, kind: str, numbers: str) -> list[dict]:
    prefix = f"{kind}-{numbers}-"
    return sorted((run for name, run in data.items() if name.startswith(prefix)), key=tokens_of)


def bars(axis, runs: list[dict], labels: list[str], numbers: str) -> None:
    bottoms = [0.0] * len(runs)
    columns = list(zip(*(stacks(run) for run in runs)))
    names = [(name, colour) for name, _, colour in GROUPS] + [("the rest", OTHER)]
    for (name, colour), heights in zip(names, columns):
        axis.bar(labels, heights, bottom=bottoms, color=colour, label=name, width=0.62)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights)]
    for index, (run, top) in enumerate(zip(runs, bottoms)):
        axis.annotate(f"{run['seconds']:.3g} s", (index, top), ha="center", va="bottom", fontsize=8)
    axis.set_title(numbers)
    axis.set_ylabel("seconds of one layer")
    axis.margins(y=0.12)


def draw_bars(data: dict, keep, label, axis_label: str, title: str):
    figure, axes = plt.subplots(1, len(NUMBERS), figsize=(9, 3.6), layout="constrained")
    for axis, numbers in zip(axes, NUMBERS):
        runs = [run for run in runs_like(data, "layer", numbers) if keep(run)]
        bars(axis, runs, [label(run) for run in runs], numbers)
        axis.set_xlabel(axis_label)
    axes[0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def draw_threads(data: dict):
    figure, axes = plt.subplots(1, len(NUMBERS), figsize=(9, 3.6), layout="constrained")
    for axis, numbers in zip(axes, NUMBERS):
        runs, labels = [], []
        for one in runs_like(data, "thread", numbers):
            all_threads = next(
                run
                for run in runs_like(data, "layer", numbers)
                if (run["width"], run["num_frames"]) == (one["width"], one["num_frames"])
            )
            runs += [one, all_threads]
            labels += [f"{run['num_frames']} frames,\n{run['threads']} threads".replace("1 threads", "1 thread")
                       for run in (one, all_threads)]  # fmt: skip
        bars(axis, runs, labels, numbers)
    axes[0].legend(fontsize=8, frameon=False)
    figure.suptitle("One layer by threads", fontsize=10)
    return figure


def operators(run: dict, numbers: str) -> list[tuple[str, float, float, float]]:
    """Name, operations, bytes that must move through memory at least, seconds."""
    dim, ffn = DIMENSIONS[run["shape"]]
    tokens, parts = tokens_of(run), run["parts"]
    weight = 1 if numbers == "int8" else 2  # bytes of a weight's number
    products = [(tokens, dim, dim)] * 6 + [(TEXT, dim, dim)] * 2 + [(tokens, dim, ffn), (tokens, ffn, dim)]
    found = []
    linear = "linear_int8" if numbers == "int8" else "linear"
    if linear in parts:
        flop = sum(2.0 * rows * a * b for rows, a, b in products)
        moved = sum(2.0 * rows * (a + b) + weight * a * b for rows, a, b in products)
        found.append(("linear layers", flop, moved, parts[linear]["seconds"]))
    for name, keys in (("self_attention", tokens), ("cross_attention", TEXT)):
        if name in parts:
            moved = 2.0 * dim * (2 * tokens + 2 * keys)
            label = "self-attention" if keys == tokens else "attention to the prompt"
            found.append((label, 4.0 * tokens * keys * dim, moved, parts[name]["seconds"]))
    for name, (passes, flop, moved) in PASSES.items():
        present = [parts[one] for one in passes if one in parts]
        elements = float(tokens * dim * sum(part["calls"] for part in present))
        if present:
            found.append((name, flop * elements, moved * elements, sum(part["seconds"] for part in present)))
    return found


def draw_roofline(data: dict):
    kernels = data["kernels"]
    peaks = {peak["instructions"]: peak["tflops_per_s"] * 1e12 for peak in kernels["peaks"]}
    copy = kernels["copy_gbytes_per_s"] * 1e9
    roofs = {
        "bf16": max(value for name, value in peaks.items() if name not in INT8),
        "int8": max((value for name, value in peaks.items() if name in INT8), default=0),
    }
    figure, axes = plt.subplots(1, len(NUMBERS), figsize=(9, 4), layout="constrained", sharey=True)
    low, high = 0.1, 1e5
    for axis, numbers in zip(axes, NUMBERS):
        roof = roofs[numbers]
        knee = roof / copy
        axis.plot([low, knee, high], [low * copy, roof, roof], color="black", linewidth=1)
        axis.annotate(f"{roof / 1e12:.2f} tera-operations/s", (high, roof), ha="right", va="bottom", fontsize=8)
        axis.annotate(f"copying: {copy / 1e9:.0f} GB/s", (knee / 5, roof / 5), fontsize=8, ha="right", va="bottom")
        run = runs_like(data, "layer", numbers)[-1]
        for name, flop, moved, seconds in operators(run, numbers):
            colour = next((c for n, _, c in GROUPS if n == name), GROUPS[-1][2])
            axis.plot(flop / moved, flop / seconds, "o", color=colour)
            beside = name == "attention to the prompt"
            axis.annotate(name, (flop / moved, flop / seconds), fontsize=8, textcoords="offset points",
                          xytext=(-6, 0) if beside else (0, -7), ha="right" if beside else "center",
                          va="center" if beside else "top")  # fmt: skip
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(low / 4, high)
        axis.set_title(numbers)
        axis.set_xlabel("operations per byte that must move")
        axis.grid(True, which="major", color="#e5e5e5", linewidth=0.6)
    axes[0].set_ylabel("operations per second")
    size = f"{run['width']}x{run['height']}, {run['num_frames']} frames"
    figure.suptitle(f"{run['shape']}, {size}: one layer of a step", fontsize=10)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("bench/data"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("docs/images"))
    options = parser.parse_args()
    data = load(options.data)
    run = next(run for name, run in data.items() if name.startswith("layer-"))
    machine = f"{run['cpu']}, {run['threads']} threads"
    width = max(r["width"] for name, r in data.items() if name.startswith("layer-"))
    frames = max(r["num_frames"] for name, r in data.items() if name.startswith("layer-"))
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "zoetrope", "font.size": 9, "axes.spines.top": False,
                         "axes.spines.right": False})  # fmt: skip
    figures = {
        "frames": draw_bars(data, lambda r: r["width"] == width, lambda r: str(r["num_frames"]), "frames",
                            f"{run['shape']}, {width} pixels wide; {machine}"),
        "resolution": draw_bars(data, lambda r: r["num_frames"] == frames, lambda r: f"{r['width']}x{r['height']}",
                                f"size, {frames} frames", f"{run['shape']}; {machine}"),
        "threads": draw_threads(data),
        "roofline": draw_roofline(data),
    }  # fmt: skip
    options.output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        file = options.output / f"bench-{name}.svg"
        figure.savefig(file, metadata={"Date": None})
        print(file)


if __name__ == "__main__":
    main()
