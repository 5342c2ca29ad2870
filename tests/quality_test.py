#!/usr/bin/env python3
"""zoetrope bench quality: variants of a run beside the plain one, on the embedded model at its smallest.

usage: quality_test.py PROGRAM [unittest arguments]
"""
import json
import math
import signal
import time
import unittest

from cli_test import SECONDS, SOURCE, CommandLine

ANIMATE = SOURCE / "tests/golden/conditions/replace"
TEXT = SOURCE / "tests/golden/pipeline/unipc"
SMALL = ["--height", 32, "--width", 32, "--num-frames", 5, "--num-inference-steps", 2, "--seed", 3, "--threads", 1]
DRIVEN = ["--model-path", ANIMATE, "--text-encoder-path", TEXT / "text_encoder", "--tokenizer-path", TEXT / "tokenizer",
          "--image", ANIMATE / "image.png", "--pose-video", ANIMATE / "pose", "--face-video", ANIMATE / "face", "--height", 32,
          "--width", 32, "--num-inference-steps", 1, "--guidance-scale", 1, "--seed", 3, "--threads", 1, "--dtype", "fp32",
          "--segment-length", 9, "--segment-overlap", 1]  # fmt: skip


class Quality(CommandLine):
    def table(self, *words):
        out, err = self.call("bench", "quality", *words, "--json", "table.json")
        table = json.loads((self.folder / "table.json").read_text())
        return {row["name"]: row for row in table["rows"]}, table, out

    def test_the_usual_variants_of_the_embedded_model(self):
        rows, table, out = self.table(*SMALL)
        own = table["settings"]["dtype"]
        self.assertEqual(list(rows), ["plain", "num-inference-steps=1", "bf16" if own == "fp32" else "fp32", "int8",
                                      "int8-weight-only"])  # fmt: skip
        self.assertEqual([line.split()[0] for line in out.splitlines()], ["PSNR", *rows])
        self.assertEqual((table["settings"]["model"], table["settings"]["num_frames"]), ("demo-t2v", 5))
        plain = rows.pop("plain")
        self.assertNotIn("psnr", plain)
        for name, row in rows.items():
            self.assertNotIn("error", row, name)
            self.assertEqual((row["frames"], row["identical"], row["lpips"], row["drift"]), (5, False, None, None))
            self.assertGreaterEqual(row["psnr"], row["psnr_worst"])
            self.assertGreaterEqual(row["ssim"], row["ssim_worst"])
            for key in ("seconds", "peak_bytes", "predicted_peak_bytes"):
                self.assertGreater(row[key], 0)
        # Another dtype differs by rounding alone, half the steps by more.
        dtype = rows["bf16" if own == "fp32" else "fp32"]
        self.assertGreater(dtype["psnr"], rows["num-inference-steps=1"]["psnr"])
        self.assertGreater(dtype["ssim"], 0.95)
        self.assertEqual(rows["int8"]["settings"]["quantization"], "int8")

    def test_the_same_settings_give_the_same_frames(self):
        rows, _, out = self.table(*SMALL, "--dtype", "fp32", "--variants", "fp32,num-inference-steps=2+fp32", "--prompt",
                                  "a blue star", "--output-path", "videos")  # fmt: skip
        for name in ("fp32", "num-inference-steps=2+fp32"):
            self.assertEqual((rows[name]["identical"], rows[name]["psnr"]), (True, None))
            self.assertTrue(math.isclose(rows[name]["ssim"], 1))
        self.assertEqual(out.count("equal"), 2)
        self.assertEqual(sorted(path.name for path in (self.folder / "videos").iterdir()),
                         ["fp32.mp4", "num-inference-steps=2+fp32.mp4", "plain.mp4"])  # fmt: skip

    def test_segments_of_an_animation(self):
        rows, table, _ = self.table(*DRIVEN, "--variants", "segment-overlap=5,segment-overlap=5+latents,cosine+segment-overlap=5",
                                    "--keep-resident")  # fmt: skip
        self.assertEqual(table["settings"]["task"], "animate")
        self.assertEqual(rows["plain"]["drift"]["joins"], 1)
        for name, row in rows.items():
            self.assertNotIn("error", row)
            self.assertEqual(row["frames"], 16)
            self.assertGreaterEqual(row["drift"]["joins"], 1)
        self.assertEqual(rows["segment-overlap=5"]["settings"]["segments"]["overlap"], 5)
        self.assertEqual(rows["segment-overlap=5+latents"]["settings"]["segments"]["carry"], "latents")
        self.assertNotEqual(rows["cosine+segment-overlap=5"]["psnr"], rows["segment-overlap=5"]["psnr"])

    def test_refusals(self):
        small = ["bench", "quality", *SMALL]
        for variant in ("height=64", "best", "int8+", "seed=4", "prompt=x"):
            self.refused(*small, "--variants", variant, names=["--variants", "accepted are fp32"])
        self.refused(*small, "--variants", "num-inference-steps=many", names=["--num-inference-steps", "whole number"])
        self.refused(*small, "--lpips", "alex.pth", names=["--lpips", "alex.pth"])
        self.refused(*small, "--lpips", SOURCE / "models/demo-t2v/vae/diffusion_pytorch_model.safetensors",
                     names=["net.slice1.0.weight", "lpips"])  # fmt: skip
        # What a variant alone cannot do is told in its row.
        rows, _, _ = self.table(*SMALL, "--variants", "scheduler=best,scheduler=euler")
        self.assertIn("best", rows["scheduler=best"]["error"])
        self.assertGreater(rows["scheduler=euler"]["psnr"], 0)

    def test_what_was_done_stays(self):
        process = self.start("bench", "quality", *SMALL, "--variants", "num-inference-steps=1000", "--json", "table.json")
        table, deadline = self.folder / "table.json", time.monotonic() + SECONDS
        while not table.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 130)
        self.assertEqual([row["name"] for row in json.loads(table.read_text())["rows"]], ["plain"])
        self.assertEqual(self.files(), ["table.json"])


if __name__ == "__main__":
    unittest.main()
