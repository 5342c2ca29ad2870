"""The puppet model's sizes, and a training forward pass that is equal to WanAnimateTransformer3DModel's
but cheaper: the padding of a prompt is one row with an attention bias (model.py), and everything that
depends on the time step alone is computed once per clip.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import WanAnimateTransformer3DModel
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

import model
import puppet_clips

IMAGE_DIM = 64
FACE_SIZE = puppet_clips.FACE_SIZE
DIT_CONFIG = dict(patch_size=(1, 2, 2), num_attention_heads=3, attention_head_dim=64, in_channels=36,
                  latent_channels=16, out_channels=16, text_dim=model.TEXT_DIM, freq_dim=256, ffn_dim=576, num_layers=6,
                  cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=1024, image_dim=IMAGE_DIM,
                  added_kv_proj_dim=192, motion_encoder_size=FACE_SIZE,
                  motion_encoder_channel_sizes={"4": 32, "8": 16, "16": 8}, motion_style_dim=32, motion_dim=8,
                  motion_encoder_dim=32, face_encoder_hidden_dim=48, face_encoder_num_heads=2,
                  inject_face_latents_blocks=3, motion_encoder_batch_size=64)
# What the model was trained with; the text says nothing that the pictures do not.
PROMPTS = ("", "a cartoon", "a cartoon of moving", "a video of dancing", "a happy cartoon moving", "an animation")


def make_dit() -> WanAnimateTransformer3DModel:
    """The denoiser; its output starts at zero."""
    dit = WanAnimateTransformer3DModel(**DIT_CONFIG)
    with torch.no_grad():
        dit.proj_out.weight.zero_()
        dit.proj_out.bias.zero_()
        for adapter in dit.face_adapter:  # begins as nothing, as the pose branch need not
            adapter.to_out.weight.zero_()
            adapter.to_out.bias.zero_()
    return dit


def make_image_encoder() -> CLIPVisionModel:
    """A CLIP that stays as it was drawn: random, in bfloat16's values, the same at every call."""
    state = torch.random.get_rng_state()
    torch.manual_seed(7)
    config = CLIPVisionConfig(hidden_size=IMAGE_DIM, intermediate_size=2 * IMAGE_DIM, num_hidden_layers=2,
                              num_attention_heads=2, image_size=puppet_clips.SIZE, patch_size=16, hidden_act="gelu",
                              initializer_factor=1.0)
    encoder = CLIPVisionModel(config).to(torch.bfloat16).float().eval().requires_grad_(False)
    torch.random.set_rng_state(state)
    return encoder


def make_image_processor() -> CLIPImageProcessor:
    size = puppet_clips.SIZE
    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


@torch.no_grad()
def encode_pictures(encoder: CLIPVisionModel, pictures: np.ndarray) -> torch.Tensor:
    """pictures: [B, 64, 64, 3] in 0..1, which need no resizing. Returns the states before the last layer."""
    processor = make_image_processor()
    pixels = torch.from_numpy(np.round(pictures * 255) / 255).float()
    pixels = (pixels - torch.tensor(processor.image_mean)) / torch.tensor(processor.image_std)
    return encoder(pixels.permute(0, 3, 1, 2), output_hidden_states=True).hidden_states[-2]


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _joined(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(2)


def _self_attend(attention, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    query, key = (_heads(norm(layer(x)), attention.heads) for norm, layer in
                  ((attention.norm_q, attention.to_q), (attention.norm_k, attention.to_k)))
    value = _heads(attention.to_v(x), attention.heads)
    query, key = (model.rotate(v, rotary).type_as(value) for v in (query, key))
    return attention.to_out[0](_joined(F.scaled_dot_product_attention(query, key, value)))


def _cross_attend(attention, x: torch.Tensor, text: torch.Tensor, bias: torch.Tensor,
                  image: torch.Tensor) -> torch.Tensor:
    """text: [1, L, C], the same for the whole batch; image: [B, tokens, C]."""
    query = _heads(attention.norm_q(attention.to_q(x)), attention.heads)
    key = _heads(attention.norm_k(attention.to_k(text)), attention.heads).expand(len(x), -1, -1, -1)
    value = _heads(attention.to_v(text), attention.heads).expand(len(x), -1, -1, -1)
    out = F.scaled_dot_product_attention(query, key, value, bias.type_as(value))
    image_key = _heads(attention.norm_added_k(attention.add_k_proj(image)), attention.heads)
    image_value = _heads(attention.add_v_proj(image), attention.heads)
    out = out + F.scaled_dot_product_attention(query, image_key, image_value)
    return attention.to_out[0](_joined(out))


def encode_faces(dit: WanAnimateTransformer3DModel, faces: torch.Tensor | None, clips: int,
                 frames: int) -> torch.Tensor:
    """faces: [B, frames, 3, size, size] in -1..1; None: all of it is -1. Returns [B, latent frames + 1, tokens, C]."""
    if faces is None:
        motion = dit.motion_encoder(torch.full((1, 3, FACE_SIZE, FACE_SIZE), -1.0)).expand(clips, frames, -1)
    else:
        motion = dit.motion_encoder(faces.flatten(0, 1)).view(clips, frames, -1)
    tokens = dit.face_encoder(motion)
    return torch.cat([torch.zeros_like(tokens[:, :1]), tokens], 1)


def denoise(dit: WanAnimateTransformer3DModel, noisy: torch.Tensor, timesteps: torch.Tensor, known: torch.Tensor,
            pose: torch.Tensor, faces: torch.Tensor | None, text: torch.Tensor, bias: torch.Tensor, image: torch.Tensor,
            rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """What `dit` returns. noisy: [B, 16, 1 + F, h, w], the reference's place first; known: the mask's four rows and
    the latents that are given, [B, 20, 1 + F, h, w]; pose: [B, 16, F, h, w]; timesteps: [B]; text: [1, L, C]."""
    batch, _, frames, height, width = noisy.shape
    x = dit.patch_embedding(torch.cat([noisy, known], 1))
    x = torch.cat([x[:, :, :1], x[:, :, 1:] + dit.pose_patch_embedding(pose)], 2)
    x = x.flatten(2).transpose(1, 2).contiguous()
    embedder = dit.condition_embedder
    time, modulation, text, image = embedder(timesteps, text, image)
    modulation = modulation.unflatten(1, (6, -1))
    motion = encode_faces(dit, faces, batch, 4 * pose.shape[2] - 3)

    def adapt(y: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(y, y.shape[-1:], eps=dit.config.eps) * (1 + scale) + shift

    every = dit.config.inject_face_latents_blocks
    for index, block in enumerate(dit.blocks):
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (block.scale_shift_table + modulation).chunk(6, 1)
        x = x + _self_attend(block.attn1, adapt(x, shift, scale), rotary) * gate
        x = x + _cross_attend(block.attn2, block.norm2(x), text, bias, image)
        x = x + block.ffn(adapt(x, ffn_shift, ffn_scale)) * ffn_gate
        if index % every == 0:
            x = x + dit.face_adapter[index // every](x, motion)

    shift, scale = (dit.scale_shift_table + time.unsqueeze(1)).chunk(2, 1)
    out = dit.proj_out(adapt(x, shift, scale))
    out = out.view(batch, frames, height // 2, width // 2, 2, 2, -1)
    return out.permute(0, 6, 1, 2, 4, 3, 5).reshape(noisy.shape)
