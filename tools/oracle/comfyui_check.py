"""Compares Zoetrope with ComfyUI itself, on a small random Wan text-to-video model with real head size and text width.

    python comfyui_check.py --comfyui FOLDER --zoetrope build/zoetrope

FOLDER is a checkout of ComfyUI (0.3.64 was used) whose requirements are installed; torchvision and torchaudio may be
missing. `zoetrope convert` writes the transformer as a single file of every precision; ComfyUI loads it, and its KSampler
and `zoetrope generate` (given the same file, sigmas, seed and text states) make latents. Then ComfyUI's LoRA loader and
`zoetrope convert --lora-path` change weights; every other kind of transformer, and both VAEs, compute there what they
compute in Diffusers and here. Fails above the bars.

Not compared, since they are not alike: ComfyUI's uni_pc and dpmpp_2m, which are other algorithms than Diffusers'; DoRA
(ComfyUI divides by the lengths of the base's rows, the paper and PEFT by those of the changed ones); .diff_m, which
ComfyUI does not read.
"""

import argparse
import functools
import itertools
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from unittest.mock import MagicMock

import torch
from diffusers import WanAnimateTransformer3DModel, WanPipeline, WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

import tiny_pipeline
from adapter_golden import RANK, factors

LATENT_BAR = 2e-4  # relative L2, fp32
FRAME_BAR = 1e-4  # of 0..1
CHANGE_BAR = 1e-5  # of an adapter's change, relative L2
ALPHA, STRENGTH = 2.0, 0.7
STEPS, GUIDANCE, SEED = 4, 5.0, 3
PROMPT, NEGATIVE = "a red panda in a field", "blurry"
FRAMES, SIDE = 5, 64
# Those that are the same algorithm in both. What the last two draw on the way comes from a generator of its own in
# ComfyUI, and here goes on where the first noise ends; the comparison has both draw the latter.
SAMPLERS = {"euler": "euler", "heun": "heun", "euler_ancestral": "euler-ancestral", "lcm": "lcm"}
SCHEDULES = ("simple", "beta")
# Parameters beside inner modules, which ComfyUI's patcher does not reach.
LEFT_ALONE = {"blocks.1.modulation", "head.modulation"}
MATRICES = ("self_attn.q", "self_attn.o", "cross_attn.k", "ffn.0", "ffn.2")


def save_model(folder: Path) -> None:
    """ComfyUI takes heads of 128 channels and text states of 4,096 for granted, and in fp8 files rounds biases too."""
    torch.manual_seed(0)
    case = tiny_pipeline.Case(heads=2, head_dim=128, ffn_dim=256)
    pipeline = tiny_pipeline.make_pipeline(case)
    text = UMT5Config(vocab_size=len(AutoTokenizer.from_pretrained(tiny_pipeline.TOKENIZER)), d_model=4096, d_kv=8, d_ff=48,
                      num_layers=1, num_heads=4, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    pipeline.register_modules(text_encoder=UMT5EncoderModel(text),
                              transformer=tiny_pipeline.make_transformer(case, text.d_model))
    with torch.no_grad():
        for name, parameter in pipeline.transformer.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(parameter.to(torch.float8_e4m3fn))
    pipeline.save_pretrained(folder)


def run(program: str, *words: object) -> None:
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stderr}")


