#!/usr/bin/env python3
"""Writes tests/golden/torch_files/: files as torch.save writes them.

    python tools/oracle/torch_file_golden.py        (torch 2.13.0)

dtypes.pth: a module's state dict (OrderedDict with _metadata); per dtype a buffer "of_<dtype>" and the same values as
float64, "of_<dtype>.f64"; a parameter.
views.pth: {"state_dict": ..., other entries}: views of one storage, transposed, strided, a scalar, an empty tensor.
views.safetensors: the same tensors. views_protocol4.pt: the same file in pickle's protocol 4.
legacy.pth: the format before PyTorch 1.6. code.pth: a file that runs a command when Python loads it.
"""

import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "torch_files"
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64]
FLOATS = [torch.float8_e5m2, torch.float8_e4m3fn, torch.float16, torch.bfloat16, torch.float32, torch.float64]


class Command:
    def __reduce__(self):
        return os.system, ("touch ran_by_the_pickle",)


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 5, generator=generator, dtype=torch.float64) * 10
    stored = {dtype: noise.to(dtype) for dtype in FLOATS}
    stored |= {dtype: (noise.abs() * 3).to(torch.int64).to(dtype) for dtype in INTEGERS}
    stored[torch.int8] = (noise * 3).to(torch.int8)
    stored[torch.bool] = noise > 0
    module = torch.nn.Module()
    for dtype, tensor in stored.items():
        name = "of_" + str(dtype).removeprefix("torch.")
        module.register_buffer(name, tensor)
    state = module.state_dict()
    for name in list(state):
        state[name + ".f64"] = state[name].to(torch.float64, copy=True)
    state["parameter"] = torch.nn.Parameter(noise.float())
    torch.save(state, OUT / "dtypes.pth")

    base = torch.randn(4, 6, generator=generator)
    views = {
        "base": base,
        "transposed": base.t(),
        "part": base[1:3, 2:5],
        "strided": base[:, ::2],
        "flat": base.view(-1)[5:11],
        "scalar": base[2, 3],
        "empty": torch.zeros(0, 4),
        "one_row": base[:1].expand(1, 6),
    }
    whole = {"epoch": 3, "rate": 0.5, "note": "ä", "list": [1, None, True, -70000, 2**40], "state_dict": views}
    torch.save(whole, OUT / "views.pth")
    torch.save(whole, OUT / "views_protocol4.pt", pickle_protocol=4)
    save_file({name: view.contiguous().clone() for name, view in views.items()}, OUT / "views.safetensors")
    torch.save({"a": base}, OUT / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"a": base, "b": Command()}, OUT / "code.pth")


if __name__ == "__main__":
    main()
