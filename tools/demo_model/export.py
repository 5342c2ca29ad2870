"""Puts the trained parts together as a Diffusers folder that WanPipeline.from_pretrained loads.

    python export.py --work WORK --output models/demo-t2v

Takes the averaged weights of WORK/dit.pt, WORK/vae and WORK/tokenizer.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
from transformers import AutoTokenizer

import data
import model
import tokenizer as tokenizer_module

FLOW_SHIFT = 3.0
DEFAULTS = dict(height=64, width=64, num_frames=17, fps=data.FPS, num_inference_steps=25, guidance_scale=4.0,
                negative_prompt="")
UNDERSTANDS = (
    "One or two coloured shapes (circle, square, triangle, star, heart, diamond) that move, spin, bounce, grow, "
    "shrink or stand still on a plain, sky, sunset or meadow background, such as: a red star moves left on a meadow."
)


def load_trained(work: Path) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The text encoder and denoiser with their averaged weights, float32."""
    words = tokenizer_module.load(work / "tokenizer")
    networks = torch.nn.ModuleDict({"text_encoder": model.make_text_encoder(words.vocab_size()),
                                    "dit": model.make_dit()})
    networks.load_state_dict(torch.load(work / "dit.pt")["average"], strict=False)
    return networks["text_encoder"].eval(), networks["dit"].eval()


def make_pipeline(work: Path) -> WanPipeline:
    text_encoder, dit = load_trained(work)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT,
                                        num_train_timesteps=1000, solver_order=2)
    vae = AutoencoderKLWan.from_pretrained(work / "vae")
    words = AutoTokenizer.from_pretrained(work / "tokenizer")
    return WanPipeline(tokenizer=words, text_encoder=text_encoder, vae=vae, scheduler=scheduler, transformer=dit,
                       transformer_2=None, boundary_ratio=None, expand_timesteps=True)


def save(pipeline, output: Path, tokenizer: Path, name: str, understands: str, words: list[str], defaults: dict) -> None:
    """In bf16, in Diffusers' layout, with what the engine tells of an embedded model. words: of its captions."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(torch.bfloat16)
    shutil.rmtree(output, ignore_errors=True)
    pipeline.save_pretrained(output)
    shutil.rmtree(output / "tokenizer")
    shutil.copytree(tokenizer, output / "tokenizer")
    for config in output.glob("*/config.json"):  # where it was made is nobody's business
        settings = json.loads(config.read_text())
        settings.pop("_name_or_path", None)
        config.write_text(json.dumps(settings, indent=2) + "\n")
    about = {"name": name, "understands": understands, "words": words, "defaults": defaults}
    (output / "zoetrope.json").write_text(json.dumps(about, indent=2) + "\n")
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"{output}: {size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    pipeline = make_pipeline(args.work)
    save(pipeline, args.output, args.work / "tokenizer", "demo-t2v", UNDERSTANDS, data.vocabulary(), DEFAULTS)


if __name__ == "__main__":
    main()
