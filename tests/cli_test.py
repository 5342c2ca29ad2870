#!/usr/bin/env python3
"""The command line as a process: exit codes, messages, files. Runs the real program on a tiny pipeline.

usage: cli_test.py PROGRAM [unittest arguments]
"""
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

PROGRAM = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "zoetrope"
SOURCE = Path(__file__).resolve().parent.parent
MODEL = SOURCE / "tests/golden/pipeline/unipc"
SECONDS = 120  # a run takes well under one; machines are busy

ADAPTER = SOURCE / "tests/golden/adapters/diffusers.safetensors"
BASE = {"--model-path": MODEL, "--prompt": "a red circle", "--height": 32, "--width": 32, "--num-frames": 5,
        "--num-inference-steps": 2, "--threads": 1, "--dtype": "fp32", "--seed": 7}  # fmt: skip
SWITCHES = {"--enable-cfg-parallel", "--use-fsdp-inference", "--vae-parallel",
            "--dit-layerwise-offload", "--cache-taylorseer", "--resume"}  # fmt: skip
# A value of each flag that is not built, which the flag's own type takes.
NOT_BUILT = {
    "--num-gpus": "4",
    "--tp-size": "2", "--ulysses-degree": "2", "--ring-degree": "2", "--sp-degree": "2",
    "--enable-cfg-parallel": None, "--use-fsdp-inference": None, "--vae-parallel": None,
    "--dit-layerwise-offload": None, "--vae-tiling": "on", "--cache": "dbcache", "--cache-fn": "1",
    "--cache-bn": "0", "--cache-warmup": "4", "--cache-threshold": "0.1", "--cache-max-continuous": "3",
    "--cache-taylorseer": None, "--cache-taylorseer-order": "1",
}  # fmt: skip
BUILT = [
    "--config", "--model-path", "--vae-path", "--text-encoder-path", "--tokenizer-path", "--transformer-path",
    "--transformer-2-path", "--image-encoder-path", "--pull", "--task", "--prompt", "--negative-prompt",
    "--prompt-file", "--image", "--last-image", "--reference-image", "--video",
    "--mask-video", "--pose-video", "--face-video", "--background-video", "--strength", "--conditioning-scale",
    "--segment-policy", "--segment-length", "--segment-overlap", "--segment-max-length",
    "--carry", "--overlap-fusion", "--color-match", "--cut-policy", "--height", "--width",
    "--num-frames", "--fps", "--num-inference-steps", "--guidance-scale", "--guidance-scale-2",
    "--boundary-ratio", "--scheduler", "--flow-shift", "--sigma-schedule", "--sigmas", "--seed", "--num-outputs",
    "--latents", "--lora-path", "--lora-registry", "--lora-mode", "--lora-allow-unmatched", "--dtype",
    "--quantization", "--device", "--max-memory", "--dit-cpu-offload", "--text-encoder-cpu-offload",
    "--image-encoder-cpu-offload", "--vae-cpu-offload", "--pin-cpu-memory", "--threads", "--output-path",
    "--output-file-name", "--save-output", "--output-type", "--json", "--perf-dump-path",
    "--retarget", "--edited-reference", "--resolution-area", "--person", "--on-bad-frame", "--mask-iterations",
    "--mask-k", "--mask-w-len", "--mask-h-len", "--det-model", "--pose-model", "--process-checkpoint", "--segmenter",
    "--state-dir", "--checkpoint-every", "--resume",
]  # fmt: skip


def flags_of(overrides):
    """BASE with changes; None leaves a flag out."""
    words = []
    for flag, value in {**BASE, **overrides}.items():
        if value is not None:
            words += [flag, str(value)]
    return words


def read_tensors(path):
    """A safetensors file -> ({name: (dtype, shape)}, metadata)."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    return {name: (info["dtype"], info["shape"]) for name, info in header.items()}, metadata


class CommandLine(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="zoetrope-cli-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.environment = {**os.environ, "HF_HUB_CACHE": str(self.folder / ".hub"), "LC_ALL": "C"}

    def start(self, *words, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [PROGRAM, *[word if isinstance(word, bytes) else str(word) for word in words]]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, **options)

    def call(self, *words, code=0):
        """Runs the program -> (stdout, stderr)."""
        process = self.start(*words)
        out, err = process.communicate(timeout=SECONDS)
        out, err = out.decode("utf-8"), err.decode("utf-8")
        self.assertEqual(process.returncode, code, f"{words}\n{out}{err}")
        return out, err

    def generate(self, overrides=None, *more, code=0):
        return self.call("generate", *flags_of(overrides or {}), *more, code=code)

    def files(self):
        """Everything in the working folder, hidden files too."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    def refused(self, *words, code=2, names=()):
        """One line on stderr that has each of `names`, nothing on stdout, nothing written."""
        before = self.files()
        out, err = self.call(*words, code=code)
        self.assertEqual(out, "", words)
        self.assertRegex(err, r"\Azoetrope: [^\n]+\n\Z", words)
        for name in names:
            self.assertIn(name, err, words)
        self.assertNotIn("json.exception", err)
        self.assertEqual(self.files(), before, words)
        return err

    def refuses(self, overrides, *names, code=2, more=()):
        return self.refused("generate", *flags_of(overrides), *more, code=code, names=names)

    def copy_model(self):
        model = self.folder / "model"
        shutil.copytree(MODEL, model, copy_function=shutil.copyfile)
        return model

    def edit(self, file, **changes):
        """Sets keys of a JSON file; ... removes one."""
        content = json.loads(file.read_text())
        for key, value in changes.items():
            content[key] = value
            if value is ...:
                del content[key]
        file.write_text(json.dumps(content))