def start_comfyui(folder: Path):
    """Its package, on the CPU."""
    import transformers  # noqa: F401  before the modules below, which it would look into

    for name in ("torchvision", "torchaudio"):
        try:
            __import__(name)
        except ImportError:  # only other models' parts use them
            for inner in ("", ".transforms", ".transforms.functional", ".functional", ".ops"):
                stand_in = MagicMock()
                stand_in.__spec__ = ModuleSpec(name + inner, None)
                sys.modules[name + inner] = stand_in
    sys.path.insert(0, str(folder))
    sys.argv = [sys.argv[0], "--cpu", "--force-fp32"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.sample
    import comfy.sd

    return comfy


@torch.no_grad()
def encode_text(model: Path) -> list[torch.Tensor]:
    """Of the prompt and the negative one."""
    pipeline = WanPipeline.from_pretrained(model, torch_dtype=torch.float32)
    return list(pipeline.encode_prompt(PROMPT, NEGATIVE, max_sequence_length=512))


@torch.no_grad()
def compare_sampling(comfy, program: str, model: Path, dtype: str, text: list[torch.Tensor]) -> bool:
    single = model / f"{dtype}.safetensors"
    run(program, "convert", "--model-path", model, "--layout", "single-file", "--dtype", dtype, "--output-path", single)
    patcher = comfy.sd.load_diffusion_model(str(single))
    positive, negative = ([[states, {}]] for states in text)
    shape = (1, 16, (FRAMES - 1) // 4 + 1, SIDE // 8, SIDE // 8)
    good = True
    for (sampler, scheduler), schedule in itertools.product(SAMPLERS.items(), SCHEDULES):
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn(shape, generator=generator)
        draw = functools.partial(torch.randn, shape, generator=generator)
        comfy.k_diffusion.sampling.default_noise_sampler = lambda x, seed=None, draw=draw: lambda *levels: draw()
        latents = comfy.sample.sample(patcher, noise, STEPS, GUIDANCE, sampler, schedule, positive, negative,
                                      torch.zeros_like(noise), disable_pbar=True, seed=SEED)
        theirs = patcher.model.process_latent_in(latents).float()
        sigmas = comfy.samplers.calculate_sigmas(patcher.model.model_sampling, schedule, STEPS)[:-1].tolist()
        output = model / "latents.safetensors"
        run(program, "generate", "--model-path", model, "--transformer-path", single, "--prompt", PROMPT, "--negative-prompt",
            NEGATIVE, "--height", SIDE, "--width", SIDE, "--num-frames", FRAMES, "--num-inference-steps", STEPS,
            "--guidance-scale", GUIDANCE, "--scheduler", scheduler, "--sigmas", ",".join(map(repr, sigmas)), "--seed", SEED,
            "--dtype", "fp32", "--output-type", "latent", "--output-path", output)
        error = tiny_pipeline.relative(load_file(output)["latents"], theirs)
        good &= error <= LATENT_BAR
        print(f"{dtype} weights, {sampler}, {schedule}: latents {error:.1e} apart")
    return good


@dataclass
class Kind:
    """A transformer of Diffusers, what it is given beside latents, time step and text, and ComfyUI's names of that."""

    model: type[torch.nn.Module]
    config: dict = field(default_factory=dict)
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    frames: int = 2  # of the latents


IMAGE = {"encoder_hidden_states_image": "clip_fea"}
FACES = {"pose_hidden_states": "pose_latents", "face_pixel_values": "face_pixel_values"}


def make_kinds() -> dict[str, Kind]:
    torch.manual_seed(0)
    picture = torch.randn(1, 257, 1280)
    with_image = dict(in_channels=36, image_dim=1280, added_kv_proj_dim=256)
    return {
        "I2V with CLIP": Kind(WanTransformer3DModel, with_image, {"encoder_hidden_states_image": picture}, IMAGE),
        "FLF2V": Kind(WanTransformer3DModel, with_image | {"pos_embed_seq_len": 514},
                      {"encoder_hidden_states_image": torch.randn(2, 257, 1280)}, IMAGE),
        "I2V without CLIP": Kind(WanTransformer3DModel, {"in_channels": 36}),
        "TI2V": Kind(WanTransformer3DModel, {"in_channels": 48, "out_channels": 48}),
        "VACE": Kind(WanVACETransformer3DModel, {"vace_layers": [0, 2], "num_layers": 4},
                     {"control_hidden_states": torch.randn(1, 96, 2, 8, 8)}),
        "Animate": Kind(WanAnimateTransformer3DModel, with_image | {"num_layers": 5},
                        {"encoder_hidden_states_image": picture, "pose_hidden_states": torch.randn(1, 16, 2, 8, 8),
                         "face_pixel_values": torch.rand(1, 3, 5, 512, 512) * 2 - 1}, IMAGE | FACES, frames=3),
    }


@torch.no_grad()
def compare_kinds(comfy, program: str, folder: Path) -> bool:
    """One call of every kind of transformer, in ComfyUI from the single file and in Diffusers."""
    good = True
    for number, (name, kind) in enumerate(make_kinds().items()):
        torch.manual_seed(number)
        shape = dict(num_attention_heads=2, attention_head_dim=128, ffn_dim=256, num_layers=2) | kind.config
        transformer = tiny_pipeline.roughen(kind.model(**shape))
        transformer.save_pretrained(folder / f"kind{number}")
        single = folder / f"kind{number}.safetensors"
        run(program, "convert", "--model-path", folder / f"kind{number}", "--layout", "single-file", "--output-path", single)
        patcher = comfy.sd.load_diffusion_model(str(single))
        comfy.model_management.load_models_gpu([patcher])
        latents = torch.randn(1, shape.get("in_channels", 16), kind.frames, 8, 8)
        time, text = torch.tensor([500.0]), torch.randn(1, 512, 4096)
        more = {kind.names[key]: value for key, value in kind.inputs.items() if key in kind.names}
        if "clip_fea" in more:  # two pictures lie behind each other there
            more["clip_fea"] = more["clip_fea"].reshape(1, -1, 1280)
        if name == "VACE":
            more |= {"vace_context": kind.inputs["control_hidden_states"].unsqueeze(1), "vace_strength": [1.0]}
        theirs = patcher.model.diffusion_model(latents, time, text, **more)
        error = tiny_pipeline.relative(theirs, transformer(latents, time, text, **kind.inputs).sample)
        good &= error <= LATENT_BAR
        print(f"{name}: {error:.1e} between ComfyUI on the single file and Diffusers")
    return good


@torch.no_grad()
def compare_vaes(comfy, program: str, folder: Path) -> bool:
    """Both VAEs of ComfyUI with random weights: the frames that each makes of latents, and that `generate` makes with it."""
    import comfy.latent_formats as formats
    import comfy.ldm.wan.vae
    import comfy.ldm.wan.vae2_2

    sizes = dict(dim=16, dim_mult=[1, 2, 4, 4], temperal_downsample=[False, True, True])
    good = True
    for name, vae, latent_format, side in (
        ("VAE of Wan2.1", comfy.ldm.wan.vae.WanVAE(z_dim=16, **sizes), formats.Wan21(), SIDE),
        ("VAE of Wan2.2", comfy.ldm.wan.vae2_2.WanVAE(z_dim=48, dec_dim=24, **sizes), formats.Wan22(), 2 * SIDE),
    ):
        for weight_name, parameter in vae.named_parameters():
            noise = torch.randn_like(parameter)
            if "gamma" in weight_name:
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(noise * (0.05 if weight_name.endswith("bias") else parameter[0].numel() ** -0.5))
        model, weights = folder / name, folder / f"{name}.safetensors"
        tiny_pipeline.save_pipeline(tiny_pipeline.Case(residual_vae=latent_format.latent_channels == 48), model)
        save_file({key: value.contiguous() for key, value in vae.state_dict().items()}, weights)
        made = {}
        for kind in ("latent", "tensor"):
            output = folder / f"{kind}.safetensors"
            run(program, "generate", "--model-path", model, "--vae-path", weights, "--prompt", PROMPT, "--height", side, "--width",
                side, "--num-frames", 9, "--num-inference-steps", 2, "--seed", SEED, "--dtype", "fp32", "--output-type", kind,
                "--output-path", output)
            made |= load_file(output)
        theirs = vae.eval().decode(latent_format.process_out(made["latents"]))
        error = float((made["video"] - (theirs / 2 + 0.5).clamp(0, 1).movedim(1, 2)).abs().max())
        good &= error <= FRAME_BAR
        print(f"{name}: frames at most {error:.1e} apart")
    return good


def make_adapters(weights: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Adapters in the layouts that ComfyUI reads for Wan; weights: its own names."""
    modules = [f"blocks.{block}.{name}" for block in range(2) for name in MATRICES]
    lora = {module: factors(weights[f"{module}.weight"]) for module in modules}
    flat = {module: module.replace(".", "_") for module in modules}
    kohya, fun, peft, lokr = {}, {}, {}, {}
    for module, (down, up) in lora.items():
        for adapter, prefix in ((kohya, "lora_unet_"), (fun, "lora_unet__")):
            adapter[f"{prefix}{flat[module]}.lora_down.weight"] = down
            adapter[f"{prefix}{flat[module]}.lora_up.weight"] = up
            adapter[f"{prefix}{flat[module]}.alpha"] = torch.tensor(ALPHA)
        peft[f"diffusion_model.{module}.lora_A.weight"] = down
        peft[f"diffusion_model.{module}.lora_B.weight"] = up
        rows, columns = weights[f"{module}.weight"].shape
        lokr[f"lora_unet_{flat[module]}.lokr_w1"] = torch.randn(4, 8) * 0.1
        lokr[f"lora_unet_{flat[module]}.lokr_w2_a"] = torch.randn(rows // 4, RANK) * 0.1
        lokr[f"lora_unet_{flat[module]}.lokr_w2_b"] = torch.randn(RANK, columns // 8) * 0.1
        lokr[f"lora_unet_{flat[module]}.alpha"] = torch.tensor(ALPHA)
    whole = {f"diffusion_model.{name}": torch.randn_like(weights[source]) * 0.05 for name, source in {
        "blocks.0.self_attn.q.diff": "blocks.0.self_attn.q.weight", "blocks.0.self_attn.q.diff_b": "blocks.0.self_attn.q.bias",
        "blocks.1.norm3.diff": "blocks.1.norm3.weight", "blocks.1.norm3.diff_b": "blocks.1.norm3.bias",
        "blocks.1.self_attn.norm_k.diff": "blocks.1.self_attn.norm_k.weight",
        "blocks.1.modulation.diff": "blocks.1.modulation", "head.modulation.diff": "head.modulation",
        "patch_embedding.diff": "patch_embedding.weight", "time_embedding.0.diff_b": "time_embedding.0.bias"}.items()}
    return {"kohya": kohya, "Wan-Fun": fun, "lora_A, lora_B": peft, "differences": whole, "LoKr": lokr}


@torch.no_grad()
def compare_adapters(comfy, program: str, model: Path) -> bool:
    patcher = comfy.sd.load_diffusion_model(str(model / "fp32.safetensors"))
    base = {name: value.clone().float() for name, value in patcher.model.diffusion_model.state_dict().items()}
    good = True
    for number, (name, adapter) in enumerate(make_adapters(base).items()):
        file, merged = model / f"adapter{number}.safetensors", model / f"merged{number}.safetensors"
        save_file(adapter, file)
        patched, _ = comfy.sd.load_lora_for_models(patcher, None, load_file(file), STRENGTH, 0)
        patched.patch_model(device_to=patched.load_device)
        theirs = {key: value.clone().float() for key, value in patched.model.diffusion_model.state_dict().items()}
        patched.unpatch_model()
        run(program, "convert", "--model-path", model, "--layout", "single-file", "--dtype", "fp32", "--lora-path",
            f"{file}:{STRENGTH}", "--output-path", merged)
        ours = {key.removeprefix("model.diffusion_model."): value.float() for key, value in load_file(merged).items()}
        changed = [key for key in base if not torch.equal(theirs[key], base[key])]
        alone = [key for key in base if key not in changed and not torch.equal(ours[key], base[key])]
        error = max(tiny_pipeline.relative(ours[key] - base[key], theirs[key] - base[key]) for key in changed)
        good &= error <= CHANGE_BAR and set(alone) <= LEFT_ALONE
        print(f"{name}: {len(changed)} tensors changed, at most {error:.1e} of a change apart"
              + (f"; changed here alone: {', '.join(alone)}" if alone else ""))
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--zoetrope", required=True)
    arguments = parser.parse_args()
    comfy = start_comfyui(arguments.comfyui)
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        save_model(model)
        text = encode_text(model)
        good = True
        for dtype in ("fp32", "bf16", "fp16", "fp8"):
            good &= compare_sampling(comfy, arguments.zoetrope, model, dtype, text)
        good &= compare_vaes(comfy, arguments.zoetrope, Path(name))
        good &= compare_kinds(comfy, arguments.zoetrope, Path(name))
        good &= compare_adapters(comfy, arguments.zoetrope, model)
    sys.exit(0 if good else "above the bars")


if __name__ == "__main__":
    main()
