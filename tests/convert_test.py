#!/usr/bin/env python3
"""zoetrope convert as a process: what it writes runs, what is wrong is refused, nothing half-written stays.

usage: convert_test.py PROGRAM [unittest arguments]
"""
import json
import math
import resource
import signal
import struct
import time
import unittest

from cli_test import ADAPTER, MODEL, SECONDS, CommandLine


class Convert(CommandLine):
    PARTS = ["--vae-path", MODEL / "vae", "--text-encoder-path", MODEL / "text_encoder", "--tokenizer-path",
             MODEL / "tokenizer"]  # fmt: skip

    def convert(self, output, *words, model=MODEL, code=0):
        return self.call("convert", "--model-path", model, "--output-path", output, *words, code=code)

    def latents(self, name, model, *more):
        """The numbers of the latents, as bytes."""
        overrides = {"--model-path": model, "--output-type": "latent", "--output-path": name, "--flow-shift": 3}
        self.generate(overrides, *more)
        return (self.folder / name).read_bytes()[-4 * 16 * 2 * 4 * 4 :]

    def test_folders_and_files_give_the_same_latents(self):
        own = self.latents("own.safetensors", MODEL)
        out, err = self.convert("folder", "--dtype", "fp32", "--max-shard-size", "40K")
        self.assertEqual(out, "folder\n")
        self.assertRegex(err, r"write: \d+ parts in .*\n")
        self.assertRegex(err, r"237 tensors, .* memory at most .* before, .* predicted beside")
        self.assertTrue((self.folder / "folder/transformer/diffusion_pytorch_model.safetensors.index.json").exists())
        self.assertEqual(self.latents("a.safetensors", "folder"), own)
        self.convert("wan.safetensors", "--layout", "single-file")
        self.assertEqual(self.latents("b.safetensors", "wan.safetensors", *self.PARTS), own)
        report = json.loads(self.convert("again", "--json", *self.PARTS, model="wan.safetensors")[0])
        self.assertEqual(report["outputs"], ["again"])
        self.assertLess(report["predicted_bytes"], 100 << 20)
        self.assertEqual(self.latents("c.safetensors", "again"), own)

    def test_every_precision_runs(self):
        own = self.latents("own.safetensors", MODEL)
        for dtype in ("bf16", "fp16", "fp8", "int8"):
            with self.subTest(dtype=dtype):
                self.convert(f"{dtype}.safetensors", "--dtype", dtype, "--layout", "single-file")
                self.convert(dtype, "--dtype", dtype)
                file = self.latents(f"{dtype}-a.safetensors", f"{dtype}.safetensors", *self.PARTS)
                self.assertNotEqual(file, own)
                self.assertIn("transformer", self.call("inspect", f"{dtype}.safetensors")[0])
                self.latents(f"{dtype}-b.safetensors", dtype)

    def test_merged_adapters_are_those_of_a_run(self):
        merged = self.latents("own.safetensors", MODEL, "--lora-path", f"{ADAPTER}:0.7", "--lora-mode", "merged")
        self.convert("merged", "--lora-path", f"{ADAPTER}:0.7")
        self.assertEqual(self.latents("a.safetensors", "merged"), merged)
        self.assertNotEqual(self.latents("b.safetensors", MODEL), merged)

    def test_refusals(self):
        (self.folder / "there").mkdir()
        (self.folder / "there/x").write_text("x")
        (self.folder / "there.safetensors").write_text("x")
        model = ["--model-path", MODEL]
        for words, *names in (
            ([], "--model-path is missing"),
            (model, "--output-path is missing"),
            ([*model, "--output-path", "x", "--layout", "gguf"], "--layout", "'gguf'", "diffusers, single-file"),
            ([*model, "--output-path", "x", "--dtype", "int4"], "--dtype", "'int4'", "fp32, bf16, fp16, fp8, int8"),
            ([*model, "--output-path", "x", "--layout", "single-file"], "'x'", ".safetensors file"),
            ([*model, "--output-path", "x.safetensors"], "x.safetensors", "single-file"),
            ([*model, "--output-path", "there"], "'there'", "there already"),
            ([*model, "--output-path", "there.safetensors", "--layout", "single-file"], "there already"),
            ([*model, "--output-path", "x", "--max-shard-size", "0"], "--max-shard-size", "more than 0"),
            ([*model, "--output-path", "x", "--max-shard-size", "big"], "--max-shard-size", "'big'"),
            ([*model, "--output-path", "x.safetensors", "--layout", "single-file", "--max-shard-size", "1G"],
             "--max-shard-size", "one file"),
            ([*model, "--output-path", "x", "--lora-path", "nowhere.safetensors"], "--lora-path", "nowhere"),
            ([*model, "--output-path", "x", "--lora-path", f"{ADAPTER}:1:low"], "expert of low noise"),
            (["--model-path", "nowhere", "--output-path", "x"], "--model-path", "'nowhere'"),
            (["--model-path", ADAPTER, "--output-path", "x.safetensors", "--layout", "single-file"], "no transformer"),
        ):  # fmt: skip
            with self.subTest(words=words):
                code = 1 if names == ["no transformer"] else 2
                self.refused("convert", *words, names=names, code=code)

    def test_a_full_disk_leaves_nothing(self):
        def limit():  # stands for a disk that has no room for the transformer
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        for output, layout in (("x", "diffusers"), ("x.safetensors", "single-file")):
            # Python ignores SIGXFSZ, and so does what it starts, unless it restores the signal.
            process = self.start("convert", "--model-path", MODEL, "--output-path", output, "--layout", layout,
                                 preexec_fn=limit, restore_signals=False)  # fmt: skip
            _, err = process.communicate(timeout=SECONDS)
            self.assertEqual(process.returncode, 1, err)
            self.assertIn(b"cannot write", err)
            self.assertEqual(self.files(), [])

    def write_large_model(self, aligned=True):
        """A transformer of 0.8 gigabytes, all of them holes in the file."""
        dim, ffn, layers = 1536, 8960, 4
        shapes = {"patch_embedding.weight": [dim, 16, 1, 2, 2], "patch_embedding.bias": [dim],
                  "scale_shift_table": [1, 2, dim], "proj_out.weight": [64, dim], "proj_out.bias": [64]}  # fmt: skip

        def linear(name, rows, columns):
            shapes.update({f"{name}.weight": [rows, columns], f"{name}.bias": [rows]})

        embedder = "condition_embedder."
        for name, rows, columns in (("text_embedder.linear_1", dim, 4096), ("text_embedder.linear_2", dim, dim),
                                    ("time_embedder.linear_1", dim, 256), ("time_embedder.linear_2", dim, dim),
                                    ("time_proj", 6 * dim, dim)):  # fmt: skip
            linear(embedder + name, rows, columns)
        for i in range(layers):
            block = f"blocks.{i}."
            for attention in ("attn1.", "attn2."):
                for name in ("to_q", "to_k", "to_v", "to_out.0"):
                    linear(block + attention + name, dim, dim)
                for name in ("norm_q", "norm_k"):
                    shapes[f"{block}{attention}{name}.weight"] = [dim]
            linear(block + "ffn.net.0.proj", ffn, dim)
            linear(block + "ffn.net.2", dim, ffn)
            shapes.update({f"{block}norm2.weight": [dim], f"{block}norm2.bias": [dim],
                           f"{block}scale_shift_table": [1, 6, dim]})  # fmt: skip
        header, end = {}, 0
        for name, shape in shapes.items():
            begin, end = end, end + 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8 + (0 if aligned else 1))
        with open(self.folder / "large.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
        return end

    def start_large(self):
        process = self.start("convert", "--model-path", "large.safetensors", "--output-path", "x.safetensors", "--layout",
                             "single-file", "--dtype", "int8")  # fmt: skip
        while not any(name.startswith(".x.") for name in self.files()):
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        return process

    def test_stopped_and_killed(self):
        self.write_large_model()
        process = self.start_large()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 130, err)
        self.assertEqual(self.files(), ["large.safetensors"])
        process = self.start_large()
        process.kill()
        process.communicate(timeout=SECONDS)
        self.assertNotIn("x.safetensors", self.files())

    def test_memory_is_one_tensor(self):
        for aligned in (True, False):  # as most programs write their tensors, and as a few do
            model = self.write_large_model(aligned)
            out, _ = self.convert(f"{aligned}.safetensors", "--layout", "single-file", "--dtype", "int8", "--json",
                                  model="large.safetensors")  # fmt: skip
            report = json.loads(out)
            # The largest matrix is 57 MB in float32: its pages, that form of it, the result, and pieces.
            self.assertLess(report["predicted_bytes"], 256 << 20)
            self.assertLess(report["peak_bytes"], report["start_bytes"] + report["predicted_bytes"])
            self.assertGreater(model, 3 * report["predicted_bytes"])



if __name__ == "__main__":
    unittest.main(verbosity=1)