class Commands(CommandLine):
    def test_version(self):
        out, _ = self.call("--version")
        self.assertRegex(out, r"\Azoetrope \d+\.\d+\.\d+\n")
        for line in ("LibTorch: ", "instruction sets: ", "threads: ", "device cpu: "):
            self.assertIn(line, out)

    def test_help_names_every_flag(self):
        out, err = self.call("generate", "--help")
        self.assertEqual(err, "")
        built, not_built = out.split("\nNot built yet", 1)
        for flag in BUILT:
            self.assertRegex(built, rf"(?m)^  {flag}( |$)")
        for flag in NOT_BUILT:
            self.assertRegex(not_built, rf"(?m)^  {flag}( |$)")
        known = set(BUILT) | set(NOT_BUILT) | {"--help"}
        self.assertEqual(set(re.findall(r"(?m)^  (--[a-z0-9-]+)", out)) - known, set())
        self.assertLessEqual(max(map(len, out.splitlines())), 100)

    def test_help_of_the_others(self):
        for words in (["--help"], ["-h"], ["verify", "--help"], ["plan", "--help"], ["inspect", "--help"], ["pull", "--help"],
                      ["convert", "--help"], ["preprocess", "--help"], ["bench", "--help"], ["bench", "model", "--help"], ["bench", "kernels", "--help"],
                      ["bench", "quality", "--help"], ["sheet", "--help"]):
            out, err = self.call(*words)
            self.assertIn("zoetrope", out)
            self.assertEqual(err, "")

    def test_commands_that_are_not_there(self):
        self.refused(names=["generate", "inspect", "bench", "--help"])
        self.refused("generat", names=["'generat'", "did you mean generate?"])
        self.refused("serve", "x", names=["serve", "not built yet"])
        for what in ("serving",):
            self.refused("bench", what, names=[what, "not built yet"])
        self.refused("bench", "models", names=["'models'", "model"])

    def test_preprocess_refuses(self):
        clip = self.folder / "clip.mp4"
        clip.write_bytes(b"no video at all")
        for words, names in (
            ([], ["--video is missing"]),
            (["--video", "none.mp4", "--output-path", "x"], ["--video", "none.mp4"]),
            (["--video", str(clip)], ["--output-path is missing"]),
            (["--resolution-area", "1280"], ["--resolution-area", "1280x720"]),
            (["--person", "tallest"], ["--person", "largest, center"]),
            (["--on-bad-frame", "skip"], ["--on-bad-frame", "hold, interpolate"]),
            (["--mask-k", "0"], ["--mask-k", "1 to 501"]),
            (["--fps", "-1"], ["--fps", "0 to 1000"]),
            (["--segmenter", "sam.onnx"], ["--segmenter", "'sam.onnx'", "no such file"]),
            (["--segmenter", str(clip)], ["--segmenter", "--replace"]),
        ):
            if words and "--video" not in words:
                words = ["--video", str(clip), "--output-path", "x", *words]
            self.refused("preprocess", *words, names=names)

    def test_full_disk_under_stdout(self):
        with open("/dev/full", "w") as full:
            process = self.start("--version", stdout=full)
            _, err = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"stdout cannot be written", err)

    def test_reader_that_goes_away(self):
        process = self.start("generate", *flags_of({}), "--json")
        process.stdout.close()
        process.stderr.close()
        self.assertEqual(process.wait(timeout=SECONDS), 0)
        self.assertIn("outputs/a_red_circle-7.mp4", self.files())


class Verify(CommandLine):
    def test_our_side(self):
        self.call("verify", MODEL, "--no-reference", "--height", 32, "--width", 32, "--threads", 1, "--output-path", "v")
        data = (self.folder / "v" / "ours.safetensors").read_bytes()
        names = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        for name in ("prompt", "negative", "latents.0", "latents.2", "step.0.velocity", "step.1.velocity#2", "video"):
            self.assertIn(name, names)
        request = json.loads((self.folder / "v" / "request.json").read_text())
        self.assertEqual((request["settings"]["height"], request["task"]), (32, "t2v"))

    def test_refusals(self):
        self.refused("verify", names=["one model", "0 were given"])
        self.refused("verify", "nosuch", names=["MODEL", "'nosuch'"])


