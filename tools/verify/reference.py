"""Diffusers' side of `zoetrope verify`: python reference.py FOLDER

FOLDER holds request.json and ours.safetensors, which `zoetrope verify` wrote. Every module of the model is run on the
inputs that zoetrope gave its own, one module in memory at a time, and what comes out is compared. Writes report.json,
report.md and frames.png. Exit code: 0 all within their bars, 1 some are not, 3 a package is missing.
"""

import gc
import json
import platform
import sys
from pathlib import Path

try:
    import diffusers
    import torch
    import transformers
    from diffusers import AutoencoderKLWan
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean
    from PIL import Image
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModel, UMT5EncoderModel
except ImportError as error:
    print(error)
    sys.exit(3)

# Relative L2. float32: Diffusers differs from itself by up to 7e-6 with other kernels; CLIP's pixels are resized.
# bf16: each module rounds some hundred times to 8 bits.
BARS = {"fp32": 1e-4, "bf16": 5e-2}


class Comparison:
    def __init__(self, folder: Path):
        self.folder = folder
        self.request = json.loads((folder / "request.json").read_text())
        self.settings = self.request["settings"]
        self.ours = load_file(folder / "ours.safetensors")
        self.model = Path(self.request["reference"])
        self.dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[self.settings["dtype"]]
        self.rows: list[dict] = []

    def compare(self, module: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        ours, theirs = ours.double(), theirs.double()
        error = float((ours - theirs).norm() / theirs.norm().clamp_min(1e-30)) if ours.shape == theirs.shape else 1e9
        bar = BARS[self.settings["dtype"]]
        row = {"module": module, "relative_error": error, "bar": bar, "within": error <= bar}
        self.rows.append(row)
        print(row, flush=True)

    def part(self, name: str) -> Path | None:
        path = self.model / name
        return path if path.exists() else None

    def text(self) -> None:
        tokenizer = AutoTokenizer.from_pretrained(self.model / "tokenizer")
        encoder = UMT5EncoderModel.from_pretrained(self.model / "text_encoder", dtype=self.dtype)
        for name, prompt in (("prompt", self.settings["prompt"]), ("negative", self.settings["negative_prompt"])):
            if name not in self.ours:
                continue
            tokens = tokenizer(prompt_clean(prompt), padding="max_length", max_length=512, truncation=True,
                               return_attention_mask=True, return_tensors="pt")
            out = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
            out = out * tokens.attention_mask.unsqueeze(2)
            self.compare(f"text encoder ({name})", self.ours[name], out)

    def pictures(self) -> list[Image.Image]:
        inputs = self.request.get("inputs", {})
        return [Image.open(inputs[key]).convert("RGB") for key in ("image", "last_image") if key in inputs]

    def image_encoder(self) -> None:
        if "image" not in self.ours:
            return
        processor = CLIPImageProcessor.from_pretrained(self.model / "image_processor")
        encoder = CLIPVisionModel.from_pretrained(self.model / "image_encoder", dtype=self.dtype)
        pixels = processor(images=self.pictures(), return_tensors="pt").pixel_values.to(self.dtype)
        self.compare("image encoder", self.ours["image"], encoder(pixels, output_hidden_states=True).hidden_states[-2])

    def vae(self) -> None:
        vae = AutoencoderKLWan.from_pretrained(self.model / "vae", torch_dtype=torch.float32)
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
        std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
        height, width = self.settings["height"], self.settings["width"]
        if "channels" in self.ours or "known_frames" in self.ours:
            processor = diffusers.video_processor.VideoProcessor(vae_scale_factor=8)
            video = torch.zeros(1, 3, self.settings["num_frames"], height, width)
            pictures = [processor.preprocess(picture, height=height, width=width) for picture in self.pictures()]
            video[:, :, 0] = pictures[0]
            if len(pictures) > 1:
                video[:, :, -1] = pictures[1]
            known = "known_frames" in self.ours
            encoded = (vae.encode(video[:, :, :1] if known else video).latent_dist.mode() - mean) / std
            ours = self.ours["known_frames"] if known else self.ours["channels"][:, -encoded.shape[1]:]
            self.compare("VAE encoder", ours, encoded)
        latents = self.last_latents()
        frames = vae.decode(latents * std + mean).sample[0].clamp(-1, 1) / 2 + 0.5
        self.compare("VAE decoder", self.ours["video"], frames)
        side_by_side(self.ours["video"], frames).save(self.folder / "frames.png")

    def last_latents(self) -> torch.Tensor:
        last = max(int(name.split(".")[1]) for name in self.ours if name.startswith("latents."))
        return self.ours[f"latents.{last}"]

    def transformer(self) -> None:
        index = json.loads((self.model / "model_index.json").read_text())
        scheduler_class = getattr(diffusers, index["scheduler"][1])
        scheduler = scheduler_class.from_pretrained(self.model / "scheduler")
        scheduler.set_timesteps(self.settings["num_inference_steps"])
        boundary = (index.get("boundary_ratio") or 0) * 1000
        loaded, model = None, None
        for step, t in enumerate(scheduler.timesteps):
            name = "transformer" if not boundary or t >= boundary else "transformer_2"
            if loaded != name:
                model = None
                gc.collect()
                model_class = getattr(diffusers, index[name][1])
                loaded, model = name, model_class.from_pretrained(self.model / name, torch_dtype=self.dtype)
            latents = self.ours[f"latents.{step}"]
            velocities = [v for key, v in self.ours.items() if key.startswith(f"step.{step}.velocity")]
            for branch, ours in zip(("prompt", "negative"), velocities):
                theirs = self.velocity(model, latents, t, branch)
                self.compare(f"{name}, step {step + 1} ({branch})", ours, theirs)

    def velocity(self, model: torch.nn.Module, latents: torch.Tensor, t: torch.Tensor, branch: str) -> torch.Tensor:
        inputs, more = latents, {}
        timestep = t.expand(latents.shape[0])
        if "channels" in self.ours:
            inputs = torch.cat([latents, self.ours["channels"]], dim=1)
        if "known_frames" in self.ours:
            inputs = latents.clone()
            inputs[:, :, :1] = self.ours["known_frames"]
            per_frame = (latents.shape[3] // 2) * (latents.shape[4] // 2)
            timestep = t.expand(latents.shape[2]).clone()
            timestep[0] = 0
            timestep = timestep.repeat_interleave(per_frame).unsqueeze(0)
        if "image" in self.ours:
            more["encoder_hidden_states_image"] = self.ours["image"].to(self.dtype)
        if "control" in self.ours:
            more["control_hidden_states"] = self.ours["control"].to(self.dtype)
        return model(hidden_states=inputs.to(self.dtype), timestep=timestep,
                     encoder_hidden_states=self.ours[branch].to(self.dtype), return_dict=False, **more)[0].float()

    def write(self) -> bool:
        passed = all(row["within"] for row in self.rows)
        versions = {"python": platform.python_version(), "torch": torch.__version__,
                    "diffusers": diffusers.__version__, "transformers": transformers.__version__}
        report = {"passed": passed, "modules": self.rows, "versions": versions, **self.request}
        (self.folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        lines = [f"# {self.request['model']} beside Diffusers", "",
                 f"{self.settings['width']}x{self.settings['height']}, {self.settings['num_frames']} frames, "
                 f"{self.settings['num_inference_steps']} steps, {self.settings['dtype']}, seed {self.settings['seed']}",
                 "", "| module | relative error (L2) | bar | |", "| --- | --- | --- | --- |"]
        for row in self.rows:
            verdict = "ok" if row["within"] else "**too far**"
            lines.append(f"| {row['module']} | {row['relative_error']:.1e} | {row['bar']:.0e} | {verdict} |")
        lines += ["", "Frames: ours above, Diffusers' below.", "", "![frames](frames.png)", "",
                  "```", self.request["machine"]["program"].strip(), self.request["machine"]["cpu"],
                  json.dumps(versions), "```", ""]
        (self.folder / "report.md").write_text("\n".join(lines))
        return passed


def side_by_side(ours: torch.Tensor, theirs: torch.Tensor) -> Image.Image:
    """[3, F, H, W] each -> up to five frames in a row, one row above the other."""
    picked = torch.linspace(0, ours.shape[1] - 1, min(5, ours.shape[1])).round().long()
    rows = [torch.cat(list(video[:, picked].unbind(1)), dim=2) for video in (ours, theirs)]
    both = (torch.cat(rows, dim=1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(both.contiguous().numpy())


def main() -> int:
    comparison = Comparison(Path(sys.argv[1]))
    with torch.no_grad():
        for stage in (comparison.text, comparison.image_encoder, comparison.transformer, comparison.vae):
            stage()
            gc.collect()
    return 0 if comparison.write() else 1


if __name__ == "__main__":
    sys.exit(main())
