"""Tiny random Wan pipelines that take pictures and videos, and what Diffusers makes with them.

    python tiny_conditions.py compare --zoetrope build/zoetrope [--seed N --cases N --kinds i2v,vace]
        random pipelines and requests, both programs, relative errors per case; fails above the bars
    python tiny_conditions.py golden
        writes tests/golden/conditions/
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    WanAnimatePipeline,
    WanAnimateTransformer3DModel,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
    WanVideoToVideoPipeline,
)
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from tiny_pipeline import TOKENIZER, Case, make_scheduler, make_text_config, relative, roughen
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel
from transformers import UMT5EncoderModel

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "conditions"
PIPELINE = ROOT / "tests" / "golden" / "pipeline" / "unipc"
KINDS = ("i2v", "flf2v", "i2v-experts", "flf2v-experts", "ti2v", "v2v", "vace", "fun-control", "animate", "replace")
CLIP_KINDS = ("i2v", "flf2v", "fun-control", "animate", "replace")
# where CLIP preprocessing takes part; else LATENT_BAR_PLAIN
LATENT_BAR = {"i2v": 2e-3, "flf2v": 2e-3, "fun-control": 2e-3, "animate": 1e-3, "replace": 1e-3}
LATENT_BAR_PLAIN = 2e-4
FRAME_BAR = 0.01


@dataclass
class Conditions(Case):
    """A pipeline, a request and the sizes of its pictures."""

    kind: str = "i2v"
    vae_residual: bool = False
    clip_size: int = 28  # pixels a side of what CLIP sees
    picture: tuple[int, int] = (45, 37)  # width, height
    last_picture: tuple[int, int] = (40, 40)
    references: list[tuple[int, int]] = field(default_factory=list)
    control_video: bool = True
    mask: bool = True
    strength: float = 0.8
    conditioning_scale: float = 1.0
    segment_length: int = 9
    overlap: int = 1


def make_vae(case: Conditions) -> AutoencoderKLWan:
    common = dict(z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True])
    if not case.vae_residual:
        return AutoencoderKLWan(base_dim=case.vae_dim, **common)
    return AutoencoderKLWan(
        base_dim=case.vae_dim,
        decoder_base_dim=case.vae_dim + 1,
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=16,
        scale_factor_temporal=4,
        **common,
    )


def make_transformer(case: Conditions, text_dim: int, tokens: int, image_dim: int):
    pictures = case.kind in CLIP_KINDS
    more, kind = {}, WanTransformer3DModel
    if pictures:
        more = dict(image_dim=image_dim, added_kv_proj_dim=case.heads * case.head_dim)
    if case.kind == "flf2v":
        more["pos_embed_seq_len"] = 2 * tokens
    if case.kind == "vace":
        kind = WanVACETransformer3DModel
        more = dict(vace_layers=[0, case.layers - 1] if case.layers > 1 else [0], vace_in_channels=96)
    if case.kind in ("animate", "replace"):
        kind = WanAnimateTransformer3DModel
        more |= dict(
            latent_channels=16,
            motion_encoder_channel_sizes={"4": 6, "8": 5, "16": 4},
            motion_encoder_size=16,
            motion_style_dim=8,
            motion_dim=4,
            motion_encoder_dim=10,
            face_encoder_hidden_dim=8,
            face_encoder_num_heads=2,
            inject_face_latents_blocks=1,
            motion_encoder_batch_size=4,
        )
    channels = {"ti2v": 16, "v2v": 16, "vace": 16, "fun-control": 48}.get(case.kind, 36)
    model = kind(
        patch_size=(1, 2, 2),
        num_attention_heads=case.heads,
        attention_head_dim=case.head_dim,
        in_channels=channels,
        out_channels=16,
        text_dim=text_dim,
        freq_dim=256,
        ffn_dim=case.ffn_dim,
        num_layers=case.layers,
        cross_attn_norm=case.cross_attn_norm,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
        **more,
    )
    with torch.no_grad():
        if case.kind == "flf2v":
            embedding = model.condition_embedder.image_embedder.pos_embed
            embedding.add_(0.2 * torch.randn_like(embedding))
    return roughen(model)


class FunControlPipeline(WanImageToVideoPipeline):
    """Diffusers has no pipeline of its own for the Fun-Control models: its nearest one, whose transformer takes the
    control video's latents and the first picture's in place of a mask and the known frames."""

    control_video: list[Image.Image] = []

    def save_pretrained(self, folder: Path) -> None:
        super().save_pretrained(folder)
        index = folder / "model_index.json"  # released folders name Diffusers' class
        index.write_text(index.read_text().replace("FunControlPipeline", "WanImageToVideoPipeline"))

    def prepare_latents(self, image, batch_size, *positional, **named):
        latents, known = super().prepare_latents(image, batch_size, *positional, **named)
        height, width = (8 * side for side in latents.shape[-2:])
        config = self.vae.config
        mean, scale = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))

        def encode(video: torch.Tensor) -> torch.Tensor:
            return (self.vae.encode(video).latent_dist.mode() - mean) / scale

        control = encode(self.video_processor.preprocess_video(self.control_video, height=height, width=width))
        first = torch.zeros_like(control)
        first[:, :, :1] = encode(image.unsqueeze(2))
        return latents, torch.cat([control, first], 1)


def make_pipeline(case: Conditions):
    torch.manual_seed(case.weights_seed)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    text_config = make_text_config(tokenizer, case.text_layers)
    clip_config = CLIPVisionConfig(
        hidden_size=20,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=case.clip_size,
        patch_size=7,
        hidden_act=random.Random(case.weights_seed).choice(["gelu", "quick_gelu"]),
    )
    tokens = (case.clip_size // 7) ** 2 + 1
    transformer = make_transformer(case, text_config.d_model, tokens, clip_config.hidden_size)
    parts = dict(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(text_config),
        vae=make_vae(case),
        scheduler=make_scheduler(case),
        transformer=transformer,
    )
    if case.kind == "v2v":
        return WanVideoToVideoPipeline(**parts)
    if case.kind == "vace":
        return WanVACEPipeline(**parts)
    experts = case.kind.endswith("-experts")
    clip = case.kind in CLIP_KINDS
    if case.kind in ("animate", "replace"):
        return WanAnimatePipeline(
            **parts,
            image_encoder=roughen(CLIPVisionModel(clip_config)),
            image_processor=CLIPImageProcessor(size=case.clip_size, crop_size=case.clip_size),
        )
    kind = FunControlPipeline if case.kind == "fun-control" else WanImageToVideoPipeline
    return kind(
        **parts,
        image_encoder=roughen(CLIPVisionModel(clip_config)) if clip else None,
        image_processor=CLIPImageProcessor(size=case.clip_size, crop_size=case.clip_size) if clip else None,
        transformer_2=make_transformer(case, text_config.d_model, tokens, 0) if experts else None,
        boundary_ratio=0.9 if experts else None,
        expand_timesteps=case.kind == "ti2v",
    )


def random_picture(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Coarse blots with noise on top: flat parts, edges and detail."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    coarse = torch.randint(0, 256, (4, 5, 3), generator=generator, dtype=torch.uint8)
    picture = Image.fromarray(coarse.numpy()).resize(size, Image.Resampling.NEAREST)
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return Image.blend(picture, Image.fromarray(noise.numpy()).filter(ImageFilter.GaussianBlur(1)), 0.3)


def write_inputs(case: Conditions, folder: Path) -> None:
    """The case's pictures as PNG files, its videos as folders of them."""
    rng = random.Random(case.seed)
    width, height = case.width // 16 * 16, case.height // 16 * 16
    if case.kind in ("v2v", "vace", "fun-control"):
        if case.kind != "vace" or case.control_video:
            (folder / "video").mkdir()
            # VACE: Diffusers conditions at the video's own size, so it is the size that is asked for
            size = (width, height) if case.kind == "vace" else case.picture
            for i in range(case.num_frames):
                random_picture(rng, size).save(folder / "video" / f"{i:03}.png")
            if case.kind == "vace" and case.mask:
                (folder / "mask").mkdir()
                for i in range(case.num_frames):
                    random_picture(rng, size).save(folder / "mask" / f"{i:03}.png")
        for i, size in enumerate(case.references):
            random_picture(rng, size).save(folder / f"reference{i}.png")
        if case.kind != "fun-control":
            return
    random_picture(rng, case.picture).save(folder / "image.png")
    if case.kind in ("animate", "replace"):
        videos = dict(pose=(width, height), face=(20, 20))
        if case.kind == "replace":
            videos |= dict(background=(width, height), mask=(width, height))
        for name, size in videos.items():
            (folder / name).mkdir()
            for i in range(case.num_frames):
                random_picture(rng, size).save(folder / name / f"{i:03}.png")
        return
    if case.kind.startswith("flf2v"):
        random_picture(rng, case.last_picture).save(folder / "last.png")