class Plan(CommandLine):
    def plan(self, *words):
        """-> (the JSON, stderr)."""
        out, err = self.call("plan", "--json", *words)
        return json.loads(out), err

    def animate(self, frames, policy, *more):
        return self.plan("--task", "animate", "--num-frames", frames, "--segment-policy", policy, *more)[0]

    def test_published_numbers(self):
        for frames, policy, length, generated in [
            (308, "vanilla", 77, 381), (308, "auto_lim", 97, 289), (308, "auto_lim", 153, 305), (60, "vanilla", 77, 77),
            (60, "auto_lim", 57, 57), (60, "auto_lim", 29, 57), (308, "vanilla", 99, 385), (308, "vanilla", 102, 401),
        ]:  # fmt: skip
            found = self.animate(frames, policy, "--segment-length", length)
            self.assertEqual(found["generated_frames"], generated, (frames, policy, length))
        for frames, generated in [(308, 309), (60, 61)]:
            found = self.animate(frames, "exact")
            self.assertEqual(found["generated_frames"], generated)
            self.assertEqual((found["padded_frames"], found["dropped_frames"]), (1, 0))
        self.assertEqual(self.animate(60, "auto_lim")["generated_frames"], 57)

    def test_keys(self):
        found = self.animate(308, "exact", "--segment-max-length", 77, "--segment-overlap", 5, "--num-gpus", 2)
        self.assertEqual(found["policy"], "exact")
        self.assertEqual(found["assumed_model"], "wan2.2-animate-14b")
        self.assertEqual((found["width"], found["height"]), (1280, 720))
        end = 0
        for segment in found["segments"]:
            self.assertEqual(segment["start"], end - segment["carried_frames"])
            self.assertEqual(segment["length"] % 4, 1)
            self.assertLessEqual(segment["length"], 77)
            end = segment["start"] + segment["length"]
        self.assertEqual(found["generated_frames"], end)
        self.assertEqual(found["denoised_frames"], sum(segment["length"] for segment in found["segments"]))
        seconds = sum(segment["predicted_seconds"] for segment in found["segments"])
        self.assertAlmostEqual(found["predicted_seconds"], seconds, places=6)
        self.assertEqual(list(found["predicted_peak_bytes"]), ["reference:0", "reference:1"])
        self.assertIn("not measured", found["cost_source"])
        self.assertIn("36 cores", found["simulated_preprocess_seconds"])

    def test_policies_by_default(self):
        def policy(*words):
            found, err = self.plan("--num-frames", 200, *words)
            self.assertEqual(err, "")
            return found["policy"]

        self.assertEqual(policy("--task", "animate"), "exact")
        self.assertEqual(policy("--task", "animate", "--segment-length", 41), "vanilla")
        self.assertEqual(policy("--task", "t2v"), "off")
        self.assertEqual(policy("--task", "i2v", "--segment-length", 41), "vanilla")

    def test_windows_of_middle_length_are_the_best(self):
        for gpu in ("reference", "h200", "mi300x"):
            seconds = [self.animate(160, "vanilla", "--segment-length", length, "--gpu", gpu)["predicted_seconds"]
                       for length in (77, 41, 21)]  # fmt: skip
            self.assertLess(seconds[1], min(seconds[0], seconds[2]), gpu)

    def test_memory_limits_the_length(self):
        wide = self.animate(308, "exact", "--max-memory", "200GB")
        narrow = self.animate(308, "exact", "--max-memory", "35GiB")
        longest = [max(segment["length"] for segment in found["segments"]) for found in (wide, narrow)]
        self.assertLess(longest[1], longest[0])
        for found, limit in ((wide, 200 << 30), (narrow, 35 << 30)):
            self.assertLessEqual(max(found["predicted_peak_bytes"].values()), limit)
        self.refused("plan", "--num-frames", 308, "--max-memory", "1GiB", names=["--quantization int8"])
        self.refused("plan", "--num-frames", 308, "--gpu", "rtx4090", names=["--use-fsdp-inference"])

    def test_scene_cuts(self):
        found, err = self.plan("--num-frames", 200, "--scene-cuts", "70,150")
        borders = [segment["start"] + segment["carried_frames"] for segment in found["segments"]]
        for cut in (70, 150):
            self.assertLessEqual(min(abs(border - cut) for border in borders), 2)
        self.assertEqual(err, "")
        found, _ = self.plan("--num-frames", 200, "--scene-cuts", "70,150", "--cut-policy", "restart")
        self.assertEqual(sum(segment["restart"] for segment in found["segments"]), 2)
        self.assertEqual(found["generated_frames"] - found["padded_frames"], 200)

    def test_a_model_on_disk(self):
        found, _ = self.plan("--model-path", MODEL, "--num-frames", 17, "--height", 32, "--width", 32)
        self.assertIsNone(found["assumed_model"])
        self.assertEqual(found["task"], "t2v")
        self.assertEqual(found["segments"][0]["length"], 17)

    def test_a_stored_calibration(self):
        self.environment["XDG_CACHE_HOME"] = str(self.folder / "cache")
        words = ("--num-frames", 100, "--device", "cpu", "--threads", 2, "--max-memory", "100GiB")
        self.assertIn("default", self.plan(*words)[0]["cost_source"])
        file = self.folder / "cache/zoetrope/cost/5120_in_40_heads__VAE_96-cpu__2_threads-bf16-1.json"
        file.parent.mkdir(parents=True)
        seconds = {"per_attention_tflop": 0, "per_linear_tflop": 0, "per_vae_megapixel": 0,
                   "per_segment_shared": 0, "per_segment": 2.5}  # fmt: skip
        file.write_text(json.dumps({"format": 2, "widths": "5120 in 40 heads, VAE 96", "device": "cpu, 2 threads",
                                    "precision": "bf16", "ranks": 1, "seconds": seconds, "samples": []}))  # fmt: skip
        found, _ = self.plan(*words)
        self.assertIn("a calibration", found["cost_source"])
        self.assertEqual(found["predicted_seconds"], 2.5 * len(found["segments"]))
        file.write_text("{}")
        found, err = self.plan(*words)
        self.assertIn("is not a calibration", err)
        self.assertIn("default", found["cost_source"])

    def test_text(self):
        out, err = self.call("plan", "--task", "animate", "--num-frames", 308, "--segment-length", 99)
        self.assertIn("308 frames -> 385 generated in 4 segments (vanilla)", out)
        self.assertRegex(out, r"(?m)^\|=+97=+\|.*\|$")
        self.assertIn("97 is taken", err)
        self.assertLessEqual(max(map(len, self.call("plan", "--help")[0].splitlines())), 100)

    def test_refusals(self):
        for words, *names in [
            ([], "--num-frames is missing"), (["--num-frames", 0], "1 to 131072"),
            (["--num-frames", 60, "--segment-policy", "best"], "vanilla", "exact"),
            (["--num-frames", 60, "--segment-overlap", 3], "1, 5, 9"),
            (["--num-frames", 60, "--segment-max-length", 8, "--segment-overlap", 5], "9 frames or more"),
            (["--num-frames", 60, "--segment-max-length", 3], "5 frames or more"),
            (["--num-frames", 60, "--segment-length", 77, "--segment-max-length", 41], "--segment-max-length 41"),
            (["--num-frames", 60, "--gpu", "voodoo2"], "voodoo2", "h200"),
            (["--num-frames", 60, "--gpu", "h200", "--device", "cpu"], "--device cpu"),
            (["--num-frames", 60, "--scene-cuts", "1,x"], "1,x"), (["--num-frames", 60, "--scene-cuts", "60"], "1 to 59"),
            (["--num-frames", 60, "--ulysses-degree", 3], "40 heads"),
            (["--num-frames", 60, "--enable-cfg-parallel"], "--guidance-scale"),
            (["--num-frames", 60, "--num-gpus", 3, "--sp-degree", 2], "--num-gpus is 3"),
            (["--num-frames", 60, "--task", "dance"], "dance"), (["--num-frames", 60, "--dtype", "int4"], "int4"),
            (["--num-frames", 60, "--model-path", "nowhere"], "nowhere"),
        ]:  # fmt: skip
            self.refused("plan", *words, names=names)


