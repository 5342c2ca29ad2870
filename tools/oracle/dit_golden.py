"""Writes tests/golden/dit/: tiny random WanTransformer3DModels with inputs, intermediate tensors and outputs.

Intermediate tensors carry the names that the engine traces (ops/trace.h).
"""

import json
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "dit"

# name -> (config, latents [B, C, F, H, W], text length, time step of each latent frame; one value: of all)
CASES = {
    "plain": (dict(num_attention_heads=2, attention_head_dim=12), (2, 4, 3, 4, 6), 8, [437.0]),
    "frames": (dict(num_attention_heads=1, attention_head_dim=16), (1, 4, 3, 6, 4), 5, [0.0, 900.0, 900.0]),
    "no_cross_norm": (
        dict(num_attention_heads=3, attention_head_dim=8, cross_attn_norm=False, patch_size=(1, 1, 2)),
        (1, 4, 2, 3, 4),
        5,
        [999.0],
    ),
}


def make_model(config: dict) -> WanTransformer3DModel:
    model = WanTransformer3DModel(
        **dict(
            dict(
                patch_size=(1, 2, 2),
                in_channels=4,
                out_channels=4,
                text_dim=16,
                freq_dim=32,
                ffn_dim=24,
                num_layers=2,
                cross_attn_norm=True,
                rope_max_seq_len=32,
            ),
            **config,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def record(model: WanTransformer3DModel) -> dict[str, torch.Tensor]:
    """A dict that a forward pass fills with intermediate tensors."""
    traced: dict[str, torch.Tensor] = {}

    def keep(name, change=lambda x: x):
        return lambda module, inputs, output: traced.__setitem__(name, change(output).contiguous())

    model.patch_embedding.register_forward_hook(keep("patch_embedding", lambda x: x.flatten(2).transpose(1, 2)))
    model.condition_embedder.text_embedder.register_forward_hook(keep("text"))
    for i, block in enumerate(model.blocks):
        block.attn1.register_forward_hook(keep(f"blocks.{i}.attn1"))
        block.attn2.register_forward_hook(keep(f"blocks.{i}.attn2"))
        block.ffn.register_forward_hook(keep(f"blocks.{i}.ffn"))
        block.register_forward_hook(keep(f"blocks.{i}"))
    return traced


def write_case(name: str) -> None:
    config, shape, text_length, frame_timesteps = CASES[name]
    torch.manual_seed(sum(name.encode()))
    model = make_model(config)
    latents = torch.randn(shape)
    text = torch.randn(1, text_length, 16)
    timesteps = torch.tensor(frame_timesteps)
    if len(frame_timesteps) == 1:
        given = timesteps.expand(shape[0])
    else:
        patch = model.config.patch_size
        per_frame = (shape[3] // patch[1]) * (shape[4] // patch[2])
        given = timesteps.repeat_interleave(per_frame).unsqueeze(0).expand(shape[0], -1)
    with torch.no_grad():
        traced = record(model)
        velocity = model(latents, given, text.expand(shape[0], -1, -1), return_dict=False)[0]
    tensors = {f"traced.{key}": value for key, value in traced.items() if key != "text"}
    tensors["traced.text"] = traced["text"][:1].contiguous()
    tensors |= {"latents": latents, "text": text, "timesteps": timesteps, "velocity": velocity.contiguous()}
    folder = GOLDEN / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(model.state_dict()), folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    save_file(tensors, folder / "expected.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(model.config), indent=1, default=list) + "\n")


if __name__ == "__main__":
    for case in CASES:
        write_case(case)
