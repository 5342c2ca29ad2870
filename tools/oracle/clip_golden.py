"""Writes tests/golden/vision: a tiny random CLIP picture encoder with the outputs that Transformers gives, and the
pixels that its image processor and Diffusers' video processor make of the pictures in tests/golden/media.

    python tools/oracle/picture_golden.py && python tools/oracle/clip_golden.py

Needs transformers 5 without torchvision (its image processors then resize with Pillow), diffusers, safetensors, torch.
"""

from __future__ import annotations

import copy
import json
import zlib
from pathlib import Path

import torch
import transformers
from diffusers.utils import load_image
from diffusers.video_processor import VideoProcessor
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

GOLDEN = Path(__file__).parents[2] / "tests/golden"
OUT = GOLDEN / "vision"
PICTURES = ["rgb.png", "420.jpg", "turned_6.jpg"]
PROCESSORS = {
    "wan": {},  # what the Wan models save is the default
    "tiny": {"size": {"shortest_edge": 30}, "crop_size": {"height": 28, "width": 28}},
    "padded": {"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 40}, "resample": 1},
    "stretched": {"size": {"height": 37, "width": 50}, "do_center_crop": False, "resample": 2, "image_std": [1, 0.5, 2]},
    "plain": {"do_resize": False, "do_center_crop": False, "do_normalize": False, "rescale_factor": 0.01},
}


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def embeddings(model: CLIPVisionModel, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(pixels.to(model.dtype), output_hidden_states=True).hidden_states[-2]


def write_encoder() -> None:
    torch.manual_seed(3)
    config = CLIPVisionConfig(hidden_size=48, intermediate_size=112, num_hidden_layers=3, num_attention_heads=3,
                              image_size=28, patch_size=7, hidden_act="gelu")
    model = CLIPVisionModel(config).eval()
    for key, parameter in model.named_parameters():
        if "norm.weight" in key or "norm1.weight" in key or "norm2.weight" in key:
            parameter.data = 1 + 0.2 * torch.randn_like(parameter)
        elif parameter.dim() > 1 and "position" not in key:
            parameter.data = torch.randn_like(parameter) * (1.5 / parameter[0].numel() ** 0.5)
        else:
            parameter.data = 0.5 * torch.randn_like(parameter)
    model = model.bfloat16().float()  # what is stored is exact
    folder = OUT / "clip"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.bfloat16().contiguous() for key, value in model.state_dict().items() if "position_ids" not in key},
              folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))

    pixels = torch.randn(2, 3, 28, 28)
    expected = {"pixels": pixels}
    for activation in ("gelu", "quick_gelu", "gelu_pytorch_tanh"):
        model.config.hidden_act = activation
        for layer in model.encoder.layers:
            layer.mlp.activation_fn = transformers.activations.ACT2FN[activation]
        out = embeddings(model, pixels)
        expected[activation] = out
        half = embeddings(copy.deepcopy(model).bfloat16(), pixels)
        expected[f"{activation}_bf16_distance"] = torch.tensor([distance(half, out)])
        exact = embeddings(copy.deepcopy(model).double(), pixels)
        print(f"{activation}: Transformers' float32 to float64 {distance(out, exact):.1e}, bf16 to float32 {distance(half, out):.1e}")
    save_file(expected, folder / "expected.safetensors")


def checksum(pixels: torch.Tensor) -> int:
    return zlib.crc32(pixels.contiguous().numpy().tobytes())


def write_pixels() -> None:
    results = []
    for name, settings in PROCESSORS.items():
        processor = CLIPImageProcessor(**settings)
        assert processor.backend == "pil", "without torchvision, please"
        saved = json.loads(processor.to_json_string())
        for picture in PICTURES:
            pixels = processor(images=load_image(str(GOLDEN / "media/pictures" / picture)), return_tensors="pt").pixel_values
            results.append({"processor": name, "config": saved, "picture": picture, "shape": list(pixels.shape),
                            "crc32": checksum(pixels), "mean": float(pixels.double().mean())})
    video = []
    for picture in PICTURES:
        for height, width in ((64, 48), (96, 160)):
            pixels = VideoProcessor(vae_scale_factor=8).preprocess(
                load_image(str(GOLDEN / "media/pictures" / picture)), height=height, width=width)
            video.append({"picture": picture, "shape": list(pixels.shape), "crc32": checksum(pixels)})
    (OUT / "pixels.json").write_text(json.dumps({"clip": results, "video": video}, indent=1) + "\n")


if __name__ == "__main__":
    write_encoder()
    write_pixels()