class BadFlags(CommandLine):
    def test_flags_that_are_not_there(self):
        self.refuses({}, "--num-framez", "did you mean --num-frames?", more=["--num-framez", "9"])
        self.refuses({}, "--frobnicate-it", "--help", more=["--frobnicate-it=9"])
        self.refuses({}, "-prompt", "did you mean --prompt?", more=["-prompt", "x"])
        self.refuses({}, "'word'", more=["word"])

    def test_values(self):
        for flag, value, *names in [
            ("--height", "tall", "whole number"), ("--height", "32.0", "whole number"),
            ("--height", "0x20", "whole number"), ("--height", "", "whole number"),
            ("--height", "0", "1 to 16384"), ("--height", "15", "16 to 16384"), ("--height", "99999", "1 to 16384"),
            ("--height", "99999999999999999999", "1 to 16384"), ("--num-frames", "0", "1 to 131072"),
            ("--num-inference-steps", "1001", "1 to 1000"), ("--threads", "0", "1 to 4096"),
            ("--seed", "-1", "0 to 18446744073709551615"), ("--seed", "18446744073709551616", "0 to"),
            ("--fps", "nan", "number"), ("--fps", "inf", "number"), ("--fps", "1e400", "number"),
            ("--fps", "0", "above 0"), ("--guidance-scale", "five", "number"), ("--flow-shift", "0", "0.001"),
            ("--scheduler", "foo", "unipc"), ("--sigma-schedule", "flat", "exponential"), ("--task", "x2v", "t2v"),
            ("--task", "i2v", "does not fit the model"), ("--dtype", "int8", "bf16"), ("--quantization", "int4", "int8-weight-only"),
            ("--quantization", "fp8", "not built yet"), ("--device", "tpu", "cpu"),
            ("--device", "cuda:0", "cuda:0"), ("--max-memory", "lots", "24GiB"), ("--output-type", "mp4", "latent"),
            ("--num-outputs", "0", "1 to 1024"), ("--save-output", "false", "always"), ("--json", "maybe", "true"),
            ("--model-path", "", "''"), ("--latents", "x.safetensors", "no such file"),
            ("--prompt-file", "x.txt", "no such file"), ("--config", "x.toml", "no such file"),
            ("--perf-dump-path", "no/such/folder/x.json", "no/such/folder"),
            ("--sigmas", "1,half", "'1,half'", "commas"), ("--sigmas", "1,,0.5", "commas"),
            ("--sigmas", "1,0.5,0.6", "fall"), ("--sigmas", "1.5,0.5", "up to 1"), ("--sigmas", "0", "above 0"),
            ("--sigmas", "1,0.7,0.3", "--num-inference-steps is 2", "3"),
        ]:  # fmt: skip
            with self.subTest(flag=flag, value=value):
                overrides = {"--prompt": None} if flag == "--prompt-file" else {}
                if flag == "--device" and value == "cuda:0" and shutil.which("nvidia-smi"):
                    continue
                self.refuses({**overrides, flag: value}, flag.removeprefix("--").split("-")[-1], *names)

    def test_missing_values(self):
        self.refuses({}, "--seed", "a whole number", more=["--seed"])
        self.refuses({}, "--negative-prompt", "TEXT", more=["--negative-prompt", "--json"])

    def test_combinations(self):
        self.refuses({"--boundary-ratio": 0.5}, "boundary ratio", "transformer_2")
        self.refuses({"--guidance-scale-2": 3}, "--guidance-scale-2", "two experts")
        self.refuses({"--task": "t2i"}, "t2i", "--num-frames is 5")
        self.refuses({"--sigmas": "1,0.5", "--flow-shift": 3}, "--sigmas", "leave --flow-shift out")
        self.refuses({"--sigmas": "1,0.5", "--sigma-schedule": "beta"}, "leave --sigma-schedule out")
        self.refuses({"--prompt-file": "x"}, "--prompt", "--prompt-file", "one of them")
        self.refuses({"--prompt": None}, "--prompt is missing")
        self.refuses({"--output-type": "latent", "--output-path": "x.mp4"}, "latent", ".safetensors", "x.mp4")
        self.refuses({"--output-path": "x.safetensors"}, "x.safetensors", ".mp4")

    def test_flags_that_are_not_built(self):
        for flag, value in NOT_BUILT.items():
            with self.subTest(flag=flag):
                self.assertEqual(value is None, flag in SWITCHES)
                self.refuses({}, flag, "not built yet", more=[flag] if value is None else [flag, value])
        harmless = ["--quantization", "none", "--cache", "none", "--num-gpus", "1", "--vae-tiling", "auto",
                    "--segment-policy=off", "--retarget", "false"]  # fmt: skip
        for flag in sorted(SWITCHES):
            harmless += [flag, "false"]
        self.generate({}, *harmless)

    def test_adapters(self):
        for value, *names in [
            ("nowhere.safetensors:0.5", "nowhere.safetensors", "wan2.2-lightning-t2v"),
            ("org/nowhere", "'org/nowhere'", "hf download org/nowhere"),
            ("nowhere:0.5:hihg", "'nowhere:0.5:hihg'", "high, low or both"),
            ("nowhere:nan", "nowhere:nan", "finite"),
            (f"{ADAPTER}:1:low", "expert of low noise", "one transformer"),
            ("wan2.1-fight", "Wan2.1-I2V-14B-720P", "dim 24"),
            (MODEL / "transformer/diffusion_pytorch_model.safetensors", "keys match nothing", "69 keys", "and 59 more"),
            (MODEL / "model_index.json", "model_index.json", ".safetensors"),
        ]:
            with self.subTest(value=value):
                self.refuses({"--lora-path": value}, *names)
        self.refuses({"--lora-registry": "nowhere"}, "--lora-registry", "'nowhere'")
        self.refuses({"--lora-mode": "fused"}, "--lora-mode", "runtime", "merged")

    def test_output_paths(self):
        self.refuses({"--output-path": "x.avi"}, "--output-path", "'x.avi'", ".mp4", "/")
        self.refuses({"--output-file-name": "x.avi"}, "--output-file-name", "'x.avi'", ".mp4")
        self.refuses({"--output-file-name": "a/x.mp4"}, "--output-file-name", "a/x.mp4", "--output-path")
        self.refuses({"--output-file-name": ".."}, "--output-file-name", "'..'")
        self.refuses({"--output-path": "x.mp4", "--output-file-name": "y.mp4"}, "x.mp4", "y.mp4", "one of them")
        self.refuses({"--output-file-name": "x" * 252 + ".mp4"}, "256", "255")
        for place in ("/dev/null", "/proc/zoetrope", "/dev/null/x.mp4"):  # closed to root too
            self.refuses({"--output-path": place}, "--output-path", place)


