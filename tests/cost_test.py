#!/usr/bin/env python3
"""zoetrope bench cost: what segments cost here, stored and used for predictions; on small models.

usage: cost_test.py PROGRAM [unittest arguments]
"""
import json
import unittest

from cli_test import CommandLine
from quality_test import DRIVEN, SMALL

SIZE = ["--height", 32, "--width", 32, "--seed", 3, "--threads", 1, "--dtype", "fp32"]


class Cost(CommandLine):
    def setUp(self):
        super().setUp()
        self.environment["XDG_CACHE_HOME"] = str(self.folder / "cache")

    def measure(self, *words):
        return json.loads(self.call("bench", "cost", *words, "--json")[0])

    def stored(self):
        return [json.loads(file.read_text()) for file in (self.folder / "cache/zoetrope/cost").glob("*.json")]

    def test_what_is_stored_predicts_the_next_run(self):
        result = self.measure(*SIZE, "--lengths", "5,13,33", "--prompt", "a red circle")
        self.assertEqual([row["length"] for row in result["rows"]], [5, 13, 33])
        self.assertEqual((result["threads"], result["settings"]["num_inference_steps"]), (1, 2))
        for row in result["rows"]:
            self.assertAlmostEqual(row["seconds"], row["denoise_seconds"] + row["vae_seconds"], places=6)
            self.assertGreater(row["denoise_seconds"], 0)
        (stored,) = self.stored()
        self.assertEqual([sample["length"] for sample in stored["samples"]], [5, 13, 33])
        self.assertIn("1 threads", stored["device"])

        # What was measured is what the next run goes by, and the same request is the same prediction.
        words = [*SIZE, "--num-frames", 33, "--num-inference-steps", 2, "--prompt", "a red circle", "--json"]
        plan = json.loads(self.call("generate", *words)[0])["plan"]
        self.assertEqual(plan["cost_source"], "a calibration on this device")
        self.assertAlmostEqual(plan["segments"][0]["predicted_seconds"], result["rows"][2]["predicted_seconds"], places=6)
        # Measured again, it takes the place of what was there.
        self.measure(*SIZE, "--lengths", "5,9")
        (stored,) = self.stored()
        self.assertEqual([sample["length"] for sample in stored["samples"]], [5, 9])

    def test_a_driven_model_needs_no_more_of_the_clip_than_it_has(self):
        words = [*DRIVEN[: DRIVEN.index("--segment-length")], "--lengths", "5,13"]
        self.assertEqual([row["length"] for row in self.measure(*words)["rows"]], [5, 13])

    def test_refusals(self):
        for lengths, message in (("9", "two or more"), ("9,9", "two or more"), ("5,12", "--lengths has 12"),
                                 ("1,5", "--lengths has 1"), ("5,x", "'5,x'"), ("5,9.5", "whole numbers")):  # fmt: skip
            with self.subTest(lengths):
                self.refused("bench", "cost", *SMALL[:4], "--lengths", lengths, names=(message,))
        self.assertEqual(self.stored(), [])


if __name__ == "__main__":
    unittest.main()
