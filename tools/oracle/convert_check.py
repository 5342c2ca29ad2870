"""Opens what `zoetrope convert` writes with Diffusers and Transformers, and compares with the source.

    python tools/oracle/convert_check.py --zoetrope build/zoetrope

Per model and precision: from_pretrained with no missing and no unexpected weights, every parameter equal to the
source's in that precision, and in fp32 the same latents from Diffusers' own pipeline. 8-bit folders must be refused.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, WanPipeline, WanTransformer3DModel
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def run(program, *words):
    subprocess.run([program, *map(str, words)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def parameters(pipeline):
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            yield from ((f"{name}.{key}", value) for key, value in part.state_dict().items())


def latents(pipeline, request):
    return pipeline(
        prompt=request["prompt"], negative_prompt=request["negative_prompt"], height=request["height"],
        width=request["width"], num_frames=request["num_frames"], num_inference_steps=request["steps"],
        guidance_scale=request["guidance_scale"], output_type="latent",
        generator=torch.Generator("cpu").manual_seed(request["seed"]),
    ).frames  # fmt: skip


def check(folder, source, dtype, request):
    """The worst difference of a parameter from the source's, rounded as its own dtype rounds."""
    with torch.no_grad():
        pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=DTYPES[dtype])
        wanted = dict(parameters(source))
        found = dict(parameters(pipeline))
        assert wanted.keys() == found.keys(), wanted.keys() ^ found.keys()
        worst = max((found[key] - wanted[key].to(found[key].dtype)).abs().max().item() for key in wanted)
        same = None
        if dtype == "fp32" and request is not None:
            pipeline.set_progress_bar_config(disable=True)
            source.set_progress_bar_config(disable=True)
            same = torch.equal(latents(pipeline, request), latents(source, request))
        return type(pipeline).__name__, worst, same


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", type=Path, default=ROOT / "build" / "zoetrope")
    program = parser.parse_args().zoetrope.resolve()
    shared = GOLDEN / "pipeline" / "unipc"
    parts = ["--text-encoder-path", shared / "text_encoder", "--tokenizer-path", shared / "tokenizer"]
    failed = False
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        for name, model, extra in (("unipc", shared, []), ("two_experts", GOLDEN / "pipeline" / "two_experts", []),
                                   ("i2v", GOLDEN / "conditions" / "i2v", parts)):  # fmt: skip
            request = json.loads((model / "request.json").read_text()) if name == "unipc" else None
            # The source itself in float32 is what the others are compared with.
            whole = temporary / f"{name}-source"
            run(program, "convert", "--model-path", model, "--output-path", whole, "--dtype", "fp32", *extra)
            source = DiffusionPipeline.from_pretrained(model if not extra else whole, torch_dtype=torch.float32)
            for dtype in DTYPES:
                folder = temporary / f"{name}-{dtype}"
                run(program, "convert", "--model-path", model, "--output-path", folder, "--dtype", dtype,
                    "--max-shard-size", "60K", *extra)  # fmt: skip
                kind, worst, same = check(folder, source, dtype, request)
                # What was rounded once is not rounded again: no difference at all.
                failed |= worst != 0 or same is False
                print(f"{name:12} {dtype}: {kind}, largest difference {worst:g}, same latents {same}")
        # From one file, with what Diffusers writes beside it made anew.
        run(program, "convert", "--model-path", shared, "--output-path", temporary / "wan.safetensors", "--layout",
            "single-file")  # fmt: skip
        run(program, "convert", "--model-path", temporary / "wan.safetensors", "--output-path", temporary / "from_file",
            "--vae-path", shared / "vae", *parts)  # fmt: skip
        pipeline = WanPipeline.from_pretrained(temporary / "from_file", torch_dtype=torch.float32)
        same = all(torch.equal(value, dict(parameters(pipeline))[key])
                   for key, value in parameters(WanPipeline.from_pretrained(shared)))  # fmt: skip
        failed |= not same
        print(f"from a single file: {type(pipeline.scheduler).__name__}, same parameters {same}")
        for dtype in ("fp8", "int8"):
            run(program, "convert", "--model-path", shared, "--output-path", temporary / dtype, "--dtype", dtype)
            try:
                WanTransformer3DModel.from_pretrained(temporary / dtype / "transformer")
                print(f"{dtype}: Diffusers took it for plain numbers")
                failed = True
            except ValueError as error:
                print(f"{dtype}: refused: {str(error).splitlines()[0][:80]}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
