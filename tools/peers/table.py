"""Every peer beside Zoetrope, stage by stage, on one quiet machine: one JSON file and one Markdown table.

    python table.py --zoetrope build/zoetrope --dry-run           # what would run, and about how long
    python table.py --zoetrope build/zoetrope --output peers

One peer is loaded at a time. After its warm-up its timed calls alternate with runs of `zoetrope bench model` of the
same stage, so each ratio compares neighbours in time. The machine's peak is measured before and after each stage and in
every run of Zoetrope. Files are written after every row; a peer that fails, runs out of time or memory is a row that
says so. --num-frames, --height, --width, --layers and --peers make it shorter.
"""

import argparse
import datetime
import json
import os
import pathlib
import select
import signal
import statistics
import subprocess
import sys
import time

import common

FOLDER = pathlib.Path(__file__).resolve().parent
ALL = common.STAGES
VAE = ("vae-encode", "vae-decode")
LAYERED = ("text", "dit")
COMPILE = ["diffusers_model.py", "--compile", "--dtype"]

# name: (stages, program and its flags, expected part of the float32 peak, expected seconds to prepare: layers, VAE).
# The expectations only serve the time that is printed first.
PEERS = {
    "diffusers-bf16": (ALL, ["diffusers_model.py", "--dtype", "bf16"], 0.25, (10, 10)),
    "diffusers-fp32": (("dit", *VAE), ["diffusers_model.py", "--dtype", "fp32"], 0.55, (10, 10)),
    "compile-bf16": (ALL, [*COMPILE, "bf16"], 0.25, (40, 80)),
    "compile-fp32": (("dit", *VAE), [*COMPILE, "fp32"], 0.6, (40, 80)),
    "openvino-bf16": (ALL, ["openvino_layer.py", "--precision", "bf16"], 0.4, (30, 40)),
    "openvino-fp32": (("dit", *VAE), ["openvino_layer.py", "--precision", "fp32"], 0.6, (30, 40)),
    "openvino-int8": (ALL, ["openvino_layer.py", "--precision", "int8"], 0.8, (60, 60)),
    "openvino-int8-fp32": (
        ("dit", *VAE),
        ["openvino_layer.py", "--precision", "int8", "--rest", "fp32"],
        0.9,
        (60, 60),
    ),
    "sdcpp-f16": (ALL, ["sdcpp.py", "--weights", "f16"], 0.25, (30, 10)),
    "sdcpp-f16-plain": (("dit",), ["sdcpp.py", "--weights", "f16", "--flash-attention", "off"], 0.2, (30, 10)),
    "sdcpp-q8_0": (LAYERED, ["sdcpp.py", "--weights", "q8_0"], 0.3, (60, 10)),
}
WHOLE = {"dit": 30, "text": 24}  # layers that stable-diffusion.cpp runs whatever is asked


class Failed(RuntimeError):
    pass


def available_memory() -> int:
    with open("/proc/meminfo") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))


def busy_fraction(seconds: float = 0.5) -> float:
    """How busy the machine's processors are while nothing of ours runs."""

    def times() -> tuple[int, int]:
        with open("/proc/stat") as file:
            values = [int(value) for value in file.readline().split()[1:9]]
        return sum(values), values[3] + values[4]  # idle, waiting for input

    total, idle = times()
    time.sleep(seconds)
    later, later_idle = times()
    return 1 - (later_idle - idle) / max(1, later - total)


