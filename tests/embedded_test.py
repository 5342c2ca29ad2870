#!/usr/bin/env python3
"""Which embedded model a run without --model-path takes, and what is then its default; zoetrope sheet.

usage: embedded_test.py PROGRAM [unittest arguments]
"""
import json
import shutil
import struct
import unittest
import zlib

from cli_test import SOURCE, CommandLine

GOLDEN = SOURCE / "tests/golden"
ANIMATE = GOLDEN / "conditions/replace"
TEXT = GOLDEN / "pipeline/unipc"
OWN = {"height": 32, "width": 32, "num_frames": 13, "fps": 12, "num_inference_steps": 3, "guidance_scale": 1.0,
       "negative_prompt": "", "segment_length": 13, "segment_overlap": 5}  # fmt: skip
DRIVING = ["--image", ANIMATE / "image.png", "--pose-video", ANIMATE / "pose", "--face-video", ANIMATE / "face"]


class Embedded(CommandLine):
    def setUp(self):
        super().setUp()
        self.models = self.folder / ".models"
        self.environment["ZOETROPE_MODELS"] = str(self.models)
        self.models.mkdir()
        self.embed("demo-t2v", [TEXT], {**OWN, "num_frames": 5})

    def embed(self, name, sources, defaults):
        for source in reversed(sources):
            shutil.copytree(source, self.models / name, dirs_exist_ok=True)
        info = {"name": name, "understands": f"What {name} knows.", "words": ["a"], "defaults": defaults}
        (self.models / name / "zoetrope.json").write_text(json.dumps(info))

    def run_with(self, *words):
        out, err = self.call("generate", *words, "--threads", 1, "--seed", 1, "--json")
        return json.loads(out), err

    def test_driving_videos_take_the_animate_model_and_its_defaults(self):
        self.embed("demo-animate", [ANIMATE, TEXT], OWN)
        report, err = self.run_with(*DRIVING)
        self.assertIn("the embedded model demo-animate. It understands: What demo-animate knows.", err)
        self.assertIn("Wan2.2-Animate-14B", err)
        settings = report["settings"]
        self.assertEqual({key: settings[key] for key in ("task", "height", "width", "fps", "num_inference_steps", "prompt")},
                         {"task": "animate", "height": 32, "width": 32, "fps": 12, "num_inference_steps": 3, "prompt": ""})  # fmt: skip
        self.assertEqual(settings["num_frames"], 16)  # those of the videos
        self.assertEqual([(s["start"], s["length"]) for s in report["plan"]["segments"]], [(0, 13), (8, 13)])
        # The user's word counts more; without a fixed length no segment is longer than the model's window.
        report, _ = self.run_with(*DRIVING, "--task", "animate", "--segment-overlap", 1, "--segment-policy", "exact",
                                  "--num-inference-steps", 1, "--fps", 30)  # fmt: skip
        self.assertEqual((report["settings"]["fps"], report["settings"]["num_inference_steps"]), (30, 1))
        self.assertLessEqual(max(segment["length"] for segment in report["plan"]["segments"]), 13)

    def test_all_else_takes_the_text_model(self):
        report, err = self.run_with("--prompt", "a red circle", "--output-path", "x.mp4")
        self.assertIn("the embedded model demo-t2v", err)
        self.assertEqual((report["settings"]["task"], report["settings"]["num_frames"]), ("t2v", 5))
        self.refused("generate", "--task", "t2v", names=["--prompt is missing"])

    def test_a_model_that_is_not_there(self):
        for words in (DRIVING, ["--task", "replace"], ["--video", ANIMATE / "pose", "--image", ANIMATE / "image.png"],
                      ["--task", "animate", "--prompt", "x"], ["--video", ANIMATE / "pose", "--retarget"]):  # fmt: skip
            self.refused("generate", *words, names=["demo-animate", "is not in", str(self.models), "--model-path"])
        self.refused("generate", "--model-path", "demo-animate", "--prompt", "x", names=["demo-animate", "no such folder"])

    def test_by_name(self):
        self.embed("demo-animate", [ANIMATE, TEXT], OWN)
        out, _ = self.call("inspect", "demo-animate", "--json")
        told = json.loads(out)
        self.assertEqual((told["embedded"]["name"], told["tasks"]), ("demo-animate", ["animate", "replace"]))
        out, _ = self.call("plan", "--model-path", "demo-animate", "--num-frames", 29, "--json")
        told = json.loads(out)
        self.assertEqual((told["task"], [(s["start"], s["length"]) for s in told["segments"]]),
                         ("animate", [(0, 13), (8, 13), (16, 13)]))  # fmt: skip
        report, _ = self.run_with("--model-path", "demo-t2v", "--prompt", "a", "--output-path", "x.mp4")
        self.assertEqual(report["settings"]["task"], "t2v")


def png(path, color, width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + bytes(color) * width) * height
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip


class Sheet(CommandLine):
    def test_rows_of_videos_and_columns_of_frames(self):
        colors = [(10 * i, 200, 30) for i in range(9)]
        for name, width in (("wide", 8), ("narrow", 4)):
            (self.folder / name).mkdir()
            for i, color in enumerate(colors):
                png(self.folder / name / f"{i}.png", color, width, 4)
        self.call("sheet", "wide", "narrow", "--output-path", "sheets/s.png", "--columns", 3, "--height", 8)
        told = json.loads(self.call("inspect", "sheets/s.png", "--json")[0])
        self.assertEqual((told["width"], told["height"]), (3 * 16, 2 * 8))
        self.call("sheet", "sheets/s.png", "--columns", 1)
        self.assertTrue((self.folder / "outputs/sheet.png").exists())
        self.refused("sheet", names=["none was given"])
        self.refused("sheet", "nothing.mp4", names=["nothing.mp4", "no such"])
        self.refused("sheet", "wide", "--output-path", "s.jpg", names=["s.jpg", ".png"])


if __name__ == "__main__":
    unittest.main()
