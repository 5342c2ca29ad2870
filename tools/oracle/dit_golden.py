"""Writes tests/golden/dit/: tiny random WanTransformer3DModels with inputs, intermediate tensors and outputs.

Intermediate tensors carry the names that the engine traces (ops/trace.h).
"""

import json
from pathlib import Path

import torch
from diffusers import WanAnimateTransformer3DModel, WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "dit"

IMAGE = dict(num_attention_heads=2, attention_head_dim=8, image_dim=16, added_kv_proj_dim=16)
IMAGE_TOKENS = 6  # of one picture

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
    "image": (dict(IMAGE, in_channels=9), (2, 4, 2, 4, 4), 512, [750.0]),
    "two_images": (dict(IMAGE, in_channels=9, pos_embed_seq_len=2 * IMAGE_TOKENS), (1, 4, 2, 4, 4), 512, [250.0]),
    "control": (
        dict(num_attention_heads=1, attention_head_dim=16, num_layers=3, vace_layers=[0, 2], vace_in_channels=7),
        (1, 4, 3, 4, 4),
        5,
        [600.0],
    ),
    "animate": (
        dict(
            IMAGE,
            in_channels=12,
            latent_channels=4,
            motion_encoder_channel_sizes={"4": 6, "8": 5, "16": 4},
            motion_encoder_size=16,
            motion_style_dim=6,
            motion_dim=3,
            motion_encoder_dim=7,
            face_encoder_hidden_dim=8,
            face_encoder_num_heads=2,
            inject_face_latents_blocks=2,
            motion_encoder_batch_size=3,
        ),
        (1, 4, 4, 4, 4),
        512,
        [640.0],
    ),
}
CONTROL_SCALE = 0.7


def make_model(config: dict) -> WanTransformer3DModel:
    kind = WanVACETransformer3DModel if "vace_layers" in config else WanTransformer3DModel
    if "motion_dim" in config:
        kind = WanAnimateTransformer3DModel
    model = kind(
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
    if model.condition_embedder.image_embedder is not None:
        model.condition_embedder.image_embedder.register_forward_hook(keep("image"))
    if hasattr(model, "face_encoder"):
        zeros = torch.nn.functional.pad
        model.face_encoder.register_forward_hook(keep("faces", lambda x: zeros(x[0], (0, 0, 0, 0, 1, 0))))
    for i, block in enumerate(getattr(model, "vace_blocks", [])):
        block.register_forward_hook(keep(f"vace_blocks.{i}", lambda x: x[1]))
    for i, block in enumerate(model.blocks):
        # After its hint has been added, the engine traces a block that has a control block beside it.
        block.attn1.register_forward_hook(keep(f"blocks.{i}.attn1"))
        block.attn2.register_forward_hook(keep(f"blocks.{i}.attn2"))
        block.ffn.register_forward_hook(keep(f"blocks.{i}.ffn"))
        # Nor one behind which faces are looked at.
        looks = hasattr(model, "face_adapter") and i % model.config.inject_face_latents_blocks == 0
        if i not in getattr(model.config, "vace_layers", []) and not looks:
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
    given_inputs, more = {}, {}
    hidden_states = latents
    if "image_dim" in config:
        pictures = 2 if "pos_embed_seq_len" in config else 1
        given_inputs["image"] = torch.randn(pictures, IMAGE_TOKENS, 16)
        given_inputs["channels"] = torch.randn(1, config["in_channels"] - shape[1], *shape[2:])
        expanded = given_inputs["image"].repeat(shape[0], 1, 1)
        more["encoder_hidden_states_image"] = expanded
        hidden_states = torch.cat([latents, given_inputs["channels"].expand(shape[0], -1, -1, -1, -1)], dim=1)
    if "motion_dim" in config:
        frames = 4 * (shape[2] - 2) + 1
        given_inputs["pose"] = more["pose_hidden_states"] = torch.randn(1, 4, shape[2] - 1, *shape[3:])
        given_inputs["faces"] = more["face_pixel_values"] = torch.rand(1, 3, frames, 16, 16) * 2 - 1
    if "vace_layers" in config:
        given_inputs["control"] = torch.randn(1, 7, *shape[2:])
        more["control_hidden_states"] = given_inputs["control"]
        more["control_hidden_states_scale"] = torch.full((2,), CONTROL_SCALE)
    with torch.no_grad():
        traced = record(model)
        velocity = model(hidden_states, given, text.expand(shape[0], -1, -1), return_dict=False, **more)[0]
    tensors = {f"traced.{key}": value for key, value in traced.items() if key not in ("text", "image")}
    for shared in ("text", "image"):  # by all samples of the batch
        if shared in traced:
            tensors[f"traced.{shared}"] = traced[shared][:1].contiguous()
    tensors |= given_inputs
    tensors |= {"latents": latents, "text": text, "timesteps": timesteps, "velocity": velocity.contiguous()}
    folder = GOLDEN / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(model.state_dict()), folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    save_file(tensors, folder / "expected.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(model.config, _class_name=type(model).__name__), indent=1, default=list) + "\n")


if __name__ == "__main__":
    for case in CASES:
        write_case(case)
