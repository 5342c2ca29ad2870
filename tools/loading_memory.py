#!/usr/bin/env python3
"""Shows that loading a model of the 14B shape never holds a second copy of its weights.

    python3 tools/loading_memory.py --zoetrope build/zoetrope [--layers 6] [--stored F32] [--dtype bf16]

Writes a Diffusers folder whose transformer has the sizes of Wan2.1 T2V 14B (5120 channels, 13824 in the feed-forward, 40
heads) with fewer layers. Its weights are holes in the file: they read as zeros, take no disk, and cost the memory
that real ones cost. One step of one small frame is then run, and the highest resident set of the process is compared
with the weights in the precision that is computed in plus what the program itself predicted beside them. Fails
where it is above that by more than a twentieth.
"""

import argparse
import json
import math
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
BYTES = {"F32": 4, "BF16": 2, "F16": 2}
DIM, FFN, HEADS, TEXT, FREQUENCIES = 5120, 13824, 40, 4096, 256  # of Wan2.1 T2V 14B
MIB = 1 << 20


def linear(name, rows, columns, bias=True):
    return {f"{name}.weight": [rows, columns], **({f"{name}.bias": [rows]} if bias else {})}


def transformer(layers):
    """Names and shapes of Diffusers' WanTransformer3DModel."""
    shapes = {"patch_embedding.weight": [DIM, 16, 1, 2, 2], "patch_embedding.bias": [DIM],
              "scale_shift_table": [1, 2, DIM], **linear("proj_out", 64, DIM)}  # fmt: skip
    for name, rows, columns in (("text_embedder.linear_1", DIM, TEXT), ("text_embedder.linear_2", DIM, DIM),
                                ("time_embedder.linear_1", DIM, FREQUENCIES), ("time_embedder.linear_2", DIM, DIM),
                                ("time_proj", 6 * DIM, DIM)):  # fmt: skip
        shapes |= linear(f"condition_embedder.{name}", rows, columns)
    for i in range(layers):
        block = f"blocks.{i}"
        for attention in ("attn1", "attn2"):
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                shapes |= linear(f"{block}.{attention}.{name}", DIM, DIM)
            shapes |= {f"{block}.{attention}.norm_{which}.weight": [DIM] for which in "qk"}
        shapes |= {**linear(f"{block}.ffn.net.0.proj", FFN, DIM), **linear(f"{block}.ffn.net.2", DIM, FFN),
                   f"{block}.norm2.weight": [DIM], f"{block}.norm2.bias": [DIM],
                   f"{block}.scale_shift_table": [1, 6, DIM]}  # fmt: skip
    config = {"_class_name": "WanTransformer3DModel", "num_attention_heads": HEADS, "attention_head_dim": DIM // HEADS,
              "in_channels": 16, "out_channels": 16, "text_dim": TEXT, "freq_dim": FREQUENCIES, "ffn_dim": FFN,
              "num_layers": layers, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads"}  # fmt: skip
    return shapes, config


def text_encoder(vocabulary):
    """One layer of UMT5-XXL's width, over a small vocabulary: it is let go before the transformer is read."""
    width, inner, ffn, heads = TEXT, TEXT, 10240, 64
    block = "encoder.block.0.layer."
    shapes = {"shared.weight": [vocabulary, width], "encoder.final_layer_norm.weight": [width],
              f"{block}0.layer_norm.weight": [width], f"{block}1.layer_norm.weight": [width],
              f"{block}0.SelfAttention.relative_attention_bias.weight": [32, heads]}  # fmt: skip
    for name in "qkvo":
        shapes[f"{block}0.SelfAttention.{name}.weight"] = [inner, width]
    for name, rows, columns in (("wi_0", ffn, width), ("wi_1", ffn, width), ("wo", width, ffn)):
        shapes[f"{block}1.DenseReluDense.{name}.weight"] = [rows, columns]
    config = {"model_type": "umt5", "vocab_size": vocabulary, "d_model": width, "d_kv": inner // heads, "d_ff": ffn,
              "num_layers": 1, "num_heads": heads, "feed_forward_proj": "gated-gelu"}  # fmt: skip
    return shapes, config


def write(folder, stem, shapes, config, dtype):
    """-> bytes of the tensors, none of them written."""
    folder.mkdir(parents=True)
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        begin, end = end, end + BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / f"{stem}.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps(config))
    return end


def write_model(folder, layers, stored):
    golden = json.loads((GOLDEN / "layouts" / "vae_2_1.json").read_text())  # names of the VAE, a narrow one
    tokenizer = GOLDEN / "pipeline" / "unipc" / "tokenizer"
    vocabulary = json.loads((GOLDEN / "pipeline/unipc/text_encoder/config.json").read_text())["vocab_size"]
    write(folder / "transformer", "diffusion_pytorch_model", *transformer(layers), stored)
    write(folder / "vae", "diffusion_pytorch_model", golden["canonical"], golden["config"], "F32")
    write(folder / "text_encoder", "model", *text_encoder(vocabulary), stored)
    shutil.copytree(tokenizer, folder / "tokenizer")
    shutil.copytree(GOLDEN / "pipeline" / "unipc" / "scheduler", folder / "scheduler")
    shutil.copy(GOLDEN / "pipeline" / "unipc" / "model_index.json", folder)


def status_of(process):
    """RssAnon and VmHWM of a process, bytes."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return tuple(1024 * int(values.get(key, "0 kB").split()[0]) for key in ("RssAnon", "VmHWM"))


def run(program, folder, dtype):
    """-> the report, and the most memory of its own (no pages of files) that was seen."""
    command = [program, "generate", "--model-path", folder, "--prompt", "a red circle", "--height", "64", "--width", "64",
               "--num-frames", "1", "--num-inference-steps", "1", "--guidance-scale", "1", "--seed", "1", "--dtype", dtype,
               "--output-type", "latent", "--output-path", folder / "x.safetensors", "--json"]  # fmt: skip
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    own = 0
    while process.poll() is None:
        own = max(own, status_of(process)[0])
        time.sleep(0.02)
    out, err = process.communicate()
    if process.returncode != 0:
        sys.exit(err.decode())
    return json.loads(out), own


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", type=Path, default=ROOT / "build" / "zoetrope")
    parser.add_argument("--layers", type=int, default=6, help="of 40; default: 6")
    parser.add_argument("--stored", choices=BYTES, default="F32", help="precision in the file; default: F32")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="bf16", help="computed in; default: bf16")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "Wan2.1-T2V-14B"
        write_model(folder, arguments.layers, arguments.stored)
        disk = 512 * sum(path.stat().st_blocks for path in folder.rglob("*.safetensors"))
        report, own = run(arguments.zoetrope.resolve(), folder, arguments.dtype)
    numbers = sum(math.prod(shape) for shape in transformer(arguments.layers)[0].values())
    weights = numbers * (4 if arguments.dtype == "fp32" else 2)
    predicted, measured = (report["memory"][f"{which}_peak_bytes"] for which in ("predicted", "measured"))
    print(f"transformer of {arguments.layers} layers: {numbers / 1e9:.2f}e9 parameters, stored in {arguments.stored} "
          f"({disk / MIB:.1f} MiB on disk)")  # fmt: skip
    print(f"  weights in {arguments.dtype}           {weights / MIB:8.0f} MiB")
    print(f"  predicted beside them     {(predicted - weights) / MIB:8.0f} MiB")
    print(f"  highest resident set      {measured / MIB:8.0f} MiB, of it the process's own {own / MIB:.0f} MiB")
    if measured > 1.05 * predicted or measured > 1.5 * weights:
        sys.exit("more than the weights and what was predicted beside them")


if __name__ == "__main__":
    main()
