"""Writes tests/golden/vae/*.safetensors: what Diffusers' AutoencoderKLWan gives for tiny VAEs.

Weights and inputs follow a formula of name and position (below, and in tests/vae_test.cpp), so that
only the names, shapes and results are stored.

    python tools/oracle/vae_golden.py tests/golden/vae
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file

RESIDUAL = dict(is_residual=True, patch_size=2, in_channels=12, out_channels=12)
# name: (config, latent frames, latent height, latent width)
CASES = {
    "plain": (dict(base_dim=3, z_dim=16, dim_mult=[1, 2, 2, 2], num_res_blocks=1), 5, 3, 5),
    "wide": (dict(base_dim=8, z_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=2), 2, 2, 3),
    "still": (dict(base_dim=8, decoder_base_dim=12, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1), 1, 4, 3),
    "odd": (
        dict(base_dim=6, z_dim=4, dim_mult=[1, 3, 2], num_res_blocks=3, temperal_downsample=[True, False]),
        5, 5, 3,
    ),
    # Wan 2.2's proportions of channels, then the other ways in which a shortcut deals out channels.
    "residual": (
        dict(base_dim=5, decoder_base_dim=8, z_dim=8, dim_mult=[1, 2, 4, 4], num_res_blocks=2, **RESIDUAL), 3, 2, 3,
    ),
    "shortcuts": (
        dict(base_dim=8, z_dim=6, dim_mult=[4, 2, 1], num_res_blocks=1, temperal_downsample=[True, True], **RESIDUAL),
        5, 3, 2,
    ),
}


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in [-1, 1): the finaliser of MurmurHash3 over the index and the FNV-1a hash of the name."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    x = np.arange(np.prod(shape), dtype=np.uint32) * np.uint32(2654435761) ^ np.uint32(seed)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ x >> np.uint32(shift)) * np.uint32(factor)
    x ^= x >> np.uint32(16)
    return ((x >> np.uint32(8)).astype(np.float64) / 2**23 - 1).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    u = values(name, shape)
    if name.endswith("gamma"):
        u = 1 + 0.2 * u
    elif name.endswith("bias"):
        u = 0.1 * u
    else:
        u = u * np.sqrt(3 / np.prod(shape[1:]))
    return torch.from_numpy(u.astype(np.float32))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b).norm() / b.norm())


def write(name: str, folder: Path) -> None:
    config, frames, height, width = CASES[name]
    z = config["z_dim"]
    config = dict(config, latents_mean=[0.25 * i - 1 for i in range(z)], latents_std=[1 + 0.125 * i for i in range(z)])
    vae = AutoencoderKLWan(**config).eval()
    state = vae.state_dict()
    vae.load_state_dict({key: weight(key, tuple(t.shape)) for key, t in state.items()})
    factor = config.get("patch_size", 1) * 2 ** (len(config["dim_mult"]) - 1)
    time = 2 ** sum(vae.config.temperal_downsample)
    latents = torch.from_numpy(values("latents", (1, z, frames, height, width)).astype(np.float32) * 2)
    clip_shape = (1, 3, 1 + time * (frames - 1), height * factor, width * factor)
    clip = torch.from_numpy(values("frames", clip_shape).astype(np.float32))
    with torch.inference_mode():
        decoded = vae.decode(latents).sample
        encoded = vae.encode(clip).latent_dist.mode()
        vae.to(torch.bfloat16)
        bf16_decoded = vae.decode(latents.bfloat16()).sample
        bf16_encoded = vae.encode(clip.bfloat16()).latent_dist.mode()
    metadata = {
        "config": json.dumps(dict(vae.config)),
        "parameters": json.dumps({key: list(t.shape) for key, t in state.items()}),
        "bf16_decode_distance": f"{distance(bf16_decoded, decoded):.6e}",
        "bf16_encode_distance": f"{distance(bf16_encoded, encoded):.6e}",
    }
    tensors = {"decoded": decoded.contiguous(), "encoded": encoded.contiguous()}
    save_file(tensors, folder / f"{name}.safetensors", metadata)
    saturated = float((decoded.abs() == 1).float().mean())
    print(name, [list(t.shape) for t in tensors.values()], f"saturated {saturated:.2%}", metadata["bf16_decode_distance"],
          metadata["bf16_encode_distance"], float(decoded.std()), float(encoded.std()))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        write(case, target)