def pictures_of(folder: Path) -> list[Image.Image] | None:
    return [Image.open(file) for file in sorted(folder.iterdir())] if folder.exists() else None


def run_diffusers(case: Conditions, folder: Path) -> dict[str, torch.Tensor]:
    loaded = pipeline_class(case.kind).from_pretrained(folder, torch_dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    arguments = dict(
        prompt=case.prompt,
        negative_prompt=case.negative_prompt,
        height=case.height,
        width=case.width,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance_scale,
    )
    if case.kind in ("animate", "replace"):
        arguments |= dict(
            pose_video=pictures_of(folder / "pose"),
            face_video=pictures_of(folder / "face"),
            background_video=pictures_of(folder / "background"),
            mask_video=pictures_of(folder / "mask"),
            mode=case.kind,
            segment_frame_length=case.segment_length,
            prev_segment_conditioning_frames=case.overlap,
        )
    elif case.kind == "v2v":
        arguments |= dict(video=pictures_of(folder / "video"), strength=case.strength)
    else:
        arguments["num_frames"] = case.num_frames
    if case.kind == "fun-control":
        loaded.control_video = pictures_of(folder / "video")
    if case.kind == "vace":
        references = [Image.open(folder / f"reference{i}.png") for i in range(len(case.references))]
        arguments |= dict(
            video=pictures_of(folder / "video"),
            mask=pictures_of(folder / "mask"),
            reference_images=references or None,
            conditioning_scale=case.conditioning_scale,
        )
    if (folder / "image.png").exists():
        arguments["image"] = Image.open(folder / "image.png")
    if (folder / "last.png").exists():
        arguments["last_image"] = Image.open(folder / "last.png")

    def run(output_type: str) -> torch.Tensor:
        generator = torch.Generator("cpu").manual_seed(case.seed)
        return loaded(**arguments, generator=generator, output_type=output_type).frames.float().contiguous()

    return {"latents": run("latent"), "video": run("pt")}


def pipeline_class(kind: str):
    if kind in ("animate", "replace"):
        return WanAnimatePipeline
    return {
        "v2v": WanVideoToVideoPipeline,
        "vace": WanVACEPipeline,
        "fun-control": FunControlPipeline,
    }.get(kind, WanImageToVideoPipeline)


def request_flags(case: Conditions, folder: Path) -> list[str]:
    flags = ["--prompt", case.prompt, "--height", str(case.height), "--width", str(case.width)]
    flags += ["--num-inference-steps", str(case.steps), "--guidance-scale", str(case.guidance_scale)]
    flags += ["--seed", str(case.seed)]
    if case.negative_prompt is not None:
        flags += ["--negative-prompt", case.negative_prompt]
    if case.kind in ("animate", "replace"):
        flags += ["--task", case.kind, "--segment-length", str(case.segment_length)]
        flags += ["--segment-overlap", str(case.overlap)]
    elif case.kind != "v2v":
        flags += ["--num-frames", str(case.num_frames)]
    else:
        flags += ["--task", "v2v", "--strength", str(case.strength)]
    if case.kind == "vace":
        flags += ["--conditioning-scale", str(case.conditioning_scale)]
    files = {"--image": "image.png", "--last-image": "last.png", "--video": "video", "--mask-video": "mask"}
    files |= {"--pose-video": "pose", "--face-video": "face", "--background-video": "background"}
    for flag, name in files.items():
        if (folder / name).exists():
            flags += [flag, str(folder / name)]
    for i in range(len(case.references)):
        flags += ["--reference-image", str(folder / f"reference{i}.png")]
    return flags


def run_zoetrope(program: str, case: Conditions, folder: Path, dtype: str = "fp32") -> dict[str, torch.Tensor]:
    results = {}
    for kind, key in (("latent", "latents"), ("tensor", "video")):
        output = folder / f"{kind}-{dtype}.safetensors"
        command = [program, "generate", "--model-path", str(folder), *request_flags(case, folder)]
        command += ["--dtype", dtype, "--output-type", kind, "--output-path", str(output)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        results[key] = load_file(output)[key]
    return results


def random_case(rng: random.Random, kinds: list[str]) -> Conditions:
    kind = rng.choice(kinds)

    def size() -> tuple[int, int]:
        return rng.choice([16, 33, 64, 100]), rng.choice([16, 40, 57, 96])

    residual = kind == "ti2v" and rng.random() < 0.7
    multiple = 32 if residual else 16
    return Conditions(
        kind=kind,
        vae_residual=residual,
        heads=rng.choice([1, 2]),
        head_dim=rng.choice([6, 8, 12, 16]),
        layers=rng.choice([1, 2, 3]),
        cross_attn_norm=rng.random() < 0.8,
        scheduler=rng.choice(["unipc", "euler", "dpm++"]),
        flow_shift=rng.choice([1.0, 3.0, 5.0]),
        vae_dim=rng.choice([3, 4]),
        prompt=rng.choice(["", "a cat walks", "A curious raccoon peers through a field of sunflowers"]),
        negative_prompt=rng.choice([None, "blurry"]),
        height=rng.choice([1, 2]) * multiple,
        width=rng.choice([1, 2, 3]) * multiple,
        num_frames=rng.choice([11, 17, 20, 25] if kind in ("animate", "replace") else [5, 9, 17]),
        steps=rng.choice([2, 3, 5]),
        guidance_scale=rng.choice([1.0, 3.5]),
        seed=rng.randrange(2**32),
        weights_seed=rng.randrange(2**31),
        clip_size=rng.choice([28, 56]),
        picture=size(),
        last_picture=size(),
        references=[size() for _ in range(rng.choice([0, 0, 1, 2]))] if kind == "vace" else [],
        control_video=rng.random() < 0.8,
        mask=rng.random() < 0.6,
        strength=rng.choice([0.5, 0.8, 1.0]),
        conditioning_scale=rng.choice([1.0, 0.6]),
        segment_length=rng.choice([13, 17]),  # Diffusers' own count goes wrong below twice the overlap
        overlap=rng.choice([1, 5]),
    )


def compare(program: str, seed: int, cases: int, kinds: list[str]) -> int:
    rng = random.Random(seed)
    failed = 0
    for number in range(cases):
        case = random_case(rng, kinds)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_pipeline(case).save_pretrained(folder)
            write_inputs(case, folder)
            exact = run_diffusers(case, folder)
            ours = run_zoetrope(program, case, folder)
        latents = relative(ours["latents"], exact["latents"])
        frames = float((ours["video"] - exact["video"]).abs().max())
        good = latents <= LATENT_BAR.get(case.kind, LATENT_BAR_PLAIN) and frames <= FRAME_BAR
        failed += not good
        print(
            f"{number:3} {'ok  ' if good else 'FAIL'} {case.kind:14} latents {latents:.1e} frames {frames:.1e} "
            f"{case.scheduler} {case.height}x{case.width}x{case.num_frames} steps {case.steps} g {case.guidance_scale}",
            flush=True,
        )
        if not good:
            print("    ", json.dumps(asdict(case), ensure_ascii=False), flush=True)
    print(f"{cases - failed} passed, {failed} failed")
    return 1 if failed else 0


GOLDEN_CASES = {
    "i2v": Conditions(kind="i2v", head_dim=8, num_frames=5, width=48, layers=1),
    "flf2v": Conditions(kind="flf2v", head_dim=8, num_frames=5, layers=1, guidance_scale=1.0),
    "ti2v": Conditions(kind="ti2v", head_dim=8, num_frames=5, layers=1, scheduler="euler"),
    "replace": Conditions(kind="replace", head_dim=8, num_frames=16, segment_length=13, layers=1, overlap=5, steps=2),
    "v2v": Conditions(kind="v2v", head_dim=8, num_frames=9, layers=1, guidance_scale=1.0, steps=5),
    "vace": Conditions(
        kind="vace", head_dim=8, num_frames=5, layers=2, references=[(40, 33)], conditioning_scale=0.6,
        guidance_scale=1.0,
    ),
}


def write_golden() -> None:
    """Text encoder and tokenizer are those of tests/golden/pipeline/unipc."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    text_encoder = UMT5EncoderModel.from_pretrained(PIPELINE / "text_encoder", dtype=torch.float32)
    for name, case in GOLDEN_CASES.items():
        folder = GOLDEN / name
        pipeline = make_pipeline(case).to(torch.bfloat16)
        pipeline.text_encoder = text_encoder
        pipeline.save_pretrained(folder)
        write_inputs(case, folder)
        exact = run_diffusers(case, folder)
        for part in ("text_encoder", "tokenizer"):
            shutil.rmtree(folder / part)
        save_file({"latents": exact["latents"], "video": exact["video"].half()}, folder / "expected.safetensors")
        (folder / "request.json").write_text(json.dumps(asdict(case), indent=1, ensure_ascii=False) + "\n")
        print(name, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()), "bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    comparing = commands.add_parser("compare")
    comparing.add_argument("--zoetrope", default=str(ROOT / "build" / "zoetrope"))
    comparing.add_argument("--seed", type=int, default=0)
    comparing.add_argument("--cases", type=int, default=20)
    comparing.add_argument("--kinds", default=",".join(KINDS))
    commands.add_parser("golden")
    arguments = parser.parse_args()
    if arguments.command == "golden":
        write_golden()
        return 0
    return compare(arguments.zoetrope, arguments.seed, arguments.cases, arguments.kinds.split(","))


if __name__ == "__main__":
    sys.exit(main())
