"""Writes a Diffusers folder of a released model's shape with random weights, to run `generate` at real size.

    python random_model.py FOLDER [--layers 30] [--text-layers 24] [--dtype bf16]

The text encoder has UMT5-XXL's width; --text-layers 1 keeps it small. The tokenizer is the tests' small one.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from safetensors.torch import save_file
from transformers import UMT5Config, UMT5EncoderModel

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--text-layers", type=int, default=24)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    arguments = parser.parse_args()
    dtype = DTYPES[arguments.dtype]
    torch.manual_seed(0)
    with torch.device("meta"):
        transformer = WanTransformer3DModel(num_attention_heads=12, ffn_dim=8960, num_layers=arguments.layers)
        vae = AutoencoderKLWan()
        text_config = UMT5Config(
            vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=arguments.text_layers, num_heads=64
        )
        text_encoder = UMT5EncoderModel(text_config)
    stem = "diffusion_pytorch_model"
    write_part(arguments.folder / "transformer", stem, transformer, dict(transformer.config), dtype)
    write_part(arguments.folder / "vae", stem, vae, dict(vae.config), dtype)
    write_part(arguments.folder / "text_encoder", "model", text_encoder, text_config.to_dict(), dtype)
    shutil.copytree(TOKENIZER, arguments.folder / "tokenizer")
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    scheduler.save_pretrained(arguments.folder / "scheduler")
    index = {
        "_class_name": "WanPipeline",
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (arguments.folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