class Adapters(CommandLine):
    def latents(self, name, *adapters):
        words = [word for adapter in adapters for word in ("--lora-path", adapter)]
        out, err = self.generate({"--output-type": "latent", "--output-path": name}, "--json", *words)
        _, metadata = read_tensors(self.folder / name)
        numbers = (self.folder / name).read_bytes()[-4 * 16 * 2 * 4 * 4 :]
        return numbers, json.loads(out), json.loads(metadata["comment"]), err

    def test_adapters_are_applied_reported_and_stored(self):
        none, report, settings, _ = self.latents("none.safetensors")
        self.assertEqual(report["adapters"], [])
        self.assertNotIn("adapters", settings)
        zero, *_ = self.latents("zero.safetensors", f"{ADAPTER}:0")
        self.assertEqual(zero, none)
        one, report, settings, err = self.latents("one.safetensors", f"{ADAPTER}:0.5")
        self.assertNotEqual(one, none)
        self.assertEqual((report["adapters"][0]["rank"], report["adapters"][0]["targets"]), (4, 21))
        self.assertEqual(settings["adapters"][0]["strength"], 0.5)
        self.assertIn("strength 0.5", err)
        _, report, settings, _ = self.latents("two.safetensors", f"{ADAPTER}:0.5", str(ADAPTER))
        self.assertEqual([a["strength"] for a in settings["adapters"]], [0.5, 1.0])


class BrokenModels(CommandLine):
    def test_models_that_are_not_there(self):
        self.refuses({"--model-path": "no/such/folder"}, "--model-path", "'no/such/folder'")
        self.refuses({"--model-path": "Wan-AI/Nothing"}, "'Wan-AI/Nothing'", ".hub", "zoetrope pull Wan-AI/Nothing")
        self.refuses({"--model-path": self.folder}, "model_index.json")
        self.refuses({"--model-path": MODEL / "vae/config.json"}, "config.json", "single file")
        self.refuses({"--vae-path": "nowhere"}, "--vae-path", "'nowhere'")

    def test_repository_in_the_cache(self):
        repository = self.folder / ".hub/models--a--b"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs/main").write_text("0123")
        shutil.copytree(MODEL, repository / "snapshots/0123")
        self.generate({"--model-path": "a/b"})

    def test_missing_and_broken_parts(self):
        for damage, *names in [
            (lambda m: shutil.rmtree(m / "scheduler"), "scheduler"),
            (lambda m: (m / "scheduler/scheduler_config.json").unlink(), "scheduler_config.json"),
            (lambda m: shutil.rmtree(m / "tokenizer"), "tokenizer"),
            (lambda m: (m / "transformer/config.json").write_text('{"num_layers": 2,'), "transformer/config.json"),
            (lambda m: (m / "transformer/config.json").write_text("[]"), "transformer/config.json", "object"),
            (lambda m: (m / "model_index.json").write_text("3"), "model_index.json", "object"),
            (lambda m: (m / "zoetrope.json").write_text("[]"), "zoetrope.json", "object"),
            (lambda m: self.edit(m / "transformer/config.json", num_layers="two"), "num_layers", '"two"'),
            (lambda m: self.edit(m / "transformer/config.json", num_layers=1 << 63), "num_layers"),
            (lambda m: self.edit(m / "transformer/config.json", eps="small"), "transformer/", "eps", '"small"'),
            (lambda m: self.edit(m / "transformer/config.json", cross_attn_norm=3), "cross_attn_norm", "3"),
            (lambda m: self.edit(m / "transformer/config.json", _class_name=[]), "_class_name"),
            (lambda m: self.edit(m / "transformer/config.json", num_layers=...), "transformer"),
            (lambda m: self.edit(m / "vae/config.json", z_dim="16"), "vae/config.json", "z_dim"),
            (lambda m: self.edit(m / "vae/config.json", _class_name={}), "AutoencoderKLWan"),
            (lambda m: self.edit(m / "text_encoder/config.json", d_model=[]), "text encoder", "d_model"),
            (lambda m: self.edit(m / "text_encoder/config.json", model_type=3), "model_type"),
            (lambda m: self.edit(m / "text_encoder/config.json", layer_norm_epsilon="x"), "layer_norm_epsilon"),
            (lambda m: self.edit(m / "text_encoder/config.json", feed_forward_proj=1), "feed_forward_proj"),
            (lambda m: self.edit(m / "scheduler/scheduler_config.json", flow_shift="x"), "flow_shift"),
            (lambda m: self.edit(m / "model_index.json", boundary_ratio="x"), "boundary_ratio", '"x"'),
            (lambda m: self.edit(m / "model_index.json", _class_name=7), "_class_name", "7"),
            (lambda m: self.edit(m / "model_index.json", _class_name="FluxPipeline"), "FluxPipeline"),
            (lambda m: self.edit(m / "model_index.json", expand_timesteps="x"), "expand_timesteps"),
        ]:  # fmt: skip
            with self.subTest(names=names):
                shutil.rmtree(self.folder / "model", ignore_errors=True)
                model = self.copy_model()
                damage(model)
                before = self.files()
                process = self.start("generate", *flags_of({"--model-path": model}))
                out, err = process.communicate(timeout=SECONDS)
                err = err.decode()
                self.assertIn(process.returncode, (1, 2), err)
                self.assertRegex(err, r"\Azoetrope: [^\n]+\n\Z")
                self.assertNotIn("json.exception", err)
                for name in names:
                    self.assertIn(name, err)
                self.assertEqual((out, self.files()), (b"", before))

    def test_truncated_weights(self):
        model = self.copy_model()
        weights = model / "transformer/diffusion_pytorch_model.safetensors"
        whole = weights.read_bytes()
        for length in (0, 4, 100, len(whole) - 1):
            weights.write_bytes(whole[:length])
            self.refuses({"--model-path": model}, "diffusion_pytorch_model.safetensors", code=1)

    def test_more_memory_than_there_is(self):
        sizes = {"--height": 16384, "--width": 16384, "--num-frames": 100001}
        _, err = self.generate(sizes, code=1)
        self.assertRegex(err.splitlines()[-1], r"needs [\d.]+ TiB of memory and [\d.]+ \wiB are free")
        _, err = self.generate({"--max-memory": "1MiB"}, code=1)
        self.assertRegex(err.splitlines()[-1], r"needs [\d.]+ \wiB and --max-memory is 1.00 MiB")
        self.assertEqual(self.files(), [])


