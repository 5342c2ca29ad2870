#!/usr/bin/env python3
"""Writes tests/golden/gguf/: files as gguf-py writes them, with the values that it reads from them.

    python tools/oracle/gguf_golden.py        (gguf 0.19.0, numpy 2.4.6)

blocks.gguf: per format of blocks a tensor "<format>" [3, 512] of random bytes with sensible scales, and its values
"<format>.f32"; plain tensors, one of five dimensions, one folded into two as ComfyUI-GGUF does, metadata of every type.
"""

import shutil
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "gguf"
# Where the half-precision factors of a block lie.
FACTORS = {
    Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}  # fmt: skip
SHAPE = (3, 512)


def random_blocks(kind: Type, generator: np.random.Generator) -> np.ndarray:
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = generator.integers(0, 256, (SHAPE[0] * SHAPE[1] // elements, size), dtype=np.uint8)
    for place in FACTORS[kind]:
        factors = (generator.standard_normal(len(blocks)) * 0.01).astype(np.float16)
        factors[0] = 6e-8  # subnormal
        blocks[:, place : place + 2] = factors.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(SHAPE[0], -1)


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    generator = np.random.default_rng(0)
    writer = gguf.GGUFWriter(OUT / "blocks.gguf", "wan")
    writer.add_uint8("test.u8", 200)
    writer.add_int8("test.i8", -100)
    writer.add_uint16("test.u16", 60000)
    writer.add_int16("test.i16", -30000)
    writer.add_int32("test.i32", -2000000000)
    writer.add_float32("test.f32", 0.5)
    writer.add_bool("test.bool", True)
    writer.add_uint64("test.u64", 2**63)
    writer.add_int64("test.i64", -(2**40))
    writer.add_float64("test.f64", 0.25)
    writer.add_string("test.text", "ä\n")
    writer.add_array("test.few", [1, 2, 3])
    writer.add_array("test.many", [0.5] * 40)
    writer.add_array("test.texts", ["a", "bc"])

    for kind in FACTORS:
        blocks = random_blocks(kind, generator)
        writer.add_tensor(kind.name, blocks, raw_dtype=kind)
        writer.add_tensor(kind.name + ".f32", gguf.dequantize(blocks, kind))
    values = generator.standard_normal((4, 3, 1, 2, 2)).astype(np.float32)
    writer.add_tensor("five.weight", values.astype(np.float16))
    writer.add_tensor("five.weight.f32", values.astype(np.float16).astype(np.float32))
    folded = gguf.quantize(np.tile(values.reshape(-1), 32).reshape(6, 256), Type.Q8_0)
    writer.add_array("comfy.gguf.orig_shape.folded.weight", [16, 3, 2, 4, 4])
    writer.add_tensor("folded.weight", folded, raw_dtype=Type.Q8_0)
    writer.add_tensor("folded.weight.f32", gguf.dequantize(folded, Type.Q8_0))
    brain = gguf.quantize(values.reshape(6, 8), Type.BF16)
    writer.add_tensor("brain", brain, raw_dtype=Type.BF16)
    writer.add_tensor("brain.f32", gguf.dequantize(brain, Type.BF16))
    writer.add_tensor("numbers", np.arange(-3, 3, dtype=np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
