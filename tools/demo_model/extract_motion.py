"""Reads joints back from a pose video that `zoetrope preprocess` drew, by their colours.

    ffmpeg -i CLIP -vf scale=1000:1000,fps=16 -crf 12 large.mp4
    zoetrope preprocess --video large.mp4 --output-path FOLDER --resolution-area 1000x1000 --fps 0
    python extract_motion.py --pose FOLDER/src_pose.mp4 --output motions/NAME.npy

Writes [F, 20, 2] float16 in hundredths of the picture's shorter side. Needs a large clip, in whose
pose video joints are discs of several pixels, and one that shows the whole body: frames in which a
joint is missing are filled in from their neighbours, and a clip with many of them is refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imageio.v3
import numpy as np

import pose_drawing

TOLERANCE = 40  # of a colour's channels, after a lossy codec
LEAST_MATCH = 0.15  # of a joint's square: a disc is 0.8 of it, less what the hand leaves of a wrist
MOST_MISSING = 0.45  # of the frames, of any joint
NEEDED = range(pose_drawing.BODY_POINTS)


def find_joints(picture: np.ndarray) -> np.ndarray:
    """[20, 2], NaN where a joint is not seen: the place where a disc of its colour fits best."""
    radius = max(min(picture.shape[:2]) // 200 - 1, 1)
    found = np.full((pose_drawing.BODY_POINTS, 2), np.nan)
    rows, columns = np.nonzero(picture.max(-1) > TOLERANCE)
    pixels = picture[rows, columns].astype(np.float32)
    for joint, color in enumerate(pose_drawing.COLORS):
        match = np.clip(1 - np.abs(pixels - np.float32(color)).max(-1) / TOLERANCE, 0, 1)
        near = match > 0
        if not near.any():
            continue
        y, x, weight = rows[near], columns[near], match[near]
        counts = np.bincount(y // radius * picture.shape[1] + x // radius, weight)  # per cell of radius x radius
        best = int(counts.argmax())
        cell = np.array([best // picture.shape[1], best % picture.shape[1]]) * radius + radius / 2
        close = (np.abs(y - cell[0]) <= 1.5 * radius) & (np.abs(x - cell[1]) <= 1.5 * radius)
        if weight[close].sum() < LEAST_MATCH * (2 * radius + 1) ** 2:
            continue
        found[joint] = np.average(x[close], weights=weight[close]), np.average(y[close], weights=weight[close])
    return found


def fill_in(joints: np.ndarray) -> np.ndarray:
    """Missing joints from the frames before and after."""
    filled = joints.copy()
    frames = np.arange(len(joints))
    for joint in NEEDED:
        for axis in range(2):
            values = joints[:, joint, axis]
            seen = ~np.isnan(values)
            if seen.mean() < 1 - MOST_MISSING:
                raise SystemExit(f"joint {joint} is seen in {seen.sum()} of {len(seen)} frames: the clip does not do")
            filled[:, joint, axis] = np.interp(frames, frames[seen], values[seen])
    return filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pose", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    video = imageio.v3.imread(args.pose)
    joints = fill_in(np.stack([find_joints(picture) for picture in video]))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    np.save(args.output, (joints / min(video.shape[1:3]) * 100).astype(np.float16))
    print(f"{args.output}: {len(joints)} frames")


if __name__ == "__main__":
    main()
