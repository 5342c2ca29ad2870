"""A whole clip at once through a Wan2.1 VAE: equal to AutoencoderKLWan's walk from chunk to chunk
with its caches, but one pass and with gradients. In training that is several times faster.

    python vae_passes.py --vae MODEL/vae     # compares both
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution


def _resize(layer: WanResample, x: torch.Tensor) -> torch.Tensor:
    """The part of a resampling layer that sees each frame alone."""
    frames = x.shape[2]
    x = layer.resample(x.transpose(1, 2).flatten(0, 1))
    return x.unflatten(0, (-1, frames)).transpose(1, 2)


def _resample(layer: WanResample, x: torch.Tensor) -> torch.Tensor:
    """The first frame passes in time as it is; later ones are merged or split in twos."""
    later = x.shape[2] > 1
    if layer.mode == "upsample3d" and later:
        pairs = layer.time_conv(x[:, :, 1:]).unflatten(1, (2, -1))
        x = torch.cat([x[:, :, :1], torch.stack(pairs.unbind(1), 3).flatten(2, 3)], 2)
    x = _resize(layer, x)
    if layer.mode == "downsample3d" and later:
        x = torch.cat([x[:, :, :1], layer.time_conv(x)], 2)
    return x


def encode(vae: AutoencoderKLWan, video: torch.Tensor) -> DiagonalGaussianDistribution:
    """video: [B, 3, 4k + 1, H, W] in -1..1; the posterior of the latents, not normalised."""
    encoder = vae.encoder
    x = encoder.conv_in(video)
    for layer in encoder.down_blocks:
        x = _resample(layer, x) if isinstance(layer, WanResample) else layer(x)
    x = encoder.conv_out(encoder.nonlinearity(encoder.norm_out(encoder.mid_block(x))))
    return DiagonalGaussianDistribution(vae.quant_conv(x))


def decode(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """latents: [B, 16, F, h, w], not normalised. Not clamped: a clamp would stop the gradient."""
    decoder = vae.decoder
    x = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents)))
    for block in decoder.up_blocks:
        for layer in block.resnets:
            x = layer(x)
        if block.upsamplers is not None:
            x = _resample(block.upsamplers[0], x)
    return decoder.conv_out(decoder.nonlinearity(decoder.norm_out(x)))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True)
    vae = AutoencoderKLWan.from_pretrained(parser.parse_args().vae, torch_dtype=torch.float32)
    torch.manual_seed(0)
    for frames in (1, 5, 13):
        video = torch.rand(1, 3, frames, 32, 48) * 2 - 1
        exact = vae.encode(video).latent_dist.mean
        pixels = vae.decode(exact).sample
        latents_off = (encode(vae, video).mean - exact).abs().max()
        pixels_off = (decode(vae, exact).clamp(-1, 1) - pixels).abs().max()
        print(f"{frames} frames: latents differ by at most {latents_off:.1e}, pixels by {pixels_off:.1e}")


if __name__ == "__main__":
    main()
