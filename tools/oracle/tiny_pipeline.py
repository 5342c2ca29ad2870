"""Tiny random Wan pipelines in the Diffusers layout, and what Diffusers makes with them.

    python tiny_pipeline.py compare --zoetrope build/zoetrope [--seed N --cases N]
        random pipelines and requests, both programs, relative errors per case; fails above the bars
    python tiny_pipeline.py golden
        writes tests/golden/pipeline/
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "tests" / "golden" / "text" / "tokenizer_t5"
GOLDEN = ROOT / "tests" / "golden" / "pipeline"

LATENT_BAR = 1e-4  # relative L2 in fp32
FRAME_BAR = 0.005  # largest difference of decoded frames in [0, 1]
BF16_BARS = 0.8, 1.5  # of latents and frames: our distance to the fp32 result over that of Diffusers' bf16


@dataclass
class Case:
    """A pipeline and a request; every field is chosen by `random_case` or by hand."""

    heads: int = 2
    head_dim: int = 12
    layers: int = 2
    ffn_dim: int = 32
    text_layers: int = 2
    cross_attn_norm: bool = True
    two_experts: bool = False
    boundary_ratio: float | None = None
    expand_timesteps: bool = False
    scheduler: str = "unipc"
    flow_shift: float = 3.0
    solver_order: int = 2
    vae_dim: int = 3
    residual_vae: bool = False  # as Wan2.2's 5B has it
    sharded: bool = False
    saved_dtype: str = "fp32"
    prompt: str = "A curious raccoon peers through a vibrant field of yellow sunflowers"
    negative_prompt: str | None = None
    height: int = 32
    width: int = 32
    num_frames: int = 9
    steps: int = 3
    guidance_scale: float = 5.0
    guidance_scale_2: float | None = None
    num_outputs: int = 1
    seed: int = 0
    weights_seed: int = 0


def make_scheduler(case: Case):
    if case.scheduler == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=case.flow_shift)
    if case.scheduler == "dpm++":
        return DPMSolverMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=case.flow_shift,
            solver_order=case.solver_order,
        )
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=case.flow_shift,
        solver_order=case.solver_order,
    )


def roughen(model: torch.nn.Module) -> torch.nn.Module:
    """Norms and biases of released models are not the ones they start from."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def make_transformer(case: Case, text_dim: int) -> WanTransformer3DModel:
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=case.heads,
        attention_head_dim=case.head_dim,
        in_channels=48 if case.residual_vae else 16,
        out_channels=48 if case.residual_vae else 16,
        text_dim=text_dim,
        freq_dim=256,
        ffn_dim=case.ffn_dim,
        num_layers=case.layers,
        cross_attn_norm=case.cross_attn_norm,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    return roughen(model)


def make_text_config(tokenizer, layers: int) -> UMT5Config:
    return UMT5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=layers,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )


def make_pipeline(case: Case) -> WanPipeline:
    torch.manual_seed(case.weights_seed)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    text_config = make_text_config(tokenizer, case.text_layers)
    residual = dict(
        is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16,
        latents_mean=[0.1] * 48, latents_std=[1.5] * 48,
    )  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=case.vae_dim,
        z_dim=48 if case.residual_vae else 16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        **(residual if case.residual_vae else {}),
    )
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(text_config),
        vae=vae,
        scheduler=make_scheduler(case),
        transformer=make_transformer(case, text_config.d_model),
        transformer_2=make_transformer(case, text_config.d_model) if case.two_experts else None,
        boundary_ratio=case.boundary_ratio,
        expand_timesteps=case.expand_timesteps,
    )


def save_pipeline(case: Case, folder: Path) -> None:
    pipeline = make_pipeline(case)
    if case.saved_dtype == "bf16":
        pipeline.to(torch.bfloat16)
    pipeline.save_pretrained(folder, max_shard_size="40KB" if case.sharded else "10GB")


