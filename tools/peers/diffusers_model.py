"""A stage of a real model's shape in Diffusers and in zoetrope, alternately in one run.

    python diffusers_model.py --zoetrope build/zoetrope --stage dit --height 480 --width 832 --num-frames 17

Needs diffusers, transformers and torch. Random weights on both sides; figures are medians of --repeats after one
warm-up each. Only the ratio of one run holds.
"""

import argparse
import json
import statistics
import subprocess
import time

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

HEADS = {"wan2.1-t2v-1.3b": 12, "wan2.1-t2v-14b": 40}
FFN = {"wan2.1-t2v-1.3b": 8960, "wan2.1-t2v-14b": 13824}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def dit(arguments, dtype):
    """The blocks alone, as zoetrope times them: prompt keys and values inside."""
    model = WanTransformer3DModel(
        num_attention_heads=HEADS[arguments.shape], ffn_dim=FFN[arguments.shape], num_layers=arguments.layers
    )
    keep = WanTransformer3DModel._keep_in_fp32_modules
    for name, parameter in model.named_parameters():
        if not any(part in name.split(".") for part in keep):
            parameter.data = parameter.data.to(dtype)
    frames = (arguments.num_frames - 1) // 4 + 1
    latents = torch.randn(1, 16, frames, arguments.height // 8, arguments.width // 8, dtype=dtype)
    text = torch.randn(1, 512, 4096, dtype=dtype)
    return lambda: model(latents, torch.tensor([500]), text, return_dict=False)


def text(arguments, dtype):
    config = UMT5Config(
        vocab_size=256, d_model=4096, d_kv=64, d_ff=10240, num_layers=arguments.layers, num_heads=64
    )
    model = UMT5EncoderModel(config).to(dtype).eval()
    ids = torch.arange(512)[None] % 256
    mask = (torch.arange(512) < arguments.tokens)[None].long()
    return lambda: model(ids, mask)


def vae(arguments, dtype, decode):
    model = AutoencoderKLWan().to(dtype).eval()
    frames = (arguments.num_frames - 1) // 4 + 1
    if decode:
        latents = torch.randn(1, 16, frames, arguments.height // 8, arguments.width // 8, dtype=dtype)
        return lambda: model.decode(latents)
    video = torch.randn(1, 3, arguments.num_frames, arguments.height, arguments.width, dtype=dtype).tanh()
    return lambda: model.encode(video)


def make_work(arguments, dtype):
    if arguments.stage == "dit":
        return dit(arguments, dtype)
    if arguments.stage == "text":
        return text(arguments, dtype)
    return vae(arguments, dtype, arguments.stage == "vae-decode")


def run_zoetrope(arguments) -> dict:
    command = [arguments.zoetrope, "bench", "model", "--json", "--repeats", "1", "--shape", arguments.shape]
    command += ["--stage", arguments.stage, "--height", str(arguments.height), "--width", str(arguments.width)]
    command += ["--num-frames", str(arguments.num_frames), "--layers", str(arguments.layers)]
    command += ["--tokens", str(arguments.tokens), "--dtype", arguments.dtype, "--threads", str(arguments.threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", default="build/zoetrope")
    parser.add_argument("--shape", default="wan2.1-t2v-1.3b", choices=HEADS)
    parser.add_argument("--stage", default="dit", choices=["text", "dit", "vae-encode", "vae-decode"])
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--num-frames", type=int, default=17)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--dtype", default="bf16", choices=DTYPES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    work = make_work(arguments, DTYPES[arguments.dtype])
    theirs, ours = [], []
    with torch.inference_mode():
        work()
        for _ in range(arguments.repeats):
            started = time.perf_counter()
            work()
            theirs.append(time.perf_counter() - started)
            ours.append(run_zoetrope(arguments))
    seconds = statistics.median(result["seconds"] for result in ours)
    print(
        f"| {arguments.stage} {arguments.height}x{arguments.width}x{arguments.num_frames} {arguments.dtype} "
        f"| {statistics.median(theirs):.2f} ({min(theirs):.2f} to {max(theirs):.2f}) "
        f"| {seconds:.2f} ({min(r['seconds'] for r in ours):.2f} to {max(r['seconds'] for r in ours):.2f}) "
        f"| {statistics.median(theirs) / seconds:.2f} "
        f"| {100 * statistics.median(r['fraction_of_peak'] for r in ours):.0f} % |"
    )


if __name__ == "__main__":
    main()
