"""Puts the puppet model's parts together as a Diffusers folder that WanAnimatePipeline.from_pretrained loads.

    python export_animate.py --work WORK --output models/demo-animate

Takes the averaged weights of WORK/animate.pt, WORK/vae, and another model's text encoder and tokenizer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanAnimatePipeline
from transformers import AutoTokenizer, UMT5EncoderModel

import animate_model
import export
import puppet_clips
import puppet_motion

FLOW_SHIFT = 8.0  # as in training
DEFAULTS = dict(height=puppet_clips.SIZE, width=puppet_clips.SIZE, num_frames=33, fps=puppet_motion.FPS,
                num_inference_steps=4, guidance_scale=1.0, negative_prompt="", segment_overlap=5)
UNDERSTANDS = (
    "A cartoon puppet on a plain background, standing upright in --image, which moves as the person in --video does. "
    "The prompt says nothing."
)


def load_dit(work: Path) -> torch.nn.Module:
    """The denoiser with its averaged weights, float32."""
    dit = animate_model.make_dit()
    dit.load_state_dict(torch.load(work / "animate.pt")["average"], strict=False)
    return dit.eval()


def make_pipeline(work: Path, text_model: Path) -> WanAnimatePipeline:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT,
                                        num_train_timesteps=1000, solver_order=2)
    return WanAnimatePipeline(
        tokenizer=AutoTokenizer.from_pretrained(text_model / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(text_model / "text_encoder"),
        vae=AutoencoderKLWan.from_pretrained(work / "vae"), scheduler=scheduler,
        image_processor=animate_model.make_image_processor(), image_encoder=animate_model.make_image_encoder(),
        transformer=load_dit(work))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--text-model", type=Path, default=Path(__file__).resolve().parents[2] / "models" / "demo-t2v")
    args = parser.parse_args()
    pipeline = make_pipeline(args.work, args.text_model)
    export.save(pipeline, args.output, args.text_model / "tokenizer", "demo-animate", UNDERSTANDS, [], DEFAULTS)


if __name__ == "__main__":
    main()
