"""Writes corpus/adapter/: an adapter of each layout and method for the small model of adapter_fuzz.cpp.

    python3 tests/fuzz/adapter_seeds.py
"""

import json
import struct
from pathlib import Path

OUT = Path(__file__).parent / "corpus" / "adapter"
DIM, HIDDEN, RANK = 4, 6, 2


def write(name, shapes, metadata=None):
    """Tensors of small numbers: 0.25, 0.5, ... in float32."""
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for key, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        begin = len(data)
        data += struct.pack(f"<{count}f", *((i % 5 + 1) / 4 for i in range(count)))
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    (OUT / name).write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    down, up = [RANK, DIM], [DIM, RANK]
    write("peft", {"transformer.blocks.0.attn1.to_q.lora_A.weight": down, "transformer.blocks.0.attn1.to_q.lora_B.weight": up,
                   "transformer.blocks.0.attn1.to_q.lora_B.bias": [DIM]},
          {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"to_q": 2}})})
    write("kohya", {"lora_unet_blocks_0_cross_attn_k.lora_down.weight": down, "lora_unet_blocks_0_cross_attn_k.lora_up.weight": up,
                    "lora_unet_blocks_0_cross_attn_k.alpha": []})
    write("dora", {"diffusion_model.blocks.0.self_attn.q.lora_down.weight": down,
                   "diffusion_model.blocks.0.self_attn.q.lora_up.weight": up,
                   "diffusion_model.blocks.0.self_attn.q.dora_scale": [DIM, 1]}, {"lora_alpha": "8"})
    write("differences", {"diffusion_model.blocks.0.self_attn.q.diff_b": [DIM], "diffusion_model.blocks.0.norm3.diff": [DIM],
                          "diffusion_model.blocks.0.diff_m": [1, 6, DIM], "diffusion_model.head.head.diff": [8, DIM],
                          "diffusion_model.patch_embedding.diff": [DIM, 2, 1, 2, 2]})
    write("convolution", {"lora_unet_patch_embedding.lora_down.weight": [RANK, 2, 1, 2, 2],
                          "lora_unet_patch_embedding.lora_up.weight": [DIM, RANK, 1, 1, 1]})
    write("lokr", {"lycoris_blocks_0_ffn_0.lokr_w1": [2, 2], "lycoris_blocks_0_ffn_0.lokr_w2_a": [3, 1],
                   "lycoris_blocks_0_ffn_0.lokr_w2_b": [1, 2], "lycoris_blocks_0_ffn_0.alpha": [1]})
    write("lokr_tucker", {"lycoris_patch_embedding.lokr_w1": [2, 1], "lycoris_patch_embedding.lokr_t2": [1, 1, 1, 2, 2],
                          "lycoris_patch_embedding.lokr_w2_a": [1, 2], "lycoris_patch_embedding.lokr_w2_b": [1, 2]})
    write("unmatched", {"diffusion_model.blocks.7.self_attn.q.lora_A.weight": down, "other": [1],
                        "diffusion_model.img_emb.proj.1.lora_A.weight": down})
    # Parts whose product would be far larger than anything in the model.
    write("large_product", {"lycoris_blocks_0_ffn_0.lokr_w1": [1, 1], "lycoris_blocks_0_ffn_0.lokr_w2_a": [900, 1],
                            "lycoris_blocks_0_ffn_0.lokr_w2_b": [1, 900]})


if __name__ == "__main__":
    main()