class Runs(CommandLine):
    def report(self, overrides=None, *more):
        out, err = self.generate(overrides, "--json", *more)
        return json.loads(out), err

    def test_report(self):
        report, err = self.report({"--perf-dump-path": "report.json"})
        self.assertEqual(report["seed"], 7)
        self.assertEqual(report["outputs"], ["outputs/a_red_circle-7.mp4"])
        self.assertEqual([stage["name"] for stage in report["stages"]], ["encode_text", "denoise", "decode", "write"])
        self.assertEqual(set(report["pipeline"]["stages"]), {"prepare", "denoise", "decode", "write"})
        self.assertEqual(len(report["step_seconds"]), 2)
        self.assertGreater(report["memory"]["predicted_peak_bytes"], 1 << 20)
        self.assertGreater(report["memory"]["measured_peak_bytes"], 1 << 20)
        self.assertEqual(report["settings"]["prompt"], "a red circle")
        self.assertEqual(json.loads((self.folder / "report.json").read_text()), report)
        for line in ("32x32, 5 frames, 2 steps, seed 7", "denoise: 2 steps in ", "saved outputs/a_red_circle-7.mp4"):
            self.assertIn(line, err)
        self.assertEqual(self.files(), ["outputs", "outputs/a_red_circle-7.mp4", "report.json"])

    def test_seeds(self):
        names = ("one.mp4", "two.mp4", "other.mp4")
        for name, seed in zip(names, (7, 7, 18446744073709551615)):
            self.generate({"--seed": seed, "--output-path": name})
        one, two, other = (self.folder / name for name in names)
        self.assertEqual(one.read_bytes(), two.read_bytes())
        self.assertNotEqual(one.read_bytes(), other.read_bytes())

    def test_schedulers(self):
        def run(overrides, *more):
            latent = {"--output-type": "latent", "--output-path": "x.safetensors"}
            report = json.loads(self.generate({**latent, **overrides}, "--json", *more)[0])
            data = (self.folder / "x.safetensors").read_bytes()
            return report, data[8 + struct.unpack("<Q", data[:8])[0] :]  # without the settings in the header

        results = set()
        for name in ("unipc", "dpm++", "dpm++-sde", "euler", "euler-ancestral", "heun", "lcm", "flow-unipc", "flow-dpm++"):
            three = {"--scheduler": name, "--num-inference-steps": 3}  # of two, some are alike
            report, latents = run(three)
            self.assertEqual(len(report["step_seconds"]), 5 if name == "heun" else 3, name)
            results.add(latents)
            if name in ("dpm++-sde", "euler-ancestral", "lcm"):
                self.assertEqual(run(three)[1], latents, name)
        self.assertEqual(len(results), 9)
        distilled = {"--scheduler": "lcm", "--num-inference-steps": None, "--guidance-scale": 1}
        report, latents = run(distilled, "--sigmas", "1, 0.9,0.5")
        self.assertEqual(len(report["step_seconds"]), 3)
        self.assertEqual(report["settings"]["sigmas"], [1, 0.9, 0.5])
        for schedule in ("karras", "exponential", "beta"):
            report, latents = run({"--num-inference-steps": 3, "--sigma-schedule": schedule})
            self.assertEqual(report["settings"]["sigma_schedule"], schedule)
            self.assertNotIn(latents, results)
            results.add(latents)

    def test_random_seed_is_told_and_gives_the_file_again(self):
        report, err = self.report({"--seed": None, "--output-path": "x.mp4"})
        again, _ = self.report({"--seed": None, "--output-path": "z.mp4"})
        seed = report["seed"]
        self.assertNotEqual(seed, again["seed"])
        self.assertIn(f"seed {seed}", err)
        out, _ = self.call("inspect", "x.mp4", "--json")
        self.assertEqual(json.loads(out)["settings"]["seed"], seed)
        self.generate({"--seed": seed, "--output-path": "y.mp4"})
        self.assertEqual((self.folder / "x.mp4").read_bytes(), (self.folder / "y.mp4").read_bytes())

    def test_switches(self):
        for words in (["--json"], ["--json", "true"], ["--json=true"], ["--json", "True"], ["--json", "1"]):
            out, _ = self.generate({}, *words)
            json.loads(out)
        for words in (["--json", "false"], ["--json=false"], ["--json", "--json", "off"]):
            self.assertEqual(self.generate({}, *words)[0], "")

    def test_config_files(self):
        (self.folder / "a.toml").write_text('# mine\nseed = 11\nnum_frames = 1\n"output-path" = "t.png"\njson = true\n')
        out, _ = self.generate({"--seed": None, "--num-frames": None}, "--config", "a.toml")
        self.assertEqual((json.loads(out)["seed"], json.loads(out)["outputs"]), (11, ["t.png"]))
        (self.folder / "a.json").write_text('{"seed": 12, "num-frames": 1, "output_path": "j.png", "json": true}')
        out, _ = self.generate({"--seed": 13, "--num-frames": None}, "--config=a.json")
        self.assertEqual((json.loads(out)["seed"], json.loads(out)["outputs"]), (13, ["j.png"]))
        for name, text, *names in [
            ("b.toml", "num-framez = 3\n", "b.toml", "--num-framez", "--num-frames?"),
            ("b.toml", "fps = 'fast'\n", "b.toml", "--fps", "'fast'"),
            ("b.toml", "[part]\nfps = 3\n", "b.toml", "part"),
            ("b.toml", "", "b.toml"),
            ("b.json", '{"num-gpus": 4}', "b.json", "--num-gpus", "not built yet"),
            ("b.json", '{"json": 5}', "b.json", "--json", "true"),
            ("b.json", "[1]", "b.json", "object"),
        ]:
            (self.folder / name).write_text(text)
            self.refuses({}, *names, more=["--config", name])
        (self.folder / "b.json").write_text('{"json": tru')
        self.refuses({}, "b.json", "JSON", more=["--config", "b.json"], code=1)

    def test_line_of_sglangs_documentation(self):
        prompt = "A curious raccoon"
        line = ["--model-path", MODEL, "--text-encoder-cpu-offload", "--pin-cpu-memory", "--num-gpus", "4",
                "--ulysses-degree=2", "--enable-cfg-parallel", "--prompt", prompt, "--save-output",
                "--output-path", "outputs", "--output-file-name", f"{prompt}.mp4"]  # fmt: skip
        self.refused("generate", *line, names=["--num-gpus 4: ", "not built yet"])
        small = ["--height=32", "--width=32", "--num_frames=5", "--num-inference-steps=1", "--threads=1"]
        line[4:8] = ["--num-gpus", "1", "--ulysses-degree=1", "--enable-cfg-parallel", "false"]
        self.call("generate", *line, *small)
        self.assertEqual(self.files(), ["outputs", f"outputs/{prompt}.mp4"])

    def test_tensors(self):
        report, _ = self.report({"--output-type": "latent", "--num-outputs": 2})
        self.assertEqual(report["outputs"], ["outputs/a_red_circle-7.safetensors"])
        tensors, metadata = read_tensors(self.folder / report["outputs"][0])
        self.assertEqual(tensors, {"latents": ("F32", [2, 16, 2, 4, 4])})
        self.assertEqual(json.loads(metadata["comment"])["seed"], 7)
        self.generate({"--output-type": "tensor", "--num-outputs": 2, "--output-path": "v.safetensors"})
        tensors, _ = read_tensors(self.folder / "v.safetensors")
        self.assertEqual(tensors, {"video": ("F32", [2, 5, 3, 32, 32])})
        data = (self.folder / "v.safetensors").read_bytes()[-2 * 5 * 3 * 32 * 32 * 4 :]
        values = struct.unpack(f"<{len(data) // 4}f", data)
        self.assertTrue(0 <= min(values) < max(values) <= 1)

    def test_latents_in(self):
        header = json.dumps({"latents": {"dtype": "F32", "shape": [1, 16, 2, 4, 4], "data_offsets": [0, 2048]}})
        header += " " * (-len(header) % 8)
        noise = struct.pack("<512f", *(0.01 * (i % 37) for i in range(512)))
        (self.folder / "noise.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + noise)
        bytes_of = {}
        for seed in (1, 2):
            self.generate({"--seed": seed, "--latents": "noise.safetensors", "--output-type": "latent",
                           "--output-path": "x.safetensors"})  # fmt: skip
            bytes_of[seed] = (self.folder / "x.safetensors").read_bytes()[-2048:]
        self.assertEqual(bytes_of[1], bytes_of[2])
        self.assertNotEqual(bytes_of[1], noise)
        self.generate({"--latents": "x.safetensors"})  # what one run writes, another reads
        self.refuses({"--latents": "noise.safetensors", "--num-frames": 9}, "--latents", "[1, 16, 2, 4, 4]", "[1, 16, 3, 4, 4]")
        self.generate({"--output-type": "tensor", "--output-path": "v.safetensors"})
        self.refuses({"--latents": "v.safetensors"}, "--latents", "no tensor named 'latents'")
        (self.folder / "noise.safetensors").write_bytes(b"x")
        self.refuses({"--latents": "noise.safetensors"}, "noise.safetensors", code=1)

    def test_several_outputs_and_formats(self):
        report, _ = self.report({"--num-outputs": 2, "--output-path": "v.webm"})
        self.assertEqual(report["outputs"], ["v-0.webm", "v-1.webm"])
        self.generate({"--output-path": "v.GIF"})
        self.generate({"--num-frames": 1})
        self.generate({"--num-frames": 5, "--output-path": "frames/p.png"})
        found = ["frames", *(f"frames/p_0000{i}.png" for i in range(5)), "outputs", "outputs/a_red_circle-7.png"]
        self.assertEqual(self.files(), sorted([*found, "v-0.webm", "v-1.webm", "v.GIF"]))
        starts = {"v-0.webm": b"\x1aE\xdf\xa3", "v.GIF": b"GIF89a", "outputs/a_red_circle-7.png": b"\x89PNG"}
        for name, start in starts.items():
            self.assertTrue((self.folder / name).read_bytes().startswith(start), name)

    def test_rounding_is_told(self):
        _, err = self.generate({"--height": 40, "--num-frames": 7})
        self.assertIn("warning: --height 40 is not a multiple of 16", err)
        self.assertIn("warning: --num-frames 7 is not 4n+1", err)
        self.assertIn("32x32, 5 frames", err)

    def test_prompts(self):
        one = {"--num-frames": 1, "--num-inference-steps": 1}
        for i, (prompt, name) in enumerate([
            ("一只好奇的浣熊 🦝", "一只好奇的浣熊_🦝"), ("", "video"), ("-foo", "foo"), ("--red or blue", "red_or_blue"),
            ("x" * 20000, "x" * 60), ("浣" * 60, "浣" * 20), ("a/../b\nc", "a_b_c"),
        ]):  # fmt: skip
            with self.subTest(prompt=prompt[:20]):
                self.generate({**one, "--prompt": prompt, "--seed": i})
                self.assertIn(f"outputs/{name}-{i}.png", self.files())
        self.generate({**one, "--prompt": None, "--output-path": "a.png"}, "--prompt=--foo")
        self.refuses({"--prompt": "--foo"}, "--prompt", "--prompt=--foo")
        for flag in ("--prompt", "--negative-prompt"):
            words = [word.encode() for word in flags_of({"--prompt": None})]
            texts = {"--prompt": b"red", flag: b"a \xff circle"}
            for name, text in texts.items():
                words += [name.encode(), text]
            self.refused("generate", *words, names=["prompt", "UTF-8", "0xff", "position 2"])

    def test_prompt_file(self):
        (self.folder / "p.txt").write_bytes("\ufeffa red circle\r\n".encode())
        self.generate({"--output-path": "a.mp4"})
        self.generate({"--prompt": None, "--prompt-file": "p.txt", "--output-path": "b.mp4"})
        self.assertEqual((self.folder / "a.mp4").read_bytes(), (self.folder / "b.mp4").read_bytes())
        (self.folder / "p.txt").write_bytes(b"a\0b")
        self.refuses({"--prompt": None, "--prompt-file": "p.txt"}, "NUL")
        self.refuses({"--prompt": None, "--prompt-file": "."}, "--prompt-file", "text file")

    def test_negative_prompt(self):
        for name, negative in (("a", None), ("b", "blurry"), ("c", "")):
            self.generate({"--negative-prompt": negative, "--output-type": "latent", "--output-path": f"{name}.safetensors"})
        a, b, c = ((self.folder / f"{name}.safetensors").read_bytes()[-2048:] for name in "abc")
        self.assertEqual(a, c)
        self.assertNotEqual(a, b)

    def test_inspect(self):
        self.generate({"--output-path": "x.mp4"})
        self.generate({"--output-path": "x.png", "--num-frames": 1})
        self.generate({"--output-path": "x.safetensors", "--output-type": "latent"})
        video = json.loads(self.call("inspect", "--json", "x.mp4")[0])
        self.assertEqual([video[key] for key in ("kind", "width", "height", "frames", "fps", "codec")], ["video", 32, 32, 5, 16, "h264"])
        self.assertEqual(video["settings"]["num_inference_steps"], 2)
        picture = json.loads(self.call("inspect", "x.png", "--json", "true")[0])
        self.assertEqual([picture["kind"], picture["width"], picture["settings"]["seed"]], ["picture", 32, 7])
        self.assertIn("video, 32x32, 5 frames at 16 fps", self.call("inspect", "x.mp4")[0])
        self.assertIn("  seed: 7\n", self.call("inspect", "x.safetensors")[0])
        self.assertIn("Wan2.1 for WanPipeline", self.call("inspect", MODEL)[0])
        self.assertIn("parameters", self.call("inspect", MODEL / "vae")[0])
        (self.folder / "x.txt").write_text("hello")
        (self.folder / "empty").mkdir()
        for path in ("x.txt", "nowhere", "no/where", "empty"):
            self.refused("inspect", path, names=[path])
        self.refused("inspect", names=["one path"])
        self.refused("inspect", "a", "b", names=["one path"])


class Signals(CommandLine):
    LONG = {"--num-inference-steps": 1000, "--num-frames": 65, "--height": 64, "--width": 64}

    def start_long(self):
        process = self.start("generate", *flags_of(self.LONG))
        line = process.stderr.readline()  # "64x64, ...": the run begins
        self.assertIn(b"seed 7", line)
        while b"encode_text" not in line:
            line = process.stderr.readline()
        time.sleep(0.5)
        self.assertIsNone(process.poll())
        return process

    def test_interrupted(self):
        for which in (signal.SIGINT, signal.SIGTERM):
            process = self.start_long()
            process.send_signal(which)
            begin = time.monotonic()
            _, err = process.communicate(timeout=SECONDS)
            self.assertLess(time.monotonic() - begin, 30)
            self.assertEqual(process.returncode, 130, err)
            self.assertIn(b"stop", err)
            self.assertEqual(self.files(), [])

    def test_interrupted_twice(self):
        process = self.start_long()
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(self.files(), [])

    def test_killed(self):
        process = self.start_long()
        process.kill()
        process.communicate(timeout=SECONDS)
        self.assertNotIn("outputs/a_red_circle-7.mp4", self.files())


if __name__ == "__main__":
    unittest.main(verbosity=1)