def run_diffusers(case: Case, folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    pipeline = WanPipeline.from_pretrained(folder, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    height, width = case.height // 16 * 16, case.width // 16 * 16  # WanPipeline refuses other sizes

    def run(output_type: str) -> torch.Tensor:
        return pipeline(
            prompt=case.prompt,
            negative_prompt=case.negative_prompt,
            height=height,
            width=width,
            num_frames=case.num_frames,
            num_inference_steps=case.steps,
            guidance_scale=case.guidance_scale,
            guidance_scale_2=case.guidance_scale_2,
            num_videos_per_prompt=case.num_outputs,
            generator=torch.Generator("cpu").manual_seed(case.seed),
            output_type=output_type,
        ).frames.float()

    return {"latents": run("latent").contiguous(), "video": run("pt").contiguous()}


def run_zoetrope(program: str, case: Case, folder: Path, dtype: str) -> dict[str, torch.Tensor]:
    results = {}
    for kind, key in (("latent", "latents"), ("tensor", "video")):
        output = folder / f"{kind}-{dtype}.safetensors"
        command = [program, "generate", "--model-path", str(folder), "--prompt", case.prompt]
        if case.negative_prompt is not None:
            command += ["--negative-prompt", case.negative_prompt]
        if case.guidance_scale_2 is not None:
            command += ["--guidance-scale-2", str(case.guidance_scale_2)]
        command += ["--height", str(case.height), "--width", str(case.width)]
        command += ["--num-frames", str(case.num_frames), "--num-inference-steps", str(case.steps)]
        command += ["--guidance-scale", str(case.guidance_scale), "--num-outputs", str(case.num_outputs)]
        command += ["--seed", str(case.seed), "--dtype", dtype]
        command += ["--output-type", kind, "--output-path", str(output)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        results[key] = load_file(output)[key]
    return results


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def random_case(rng: random.Random) -> Case:
    two_experts = rng.random() < 0.3
    words = "a red panda, 世界 — “quoted” &amp; naïve café 🎬 running at night; slow motion".split()
    case = Case(
        heads=rng.choice([1, 2, 3]),
        head_dim=rng.choice([6, 8, 12, 16, 24, 64, 128]),
        layers=rng.choice([1, 2, 3]),
        ffn_dim=rng.choice([16, 40]),
        cross_attn_norm=rng.random() < 0.8,
        two_experts=two_experts,
        boundary_ratio=rng.choice([0.5, 0.875, 0.95]) if two_experts else None,
        expand_timesteps=rng.random() < 0.2,
        scheduler=rng.choice(["unipc", "euler", "dpm++"]),
        flow_shift=rng.choice([1.0, 3.0, 5.0, 12.0]),
        solver_order=rng.choice([1, 2, 2, 3]),
        vae_dim=rng.choice([3, 4, 8]),
        residual_vae=rng.random() < 0.3,
        sharded=rng.random() < 0.4,
        saved_dtype=rng.choice(["fp32", "fp32", "bf16"]),
        prompt=" ".join(rng.choices(words, k=rng.choice([0, 3, 12, 400]))),
        negative_prompt=rng.choice([None, "", "blurry, low quality"]),
        height=rng.choice([16, 32, 48, 50]),
        width=rng.choice([16, 32, 47]),
        num_frames=rng.choice([1, 2, 5, 9, 15, 16, 17]),
        steps=rng.choice([1, 2, 3, 5]),
        guidance_scale=rng.choice([0.0, 1.0, 3.5, 5.0]),
        guidance_scale_2=rng.choice([None, 1.0, 3.0]) if two_experts else None,
        num_outputs=rng.choice([1, 1, 2]),
        seed=rng.randrange(2**32),
        weights_seed=rng.randrange(2**31),
    )
    least = 32 if case.residual_vae else 16  # a side of one patch
    return replace(case, height=max(case.height, least), width=max(case.width, least))


def compare(program: str, seed: int, cases: int) -> int:
    rng = random.Random(seed)
    failed = 0
    for number in range(cases):
        case = random_case(rng)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_pipeline(case, folder)
            exact = run_diffusers(case, folder, torch.float32)
            ours = run_zoetrope(program, case, folder, "fp32")
            latents = relative(ours["latents"], exact["latents"])
            frames = float((ours["video"] - exact["video"]).abs().max())
            half = run_diffusers(case, folder, torch.bfloat16)
            ours_half = run_zoetrope(program, case, folder, "bf16")
        ratios = [
            relative(ours_half[key], exact[key]) / max(relative(half[key], exact[key]), 1e-9)
            for key in ("latents", "video")
        ]
        good = latents <= LATENT_BAR and frames <= FRAME_BAR and all(ratio <= bar for ratio, bar in zip(ratios, BF16_BARS))
        failed += not good
        print(
            f"{number:3} {'ok  ' if good else 'FAIL'} latents {latents:.1e} frames {frames:.1e} "
            f"bf16 latents x{ratios[0]:.2f} frames x{ratios[1]:.2f}  {case.scheduler} h{case.heads}x{case.head_dim} "
            f"{case.height}x{case.width}x{case.num_frames} steps {case.steps} g {case.guidance_scale} "
            f"experts {1 + case.two_experts}",
            flush=True,
        )
        if not good:
            print("    ", json.dumps(asdict(case), ensure_ascii=False), flush=True)
    print(f"{cases - failed} passed, {failed} failed")
    return 1 if failed else 0


GOLDEN_CASES = {
    "unipc": Case(negative_prompt="blurry", num_frames=9, guidance_scale=4.0),
    "two_experts": Case(
        two_experts=True, boundary_ratio=0.875, guidance_scale_2=3.0, steps=4, scheduler="euler", flow_shift=5.0,
        num_frames=5, sharded=True, num_outputs=2, head_dim=8, vae_dim=4,
    ),
    "dpm_bf16": Case(
        scheduler="dpm++", saved_dtype="bf16", head_dim=64, heads=1, guidance_scale=1.0, num_frames=5,
        cross_attn_norm=False, expand_timesteps=True,
    ),
}


def write_golden() -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name, case in GOLDEN_CASES.items():
        folder = GOLDEN / name
        save_pipeline(case, folder)
        exact = run_diffusers(case, folder, torch.float32)
        half = run_diffusers(case, folder, torch.bfloat16)
        save_file(
            {**exact, "latents_bf16": half["latents"], "video_bf16": half["video"].to(torch.float16)},
            folder / "expected.safetensors",
        )
        (folder / "request.json").write_text(json.dumps(asdict(case), indent=1, ensure_ascii=False) + "\n")
        print(name, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()), "bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    comparing = commands.add_parser("compare")
    comparing.add_argument("--zoetrope", default=str(ROOT / "build" / "zoetrope"))
    comparing.add_argument("--seed", type=int, default=0)
    comparing.add_argument("--cases", type=int, default=20)
    commands.add_parser("golden")
    arguments = parser.parse_args()
    if arguments.command == "golden":
        write_golden()
        return 0
    return compare(arguments.zoetrope, arguments.seed, arguments.cases)


if __name__ == "__main__":
    sys.exit(main())