class Worker:
    """A peer's program with --serve: one question, one line of JSON back."""

    def __init__(self, command: list[str], log, memory_floor: float):
        self.log, self.memory_floor = log, memory_floor
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=self.offer_to_oom_killer,
            process_group=0,  # so that close() ends what it forked, too
        )

    @staticmethod
    def offer_to_oom_killer() -> None:
        pathlib.Path("/proc/self/oom_score_adj").write_text("1000")

    def ask(self, question: str, limit: float) -> dict:
        if question:
            self.process.stdin.write(f"{question}\n".encode())
            self.process.stdin.flush()
        end = time.monotonic() + limit
        while not select.select([self.process.stdout], [], [], 0.2)[0]:
            if time.monotonic() > end:
                raise Failed(f"stopped: no answer in {limit:.0f} s")
            if available_memory() < self.memory_floor * 1e9:
                raise Failed(f"stopped: less than {self.memory_floor} GB of memory left")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"ended with {self.process.wait()}; see the log")
        return json.loads(line)

    def close(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.communicate()


def zoetrope(arguments, stage: str, **changed) -> dict:
    changed = arguments.zoetrope_flags | changed
    return common.run_zoetrope(arguments.zoetrope, arguments, stage, changed.pop("dtype", arguments.dtype), **changed)


def measure_peaks(arguments, when: str) -> list[dict]:
    peaks = []
    for dtype in sorted({"fp32", arguments.dtype}):
        tiny = {"height": 16, "width": 16, "num-frames": 1, "layers": 1, "shape": "wan2.1-t2v-1.3b", "dtype": dtype}
        result = common.run_zoetrope(arguments.zoetrope, arguments, "dit", tiny.pop("dtype"), **tiny)
        peak = {"when": when, "dtype": dtype, "tflops_per_s": result["peak_tflops_per_s"]}
        peaks.append(peak | {"instructions": result["peak_instructions"]})
        arguments.cpu = result["cpu"]
    return peaks


def summary(seconds: list[float]) -> dict:
    return {"seconds": statistics.median(seconds), "seconds_min": min(seconds), "seconds_all": seconds}


def note(results: list[dict]) -> dict:
    """One entry for several processes of Zoetrope."""
    kept = {key: results[-1][key] for key in ("dtype", "tflop", "peak_instructions")}
    kept |= summary([seconds for result in results for seconds in result["seconds_all"]])
    for key in ("tflops_per_s", "peak_tflops_per_s", "fraction_of_peak"):
        kept[key] = statistics.median(result[key] for result in results)
    return kept | {"peak_rss_bytes": max(result["peak_rss_bytes"] for result in results)}


def calls_of(arguments, peer: str, stage: str) -> int:
    whole = peer.startswith("sdcpp") and stage in WHOLE
    return arguments.whole_repeats if whole else arguments.repeats


def run_peer(arguments, peer: str, stage: str, beside: list[dict], log) -> dict:
    """The peer's row; the runs of Zoetrope between its calls are appended to beside."""
    command = [sys.executable, str(FOLDER / PEERS[peer][1][0]), *PEERS[peer][1][1:], "--serve", "--stage", stage]
    if peer.startswith("sdcpp") and stage in VAE and arguments.vae_tiling:
        command.append("--vae-tiling")
    for name in ("shape", "height", "width", "num_frames", "layers", "tokens", "threads"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    log.write(f"\n== {' '.join(command[1:])}\n".encode())
    log.flush()
    worker = Worker(command, log, arguments.memory_floor)
    try:
        row = worker.ask("", arguments.prepare_limit)
        theirs, ours, busy = [], [], []
        for _ in range(calls_of(arguments, peer, stage)):
            busy.append(busy_fraction())
            theirs.append(worker.ask("run", arguments.call_limit))
            ours.append(zoetrope(arguments, stage))
    finally:
        worker.close()
    row |= summary([answer["seconds"] for answer in theirs])
    row |= {"peak_rss_bytes": max(answer["peak_rss_bytes"] for answer in theirs), "busy": max(busy)}
    beside += ours
    row["zoetrope"] = note(ours)
    row["ratio"] = row["seconds"] / row["zoetrope"]["seconds"]
    return row


def stage_tflop(arguments, stage: str) -> float:
    """Operations of one call in TFLOP, for the expected time only."""
    frames, height, width = common.latent_size(arguments)
    if stage in VAE:  # per latent pixel of a group of four frames, from `zoetrope bench model`; the first frame is cheap
        return {"vae-decode": 2.16e-3, "vae-encode": 1.28e-3}[stage] * (frames - 0.9) * height * width
    if stage == "text":
        width, tokens = common.TEXT_WIDTH, common.TEXT_LENGTH
        products = 4 * width * width + 3 * width * common.TEXT_FFN
        return arguments.layers * 2e-12 * tokens * (products + 2 * tokens * width)
    heads, ffn, _, _ = common.SHAPES[arguments.shape]
    dim, tokens = 128 * heads, frames * height * width // 4
    products = tokens * (6 * dim * dim + 2 * dim * ffn) + 2 * common.TEXT_LENGTH * dim * dim
    return arguments.layers * 2e-12 * (products + 2 * dim * tokens * (tokens + common.TEXT_LENGTH))


def expected_seconds(arguments, peer: str, stage: str, peak: float) -> float:
    _, _, part, prepare = PEERS[peer]
    calls = calls_of(arguments, peer, stage)
    tflop = stage_tflop(arguments, stage)
    one = tflop / (part * peak)
    if peer.startswith("sdcpp") and stage in WHOLE:
        one *= WHOLE[stage] / arguments.layers
    warm_up = 0 if peer.startswith("sdcpp") else 1
    ours = 2 * tflop / (0.7 * peak) + 4  # each run of Zoetrope warms up and measures the peak twice
    return prepare[stage in VAE] + (calls + warm_up) * one + calls * ours


def size_of(row: dict) -> str:
    size = f"{row['width']}x{row['height']}x{row['num_frames']}"
    if row["stage"] == "text":
        return f"text, {row['layers']} layers"
    return f"DiT {size}, {row['layers']} layers" if row["stage"] == "dit" else f"{row['stage']} {size}"


def markdown(result: dict) -> str:
    lines = [f"{result['cpu']}, {result['threads']} threads, medians of {result['repeats']} (least to most).", ""]
    lines += ["| stage | program | seconds | TFLOP/s, of peak | Zoetrope beside it | times Zoetrope | memory, GB |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for row in result["rows"]:
        name = f"{row.get('peer', row['key'])} {row.get('dtype', '')}".strip()
        if row.get("notes"):
            name += f" ({'; '.join(row['notes'])})"
        if "error" in row:
            lines.append(f"| {size_of(row)} | {name} | {row['error']} | | | | |")
            continue
        span = f"{row['seconds']:.2f} ({row['seconds_min']:.2f} to {max(row['seconds_all']):.2f})"
        rate = f"{row['tflops_per_s']:.3f}" if "tflops_per_s" in row else ""
        if "fraction_of_peak" in row:
            rate += f", {100 * row['fraction_of_peak']:.0f} %"
        beside = f"{row['zoetrope']['seconds']:.2f}" if "zoetrope" in row else ""
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        memory = row["peak_rss_bytes"] / 1e9
        lines.append(f"| {size_of(row)} | {name} | {span} | {rate} | {beside} | {ratio} | {memory:.1f} |")
    lines += ["", "Peak, TFLOP/s:"]
    lines += [
        f"- {peak['when']}, {peak['dtype']}: {peak['tflops_per_s']:.3f} ({peak['instructions']})"
        for peak in result["peaks"]
    ]
    return "\n".join(lines) + "\n"


def save(arguments, result: dict) -> None:
    for ending, text in (("json", json.dumps(result, indent=2) + "\n"), ("md", markdown(result))):
        path = pathlib.Path(f"{arguments.output}.{ending}")
        path.with_suffix(f".{ending}.part").write_text(text)
        path.with_suffix(f".{ending}.part").replace(path)


def own_row(arguments, stage: str, **changed) -> dict:
    """Zoetrope with another setting than in the runs beside the peers."""
    row = {"peer": "Zoetrope", "stage": stage, "notes": [f"{k} {v}" for k, v in changed.items() if k != "dtype"]}
    try:
        return row | note([zoetrope(arguments, stage, repeats=arguments.repeats, **changed)])
    except RuntimeError as failure:
        return row | {"error": str(failure).split(": zoetrope: ")[-1].splitlines()[0]}


def fraction_of_peak(arguments, row: dict, peaks: list[dict]) -> dict:
    """Of the peak at the row's precision while it ran: that of Zoetrope's runs between its calls, scaled to float32
    by the last peaks measured. Nothing for integer products, whose peak is another."""
    latest = {peak["dtype"]: peak["tflops_per_s"] for peak in peaks}
    peak = row["zoetrope"]["peak_tflops_per_s"]
    if row["dtype"] == "fp32":
        peak *= latest["fp32"] / latest[arguments.dtype]
    elif row["dtype"] not in ("bf16", "f16"):
        return {}
    return {"fraction_of_peak": row["tflops_per_s"] / peak}


def own_settings(arguments, stage: str) -> dict[str, dict]:
    if "zoetrope" not in arguments.peers:
        return {}
    own = {"zoetrope-fp32": {"dtype": "fp32"}, "zoetrope-int8": {"quantization": "int8"}}
    if stage == "text":
        own["zoetrope-512"] = {"tokens": common.TEXT_LENGTH}  # the peers' work: they read the padding too
    return own


def peer_row(arguments, peer: str, stage: str, result: dict, beside: list[dict], log) -> dict:
    try:
        row = run_peer(arguments, peer, stage, beside, log)
    except (Failed, RuntimeError, OSError, ValueError) as failure:
        return {"stage": stage, "error": str(failure)}
    tflop = row["zoetrope"]["tflop"]
    if stage == "text":
        padded = [row["tflop"] for row in result["rows"] if row["key"] == "zoetrope-512" and "tflop" in row]
        tflop = padded[-1] if padded else None
    if tflop:
        row |= {"tflop": tflop, "tflops_per_s": tflop / row["seconds"]}
        row |= fraction_of_peak(arguments, row, result["peaks"])
    return row


def run_stage(arguments, stage: str, peers: list[str], result: dict, log) -> None:
    sizes = {name: getattr(arguments, name) for name in ("height", "width", "num_frames", "layers", "threads")}
    own = own_settings(arguments, stage)
    beside: list[dict] = []
    for key in [*own, *peers, "zoetrope"]:
        if key == "zoetrope" and not beside:
            continue
        print(f"{datetime.datetime.now():%H:%M:%S} {stage} {key}", flush=True)
        started = time.monotonic()
        if key in own:
            row = own_row(arguments, stage, **own[key])
        elif key in PEERS:
            row = peer_row(arguments, key, stage, result, beside, log)
        else:
            flags = [f"{name} {value}" for name, value in arguments.zoetrope_flags.items()]
            row = {"peer": "Zoetrope", "stage": stage, "notes": ["all runs beside the peers", *flags]} | note(beside)
        result["rows"].append(sizes | {"key": key} | row | {"took_seconds": time.monotonic() - started})
        save(arguments, result)
        if row.get("busy", 0) > 0.05:
            print(f"  other programs kept the machine {100 * row['busy']:.0f} % busy: measure again", flush=True)
        print("  " + (row.get("error") or f"{row['seconds']:.3f} s"), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.stage_flags(parser)
    parser.add_argument("--zoetrope", default="build/zoetrope", help="the program")
    parser.add_argument("--zoetrope-flags", default="", help="more of its flags, as name=value,name=value")
    parser.add_argument("--dtype", default="bf16", help="of the runs of Zoetrope that the peers are compared with")
    parser.add_argument("--stages", default="dit,vae-decode,vae-encode,text", help=", ".join(ALL))
    parser.add_argument("--peers", default=",".join(("zoetrope", *PEERS)), help=", ".join(("zoetrope", *PEERS)))
    parser.add_argument("--whole-repeats", type=int, default=1, help="calls where a peer runs all layers of a model")
    parser.add_argument("--vae-tiling", action="store_true", help="stable-diffusion.cpp's VAE in tiles (less memory)")
    parser.add_argument("--output", default="peers", help="writes OUTPUT.json, OUTPUT.md and OUTPUT.log")
    parser.add_argument("--memory-floor", type=float, default=1.0, help="GB left at which a peer is stopped")
    parser.add_argument("--prepare-limit", type=float, default=3600, help="seconds to load, convert and warm up")
    parser.add_argument("--call-limit", type=float, default=3600, help="seconds of one call")
    parser.add_argument("--dry-run", action="store_true", help="print the expected time and stop")
    arguments = parser.parse_args()
    arguments.zoetrope_flags = dict(pair.split("=", 1) for pair in arguments.zoetrope_flags.split(",") if pair)
    arguments.peers, arguments.stages = arguments.peers.split(","), arguments.stages.split(",")
    for name in arguments.peers:
        if name != "zoetrope" and name not in PEERS:
            parser.error(f"--peers has '{name}': accepted are zoetrope, {', '.join(PEERS)}")
    for name in arguments.stages:
        if name not in ALL:
            parser.error(f"--stages has '{name}': accepted are {', '.join(ALL)}")
    if not os.access(arguments.zoetrope, os.X_OK):
        parser.error(f"--zoetrope is '{arguments.zoetrope}', which is no program")
    return arguments


def main() -> None:
    arguments = parse()
    peaks = measure_peaks(arguments, "at the start")
    peak = next(entry["tflops_per_s"] for entry in peaks if entry["dtype"] == "fp32")
    chosen = {stage: [p for p in arguments.peers if p in PEERS and stage in PEERS[p][0]] for stage in arguments.stages}
    total = 0.0
    for stage, peers in chosen.items():
        own = len(own_settings(arguments, stage))
        seconds = own * ((arguments.repeats + 1) * stage_tflop(arguments, stage) / (0.7 * peak) + 4)
        seconds += sum(expected_seconds(arguments, peer, stage, peak) for peer in peers)
        print(f"{stage}: {', '.join(peers)}: about {seconds / 60:.0f} minutes")
        total += seconds
    print(f"in all about {total / 60:.0f} minutes; float32 peak {peak:.3f} TFLOP/s", flush=True)
    if arguments.dry_run:
        return
    if (busy := busy_fraction(2)) > 0.05:
        print(f"other programs keep the machine {100 * busy:.0f} % busy", flush=True)
    result = {"cpu": arguments.cpu, "threads": arguments.threads, "repeats": arguments.repeats}
    result |= {"started": f"{datetime.datetime.now():%Y-%m-%d %H:%M}", "peaks": peaks, "rows": []}
    with open(f"{arguments.output}.log", "wb") as log:
        for stage, peers in chosen.items():
            run_stage(arguments, stage, peers, result, log)
            result["peaks"] += measure_peaks(arguments, f"after {stage}")
            save(arguments, result)
    print(markdown(result))


if __name__ == "__main__":
    main()
