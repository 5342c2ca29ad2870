"""What the programs of this folder share: the flags, one stage timed call by call, and Zoetrope's own bench.

A peer's program is run in two ways. Alone it times --repeats calls after one warm-up and prints one JSON object, or one
line without --json. With --serve it says when it is ready (one JSON line), then makes one timed call for every line
"run" that it reads and answers each with one JSON line: table.py uses this to alternate it with Zoetrope. Keys:
peer, versions, shape, stage, dtype, threads, height, width, num_frames, layers, tokens, prepare_seconds (loading,
converting, compiling and the warm-up), notes; alone also seconds (median), seconds_min, seconds_all, peak_rss_bytes.
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Callable

# heads of 128 channels, feed-forward width, layers, channels of the latents
SHAPES = {"wan2.1-t2v-1.3b": (12, 8960, 30, 16), "wan2.1-t2v-14b": (40, 13824, 40, 16)}
STAGES = ("text", "dit", "vae-encode", "vae-decode")
TEXT_LENGTH, TEXT_WIDTH, TEXT_FFN, TEXT_HEADS, TEXT_LAYERS = 512, 4096, 10240, 64, 24  # UMT5-XXL


@dataclasses.dataclass
class Peer:
    """One stage in a peer, ready. call() runs it once and returns its seconds, or None to have the call timed."""

    name: str
    call: Callable[[], float | None]
    versions: dict
    dtype: str
    notes: list = dataclasses.field(default_factory=list)
    warm_up: bool = True  # whether the first call is slower than the others
    peak_rss: Callable[[], int] = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def stage_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", default="wan2.1-t2v-1.3b", choices=SHAPES)
    parser.add_argument("--height", type=int, default=480, help="pixels")
    parser.add_argument("--width", type=int, default=832, help="pixels")
    parser.add_argument("--num-frames", type=int, default=5, help="4n+1")
    parser.add_argument("--layers", type=int, default=1, help="layers of the DiT or the text encoder")
    parser.add_argument("--tokens", type=int, default=30, help="real tokens of the prompt, of 512")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3, help="timed calls after one warm-up")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The flags of one peer's program, parsed; sets the thread counts of what is imported afterwards."""
    stage_flags(parser)
    parser.add_argument("--stage", default="dit", choices=STAGES)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--serve", action="store_true", help="one timed call per line on stdin (table.py)")
    arguments = parser.parse_args()
    if arguments.num_frames % 4 != 1 or arguments.height % 16 or arguments.width % 16:
        parser.error("--num-frames must be 4n+1, --height and --width multiples of 16")
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(arguments.threads)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return arguments


def latent_size(arguments) -> tuple[int, int, int]:
    return (arguments.num_frames - 1) // 4 + 1, arguments.height // 8, arguments.width // 8


def timed(peer: Peer) -> float:
    started = time.perf_counter()
    seconds = peer.call()
    return time.perf_counter() - started if seconds is None else seconds


def serve(prepare: Callable[[argparse.Namespace], Peer], arguments) -> None:
    """Prepares the peer, warms it up and times it; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    started = time.perf_counter()
    peer = prepare(arguments)
    if peer.warm_up:
        timed(peer)
    row = {"peer": peer.name, "versions": peer.versions, "shape": arguments.shape, "stage": arguments.stage}
    row |= {"dtype": peer.dtype, "threads": arguments.threads, "height": arguments.height, "width": arguments.width}
    row |= {"num_frames": arguments.num_frames, "layers": arguments.layers, "tokens": arguments.tokens}
    row |= {"prepare_seconds": time.perf_counter() - started, "notes": peer.notes}
    if arguments.serve:
        print(json.dumps(row), file=out)
        for line in sys.stdin:
            if line.strip() == "run":
                print(json.dumps({"seconds": timed(peer), "peak_rss_bytes": peer.peak_rss()}), file=out)
        return
    seconds = [timed(peer) for _ in range(arguments.repeats)]
    row |= {"seconds": statistics.median(seconds), "seconds_min": min(seconds), "seconds_all": seconds}
    row["peak_rss_bytes"] = peer.peak_rss()
    if arguments.json:
        print(json.dumps(row, indent=2), file=out)
    else:
        size = f"{row['width']}x{row['height']}x{row['num_frames']}"
        print(
            f"{row['peer']}, {row['stage']} {row['dtype']}, {size}, {row['layers']} layers, {row['threads']} threads: "
            f"{row['seconds']:.3f} s ({min(seconds):.3f} to {max(seconds):.3f})",
            file=out,
        )


def run_zoetrope(binary: str, arguments, stage: str, dtype: str, repeats: int = 1, **changed) -> dict:
    """Zoetrope's bench of the same stage in a process of its own: one warm-up, then the timed calls."""
    values = {"shape": arguments.shape, "stage": stage, "height": arguments.height, "width": arguments.width}
    values |= {"num-frames": arguments.num_frames, "layers": arguments.layers, "tokens": arguments.tokens}
    values |= {"dtype": dtype, "threads": arguments.threads, "repeats": repeats} | changed
    command = [binary, "bench", "model", "--json"]
    for name, value in values.items():
        command += [f"--{name}", str(value)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()}")
    return json.loads(result.stdout)
