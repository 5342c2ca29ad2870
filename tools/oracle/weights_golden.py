#!/usr/bin/env python3
"""Writes tests/golden/weights/: files as Python's safetensors and huggingface_hub write them.

    python tools/oracle/weights_golden.py        (safetensors 0.8.0, huggingface_hub 2.4.0)

dtypes.safetensors: per dtype a tensor "<dtype>" and the same values as float64, "<dtype>.f64"; beside them a
scalar, a tensor without elements and metadata.
sharded/: one state dict in several shards, with its index.
"""

import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights"
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64]
FLOATS = [torch.float8_e5m2, torch.float8_e4m3fn, torch.float16, torch.bfloat16, torch.float32, torch.float64]


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "sharded").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 5, generator=generator, dtype=torch.float64) * 10
    tensors = {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}
    stored = {dtype: noise.to(dtype) for dtype in FLOATS}
    stored |= {dtype: (noise.abs() * 3).to(torch.int64).to(dtype) for dtype in INTEGERS}
    stored[torch.int8] = (noise * 3).to(torch.int8)
    stored[torch.bool] = noise > 0
    for dtype, tensor in stored.items():
        name = str(dtype).removeprefix("torch.")
        tensors[name] = tensor
        tensors[name + ".f64"] = tensor.to(torch.float64, copy=True)
    save_file(tensors, OUT / "dtypes.safetensors", {"format": "pt", "note": "ä\n\"quoted\""})

    state = {f"blocks.{i}.weight": torch.full((4, 8), float(i)) for i in range(5)}
    save_torch_state_dict(
        state, OUT / "sharded", filename_pattern="diffusion_pytorch_model{suffix}.safetensors", max_shard_size=300
    )


if __name__ == "__main__":
    main()
