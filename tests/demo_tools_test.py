#!/usr/bin/env python3
"""What trains and judges the demo models: the pose drawing, the puppets, their judge."""
import json
import struct
import sys
import unittest
import zlib
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SOURCE / "tools" / "demo_model"))

import draw_puppet  # noqa: E402
import pose_drawing  # noqa: E402
import puppet_clips  # noqa: E402
import puppet_judge  # noqa: E402
import puppets  # noqa: E402

GOLDEN = SOURCE / "tests" / "golden" / "preprocess_drawing"


def read_png(path):
    """[height, width, 3] of a PNG file of 8-bit RGB that is not interlaced."""
    data, place, packed = path.read_bytes(), 8, b""
    while place < len(data):
        size, kind = struct.unpack(">I4s", data[place:place + 8])
        body = data[place + 8:place + 8 + size]
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack(">IIBB", body[:10])
            assert (depth, color) == (8, 2), "an 8-bit RGB picture is wanted"
        packed += body if kind == b"IDAT" else b""
        place += 12 + size
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + 3 * width)
    picture = np.zeros((height + 1, width + 1, 3), np.int32)  # with a row above and a column to the left
    for y, (filter_type, line) in enumerate(zip(rows[:, 0], rows[:, 1:].astype(int).reshape(height, width, 3)), 1):
        above = picture[y - 1]
        for x in range(1, width + 1):
            a, b, c = picture[y, x - 1], above[x], above[x - 1]
            if filter_type == 4:
                ahead = a + b - c
                pa, pb, pc = abs(ahead - a), abs(ahead - b), abs(ahead - c)
                guess = np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c))
            else:
                guess = (0, a, b, (a + b) // 2)[filter_type]
            picture[y, x] = (line[x - 1] + guess) % 256
    return picture[1:, 1:].astype(np.uint8)


class PoseDrawing(unittest.TestCase):
    def test_equals_the_program(self):
        """The golden pictures are those that the program's own drawer is tested against."""
        case = next(c for c in json.loads((GOLDEN / "cases.json").read_text())["drawing"] if c["width"] == 176)
        picture = np.zeros((case["height"], case["width"], 3), np.uint8)
        pose_drawing.draw_pose(picture, *(np.array(case[part]) for part in ("body", "lhand", "rhand")))
        wrong = (picture != read_png(GOLDEN / case["picture"])).any(-1)
        # The case has hand bones that leave the picture: the program cuts such lines off in another way.
        self.assertLessEqual(int(wrong.sum()), 104)
        self.assertEqual(int(wrong[60:].sum()), 0)


class Puppet(unittest.TestCase):
    def test_the_committed_picture_is_what_the_tool_draws(self):
        picture = read_png(SOURCE / "examples" / "puppet.png").astype(int)
        drawn = draw_puppet.draw(draw_puppet.SEED, draw_puppet.SIZE)
        self.assertLessEqual(np.abs(picture - drawn).max(), 1)


class TrainingWeights(unittest.TestCase):
    def test_small_parts_count_as_much_as_large_ones(self):
        truth = puppet_clips.make_clip(3, 9).truth
        weights, parts = puppet_clips.part_weights(truth), truth.parts()
        names = np.array([puppet_clips.PART_OF.get(part.name, part.name) for part in parts] + ["background"])
        names = names[puppets.label(parts, *truth.axes())]
        self.assertEqual(weights.shape, (9, *truth.size))
        for frame in range(9):
            shown = [part for part in puppet_clips.COUNTED if (names[frame] == part).any()]
            large = [part for part in shown if (names[frame] == part).sum() >= puppet_clips.SMALL_PART]
            self.assertGreaterEqual(len(large), 6)
            for part in large:
                share = weights[frame][names[frame] == part].sum() / weights[frame].size
                self.assertAlmostEqual(float(share), (1 - puppet_clips.BACKGROUND_SHARE) / len(shown), places=5)
            behind = weights[frame][names[frame] == "background"].sum() / weights[frame].size
            self.assertAlmostEqual(float(behind), puppet_clips.BACKGROUND_SHARE, places=5)


class Judge(unittest.TestCase):
    CLIPS = [40_000_000 + i for i in range(2)]

    def setUp(self):
        self.clips = [puppet_clips.make_clip(seed, 9, want_held_out=True) for seed in self.CLIPS]

    def test_drawn_clips_are_right(self):
        for clip in self.clips:
            result = puppet_judge.judge(clip.video(), clip.truth, every=8)
            self.assertLess(np.mean(result.joint_errors()), 2.0)
            self.assertEqual(result.colors_right(), 1.0)

    def test_other_references_have_other_colors(self):
        for clip, other in zip(self.clips, self.clips[1:] + self.clips[:1]):
            truth = puppet_judge.with_look(clip.truth, other.truth.look)
            self.assertLess(puppet_judge.judge(clip.video(), truth, every=8).colors_right(), 0.7)

    def test_other_motions_have_other_joints(self):
        for clip, other in zip(self.clips, self.clips[1:] + self.clips[:1]):
            truth = puppet_judge.with_motion(clip.truth, other.truth)
            self.assertGreater(np.mean(puppet_judge.judge(clip.video(), truth, every=8).joint_errors()), 5.0)

    def test_an_empty_video_has_no_joints(self):
        clip = self.clips[0]
        empty = np.broadcast_to(clip.truth.backdrop(), clip.video().shape)
        result = puppet_judge.judge(empty, clip.truth, every=8)
        self.assertGreater(np.mean(result.joint_errors()), 5.0)
        self.assertLess(result.colors_right(), 0.2)


if __name__ == "__main__":
    unittest.main()
