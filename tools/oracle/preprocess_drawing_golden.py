#!/usr/bin/env python3
"""Draws random poses with the Wan2.2 repository's own drawer: tests/golden/preprocess_drawing/.

usage: preprocess_drawing_golden.py WAN2.2_CHECKOUT FOLDER     (needs opencv-python 4, matplotlib, Pillow)

Each case is a size and 20 + 21 + 21 points with scores (cases.json) and the picture drawn from them (PNG). Retargeted
cases also have the clip's first frame, a frame and the character's picture, each 133 points; expected are 62 points.
"""
import copy
import json
import pathlib
import sys

import cv2
import numpy as np
from PIL import Image

SIZES = [(176, 144), (832, 480), (720, 1280), (1000, 1100), (1408, 1424)]  # width, height: sticks of 1 to 6 pixels


def exact(points):
    """Multiples of 1/64: the file holds them exactly."""
    return (np.round(np.asarray(points, np.float64) * 64) / 64).astype(np.float32)


def random_points(rng, count, width, height, spread):
    """Points around a random place, some of them outside the picture, a tenth with a low score."""
    centre = rng.uniform(0.3, 0.7, 2) * (width, height)
    points = centre + rng.normal(0, spread, (count, 2)) * (width, height)
    scores = np.where(rng.uniform(size=count) < 0.1, 0.2, rng.uniform(0.5, 1, count))
    return exact(np.concatenate([points, scores[:, None]], 1))


def drawing_cases(folder, wan):
    cases = []
    for i, (width, height) in enumerate(SIZES):
        rng = np.random.default_rng(i)
        meta = wan["pose2d_utils"].AAPoseMeta()
        meta.width, meta.height = width, height
        narrow = 0.3 if width >= 1000 else 1  # small files
        parts = {name: random_points(rng, count, width, height, spread * narrow)
                 for name, count, spread in (("body", 20, 0.25), ("lhand", 21, 0.05), ("rhand", 21, 0.3))}
        for name, points in parts.items():
            setattr(meta, f"kps_{name}", points[:, :2])
            setattr(meta, f"kps_{name}_p", points[:, 2])
        canvas = np.zeros((height, width, 3), np.uint8)
        picture = wan["human_visualization"].draw_aapose_by_meta_new(canvas, meta)
        name = f"{width}x{height}.png"
        Image.fromarray(picture).save(folder / name, optimize=True)
        cases.append({"picture": name, "width": width, "height": height,
                      **{part: [[float(v) for v in row] for row in points] for part, points in parts.items()}})
    return cases


def standing(rng, width, height, hidden_legs):
    """A person of 133 points with random proportions, in pixels."""
    points = np.zeros((133, 3), np.float32)
    points[:, 2] = rng.uniform(0.6, 1, 133)
    x, top, tall = width * rng.uniform(0.4, 0.6), height * 0.1, height * rng.uniform(0.6, 0.75)
    heights = [0, -0.02, -0.02, 0, 0, .15, .15, .3, .3, .45, .45, .5, .5, .75, .75, 1, 1, 1.03, 1.02, 1, 1.03, 1.02, 1]
    sides = [0, 1, -1, 2, -2, 5, -5, 6, -6, 7, -7, 3, -3, 3, -3, 3, -3, 4, 5, 3, -4, -5, -3]
    for i, (down, side) in enumerate(zip(heights, sides)):
        points[i, :2] = x + side * tall * 0.03, top + tall * (0.05 + 0.9 * down)
    points[23:91, :2] = points[0, :2] + rng.normal(0, tall * 0.03, (68, 2))
    points[91:112, :2] = points[9, :2] + rng.normal(0, tall * 0.02, (21, 2))
    points[112:133, :2] = points[10, :2] + rng.normal(0, tall * 0.02, (21, 2))
    points[:, :2] += rng.normal(0, tall * 0.01, (133, 2))
    points[[95, 120], 2] = 0.125
    if hidden_legs:
        points[11:23, 2] = 0.125
    return exact(points)


def retarget_cases(wan):
    load, cases = wan["pose2d_utils"].load_pose_metas_from_kp2ds_seq, []
    for seed, hidden, with_edit in ((0, False, False), (1, True, False), (2, True, True)):
        rng = np.random.default_rng(100 + seed)
        clip, character = (640, 360), (480, 832)
        first, second = standing(rng, *clip, hidden), standing(rng, *clip, hidden)
        target, edited = standing(rng, *character, hidden), standing(rng, *character, hidden)
        meta = lambda points, size: load(points[None], *size)[0]
        arguments = [meta(first, clip), meta(target, character), [meta(first, clip), meta(second, clip)],
                     meta(first, clip) if with_edit else None, meta(edited, character) if with_edit else None]
        fitted = wan["retarget_pose"].get_retarget_pose(*copy.deepcopy(arguments))[1]
        rows = []
        for part in ("body", "lhand", "rhand"):
            scores = getattr(fitted, f"kps_{part}_p")
            for (x, y), score in zip(getattr(fitted, f"kps_{part}"), scores):
                rows.append([float(x or 0), float(y or 0), float(score)])
        as_list = lambda points: [[float(v) for v in row] for row in points]
        cases.append({"clip": clip, "character_size": character, "first": as_list(first), "frame": as_list(second),
                      "character": as_list(target), "edited": as_list(edited) if with_edit else None, "expected": rows})
    return cases


def compact(value):
    if isinstance(value, dict):
        return {key: compact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [compact(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def main():
    checkout, folder = map(pathlib.Path, sys.argv[1:])
    sys.path.insert(0, str(checkout / "wan/modules/animate/preprocess"))
    sys.modules.setdefault("tqdm", type(sys)("tqdm"))
    if not hasattr(sys.modules["tqdm"], "tqdm"):
        sys.modules["tqdm"].tqdm = lambda items: items
    wan = {name: __import__(name) for name in ("human_visualization", "pose2d_utils", "retarget_pose")}
    folder.mkdir(parents=True, exist_ok=True)
    cases = {"opencv": cv2.__version__, "drawing": drawing_cases(folder, wan), "retarget": retarget_cases(wan)}
    (folder / "cases.json").write_text(json.dumps(compact(cases), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
