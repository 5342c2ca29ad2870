#!/usr/bin/env python3
"""Long videos on the command line: the flags of segments and joins, and what the report says of them.

usage: cli_segments_test.py PROGRAM [unittest arguments]
"""
import json
import unittest

from cli_test import CommandLine, read_tensors


class Segments(CommandLine):
    def test_a_long_video(self):
        long = {"--num-frames": 17, "--segment-length": 13, "--segment-overlap": 9, "--output-type": "tensor",
                "--output-path": "long.safetensors"}  # fmt: skip
        out, err = self.generate(long, "--json")
        plain = json.loads(out)
        self.assertIn("2 segments of up to 13 frames, overlap 9; predicted", err)
        self.assertRegex(err, r"drift over 1 join: a channel's mean changes by [+-]0\.\d{4} and its contrast \d")
        self.assertRegex(err, r"seconds at work \(idle\) of \d+\.\d: prepare \d+\.\d \(\d+\.\d\), denoise .* waiting for")
        for stage in plain["pipeline"]["stages"].values():
            self.assertAlmostEqual(stage["busy_seconds"] + stage["idle_seconds"], plain["pipeline"]["seconds"])
        tensors, _ = read_tensors(self.folder / "long.safetensors")
        self.assertEqual(tensors["video"], ("F32", [1, 17, 3, 32, 32]))
        found = plain["plan"]
        self.assertEqual([segment["start"] for segment in found["segments"]], [0, 4])
        self.assertEqual((found["policy"], found["carry"], found["overlap_fusion"]), ("vanilla", "pixels", "last"))
        self.assertEqual((found["generated_frames"], found["denoised_frames"]), (17, 26))
        self.assertGreater(found["predicted_seconds"], 0)
        self.assertAlmostEqual(found["seconds"], sum(segment["seconds"] for segment in found["segments"]))
        (join,) = plain["drift"]
        self.assertEqual((join["join"], join["frame"], len(join["mean_difference"])), (1, 13, 3))
        self.assertEqual(plain["settings"]["segments"]["lengths"], [13, 13])
        size = 4 * 17 * 3 * 32 * 32  # bytes of the frames, behind what says how they were made
        before = (self.folder / "long.safetensors").read_bytes()
        for more in (["--carry", "latents"], ["--overlap-fusion", "cosine"], ["--color-match"]):
            self.generate(long, *more)
            self.assertNotEqual((self.folder / "long.safetensors").read_bytes()[-size:], before[-size:], more)
        self.generate({**long, "--carry": "pixels", "--overlap-fusion": "last"})
        self.assertEqual((self.folder / "long.safetensors").read_bytes(), before)

    def test_refusals(self):
        for flag, value, *names in [
            ("--carry", "frames", "pixels, latents"), ("--overlap-fusion", "mean", "last, linear, cosine"),
            ("--cut-policy", "carry", "driving video"), ("--segment-overlap", "3", "1, 5, 9"),
            ("--segment-policy", "best", "auto_lim"), ("--segment-length", "3", "5 frames or more"),
            ("--carry", "latents", "give --segment-length"), ("--overlap-fusion", "last", "give --segment-length"),
            ("--color-match", "true", "give --segment-length"),
        ]:  # fmt: skip
            with self.subTest(flag=flag, value=value):
                self.refuses({flag: value}, flag, *names)
        long = {"--num-frames": 13, "--segment-length": 5}
        self.refuses({**long, "--output-type": "latent"}, "--output-type latent", "3 segments")
        self.refuses({**long, "--num-outputs": 2}, "--num-outputs 2", "one video at a time")
        self.refuses({**long, "--carry": "latents", "--color-match": "true"}, "--color-match", "--carry pixels")


if __name__ == "__main__":
    unittest.main()
