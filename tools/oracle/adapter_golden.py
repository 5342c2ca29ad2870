"""Writes tests/golden/adapters: small adapters for the pipeline `unipc` and the latents that Diffusers gets with them.

    python adapter_golden.py

diffusers.safetensors  Diffusers' layout, alpha 8 in the metadata, also the time projection
original.safetensors   ComfyUI's layout with the original names, lora_down/up, alpha, diff_b
dora.safetensors       PEFT's DoRA
expected.safetensors   latents: one adapter (strengths 0.7, 1, 1), and the first two together (0.7, 0.5)
"""

import json
from pathlib import Path

import torch
from diffusers import WanPipeline
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
MODEL = GOLDEN / "pipeline" / "unipc"
OUT = GOLDEN / "adapters"
RANK = 4
ALPHA_DIFFUSERS = 8
ALPHA_ORIGINAL = 2.0
NAMES = {
    "attn1.to_q": "self_attn.q", "attn1.to_k": "self_attn.k", "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o", "attn2.to_q": "cross_attn.q", "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v", "attn2.to_out.0": "cross_attn.o", "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2",
}  # fmt: skip


def factors(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out, columns = weight.shape
    return torch.randn(RANK, columns) * columns**-0.5, torch.randn(out, RANK) * 0.1


def diffusers_adapter(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    adapter = {}
    for block in range(2):
        for name in NAMES:
            module = f"blocks.{block}.{name}"
            down, up = factors(weights[f"{module}.weight"])
            adapter[f"transformer.{module}.lora_A.weight"] = down
            adapter[f"transformer.{module}.lora_B.weight"] = up
    down, up = factors(weights["condition_embedder.time_proj.weight"])
    adapter["transformer.condition_embedder.time_proj.lora_A.weight"] = down
    adapter["transformer.condition_embedder.time_proj.lora_B.weight"] = up
    return adapter


def original_adapter(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    adapter = {}
    for block in range(2):
        for name, original in NAMES.items():
            down, up = factors(weights[f"blocks.{block}.{name}.weight"])
            module = f"diffusion_model.blocks.{block}.{original}"
            adapter[f"{module}.lora_down.weight"] = down
            adapter[f"{module}.lora_up.weight"] = up
            adapter[f"{module}.alpha"] = torch.tensor(ALPHA_ORIGINAL)
            adapter[f"{module}.diff_b"] = torch.randn(up.shape[0]) * 0.1
    return adapter


def dora_adapter(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    adapter = {}
    for name in ("attn1.to_q", "attn2.to_v", "ffn.net.2"):
        for block in range(2):
            weight = weights[f"blocks.{block}.{name}.weight"]
            down, up = factors(weight)
            module = f"transformer.blocks.{block}.{name}"
            adapter[f"{module}.lora_A.weight"] = down
            adapter[f"{module}.lora_B.weight"] = up
            adapter[f"{module}.lora_magnitude_vector"] = weight.norm(dim=1) * (1 + 0.3 * torch.randn(weight.shape[0]))
    return adapter


def latents(adapters: dict[str, float]) -> torch.Tensor:
    """With adapters at these strengths. Each file is loaded as a user of Diffusers would load it."""
    request = json.loads((MODEL / "request.json").read_text())
    pipeline = WanPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for name in adapters:
        pipeline.load_lora_weights(OUT, weight_name=f"{name}.safetensors", adapter_name=name)
    if adapters:
        pipeline.set_adapters(list(adapters), list(adapters.values()))
    return pipeline(
        prompt=request["prompt"],
        negative_prompt=request["negative_prompt"],
        height=request["height"],
        width=request["width"],
        num_frames=request["num_frames"],
        num_inference_steps=request["steps"],
        guidance_scale=request["guidance_scale"],
        generator=torch.Generator("cpu").manual_seed(request["seed"]),
        output_type="latent",
    ).frames.contiguous()


def main() -> None:
    torch.manual_seed(0)
    weights = WanPipeline.from_pretrained(MODEL, torch_dtype=torch.float32).transformer.state_dict()
    OUT.mkdir(exist_ok=True)
    metadata = {"transformer.r": RANK, "transformer.lora_alpha": ALPHA_DIFFUSERS, "transformer.target_modules": None}
    modules = {key.removeprefix("transformer.").split(".lora_")[0] for key in diffusers_adapter(weights)}
    metadata["transformer.target_modules"] = sorted(modules)
    save_file(
        diffusers_adapter(weights),
        OUT / "diffusers.safetensors",
        metadata={"format": "pt", "lora_adapter_metadata": json.dumps(metadata)},
    )
    save_file(original_adapter(weights), OUT / "original.safetensors", metadata={"format": "pt"})
    save_file(dora_adapter(weights), OUT / "dora.safetensors", metadata={"format": "pt"})
    cases = {
        "none": {},
        "diffusers": {"diffusers": 0.7},
        "original": {"original": 1.0},
        "dora": {"dora": 1.0},
        "two": {"diffusers": 0.7, "original": 0.5},
    }
    expected = {name: latents(adapters) for name, adapters in cases.items()}
    for name, tensor in expected.items():
        print(f"{name}: differs from none by {float((tensor - expected['none']).norm() / expected['none'].norm()):.2g}")
    save_file(expected, OUT / "expected.safetensors")


if __name__ == "__main__":
    main()
