"""Writes a Diffusers folder of a released model's shape with random weights, to run `generate` at real size.

    python random_model.py FOLDER [--layers 30] [--text-layers 24] [--dtype bf16]
    python random_model.py FOLDER --kind animate --layers 2 --vae-dim 16 --face-size 64

The text encoder has UMT5-XXL's width; --text-layers 1 keeps it small. The tokenizer is the tests' small one. An Animate
model has 12 heads of 128 channels, as the 1.3B models, one face adapter, and a small text encoder and CLIP, which run once.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanAnimateTransformer3DModel, WanTransformer3DModel
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

TOKENIZER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "text" / "tokenizer_t5"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def random_weights(model: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights for a model on the meta device: scaled by the fan-in, norms 1, biases 0."""
    weights = {}
    for name, parameter in model.state_dict().items():
        tensor = torch.empty(parameter.shape, dtype=dtype)
        if "norm" in name or "gamma" in name:
            tensor.fill_(1)
        elif name.endswith("bias"):
            tensor.zero_()
        else:
            tensor.normal_(0, parameter[0].numel() ** -0.5)
        weights[name] = tensor
    return weights


def write_part(folder: Path, stem: str, model: torch.nn.Module, config: dict, dtype: torch.dtype) -> None:
    folder.mkdir(parents=True)
    save_file(random_weights(model, dtype), folder / f"{stem}.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=list) + "\n")


WIDTH = dict(num_attention_heads=12, ffn_dim=8960)  # of the 1.3B models
SMALL_TEXT = dict(d_model=256, d_kv=64, d_ff=512, num_heads=4)
SMALL_CLIP = dict(
    hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, image_size=224, patch_size=14
)


def make_parts(arguments: argparse.Namespace) -> dict[str, tuple[str, torch.nn.Module, dict]]:
    """name: (stem of its file, model on the meta device, its config)"""
    stem = "diffusion_pytorch_model"
    vae = AutoencoderKLWan(base_dim=arguments.vae_dim)
    if arguments.kind == "t2v":
        text = UMT5Config(
            vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=arguments.text_layers, num_heads=64
        )
        transformer = WanTransformer3DModel(num_layers=arguments.layers, **WIDTH)
        more = {}
    else:
        text = UMT5Config(vocab_size=256384, num_layers=1, **SMALL_TEXT)
        clip = CLIPVisionConfig(**SMALL_CLIP)
        transformer = WanAnimateTransformer3DModel(
            num_layers=arguments.layers,
            inject_face_latents_blocks=arguments.layers,
            text_dim=text.d_model,
            image_dim=clip.hidden_size,
            added_kv_proj_dim=12 * 128,
            motion_encoder_size=arguments.face_size,
            **WIDTH,
        )
        more = {"image_encoder": ("model", CLIPVisionModel(clip), clip.to_dict())}
    return more | {
        "transformer": (stem, transformer, {"_class_name": type(transformer).__name__, **transformer.config}),
        "vae": (stem, vae, {"_class_name": type(vae).__name__, **vae.config}),
        "text_encoder": ("model", UMT5EncoderModel(text), text.to_dict()),
    }


CLASSES = {
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
KINDS = {
    "t2v": {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]},
    "animate": {
        "_class_name": "WanAnimatePipeline",
        "image_encoder": ["transformers", "CLIPVisionModel"],
        "image_processor": ["transformers", "CLIPImageProcessor"],
        "transformer": ["diffusers", "WanAnimateTransformer3DModel"],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="t2v")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--text-layers", type=int, default=24, help="t2v")
    parser.add_argument("--vae-dim", type=int, default=96, help="channels of its first level; released: 96")
    parser.add_argument("--face-size", type=int, default=512, help="animate: pixels of a side")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    arguments = parser.parse_args()
    folder, dtype = arguments.folder, DTYPES[arguments.dtype]
    torch.manual_seed(0)
    with torch.device("meta"):
        parts = make_parts(arguments)
    for name, (stem, model, config) in parts.items():
        write_part(folder / name, stem, model, config, dtype)
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    scheduler.save_pretrained(folder / "scheduler")
    if arguments.kind == "animate":
        CLIPImageProcessor().save_pretrained(folder / "image_processor")
    (folder / "model_index.json").write_text(json.dumps(CLASSES | KINDS[arguments.kind], indent=1) + "\n")


if __name__ == "__main__":
    main()
