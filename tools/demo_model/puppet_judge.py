"""Reads a puppet video: where its joints are, which colours its parts have, how much they flicker.

Joints are found by drawing: a puppet with the colours that the frame itself shows is moved, joint
by joint, until it lies on the frame best. It starts from joints that are thrown off by START_ERROR,
so a video without a puppet gets that error, not none. Joints that nobody could find in the ideal
drawing (an arm before a shirt of its colour) are not counted. A part's colour is right if it is
within RIGHT_COLOR of the reference picture's. Only numpy.

    python puppet_judge.py --self-test 20
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace

import numpy as np

import puppet_clips
import puppets
from pose_drawing import (L_ANKLE, L_EAR, L_ELBOW, L_EYE, L_HIP, L_KNEE, L_SHOULDER, L_TOE, L_WRIST, NECK, NOSE,
                          R_ANKLE, R_EAR, R_ELBOW, R_EYE, R_HIP, R_KNEE, R_SHOULDER, R_TOE, R_WRIST)
from puppet_motion import JOINTS, MID_HIP

# What each joint takes along.
MOVES = {NOSE: {R_EYE: 1, L_EYE: 1, R_EAR: 1, L_EAR: 1}, R_SHOULDER: {NECK: 0.5}, L_SHOULDER: {NECK: 0.5}, R_ELBOW: {},
         L_ELBOW: {}, R_WRIST: {}, L_WRIST: {}, R_HIP: {MID_HIP: 0.5}, L_HIP: {MID_HIP: 0.5}, R_KNEE: {}, L_KNEE: {},
         R_ANKLE: {R_TOE: 1}, L_ANKLE: {L_TOE: 1}}
JUDGED = tuple(MOVES)
INFLUENCE = np.zeros((len(JUDGED), JOINTS))
for _row, _joint in enumerate(JUDGED):
    INFLUENCE[_row, _joint] = 1
    for _other, _share in MOVES[_joint].items():
        INFLUENCE[_row, _other] = _share
START_ERROR = 0.08  # of the body height
STARTS = 2
STEPS = (0.08, 0.05, 0.03, 0.015, 0.01)  # of the body height
WINDOW = 0.3  # of the body height, around a joint: what moving it can change
EVIDENCE = 0.004  # mean change of a window, 0..1, when a joint is moved by EVIDENCE_STEP
EVIDENCE_STEP = 0.08
RIGHT_COLOR = 20.0  # CIE76
INSIDE = 0.7  # pixels from a part's edge
LEAST_PIXELS = 5  # of a part's inside, for its colour to be read
WAYS = np.array([(np.cos(a), np.sin(a)) for a in np.arange(8) * np.pi / 4])


def right_share(errors: list[float]) -> float:
    """Of CIE76 errors; nan of none."""
    return float(np.mean([e <= RIGHT_COLOR for e in errors])) if errors else float("nan")


@dataclass
class FrameReading:
    """errors: per joint in per cent of the body height; colors: per part, CIE76 to the reference."""

    frame: int
    errors: dict[int, float]
    colors: dict[str, float]


@dataclass
class Result:
    readings: list[FrameReading]
    inside: list[float] = field(default_factory=list)  # change of the parts' colours from frame to frame, CIE76
    at_joins: list[float] = field(default_factory=list)

    def joint_errors(self, frames: range | None = None) -> list[float]:
        return [e for r in self.readings if frames is None or r.frame in frames for e in r.errors.values()]

    def color_errors(self, frames: range | None = None) -> list[float]:
        return [e for r in self.readings if frames is None or r.frame in frames for e in r.colors.values()]

    def colors_right(self, frames: range | None = None) -> float:
        return right_share(self.color_errors(frames))


class _Painter:
    """Draws a puppet on joints; given colours replace the look's."""

    def __init__(self, truth: puppet_clips.Truth, colors: dict[str, np.ndarray]):
        self._truth = truth
        self._look = replace(truth.look, colors=truth.look.colors | colors)
        self._backdrop = truth.backdrop()
        self._x, self._y = truth.axes()

    def draw(self, joints: np.ndarray, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """joints: [n, 21, 2]. Returns that window of each, [n, rows, columns, 3]."""
        truth = self._truth
        parts = puppets.parts_of(self._look, joints, truth.height, truth.head)
        return puppets.paint(parts, self._backdrop[rows, columns], self._x[columns], self._y[rows])


def _window(truth: puppet_clips.Truth, joint: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns around a joint."""
    reach = WINDOW * truth.height
    ends = []
    for place, size in ((joint[1], truth.size[0]), (joint[0], truth.size[1])):
        middle = float(np.clip(place, reach / 2, size - reach / 2))
        ends.append(slice(max(int(middle - reach), 0), min(int(middle + reach) + 1, size)))
    return ends[0], ends[1]


def _fit(painter: _Painter, truth: puppet_clips.Truth, picture: np.ndarray,
         joints: np.ndarray) -> tuple[np.ndarray, float]:
    """The joints ([21, 2]) moved to where the drawing differs least from the picture, and that difference."""
    for step in STEPS:
        for _ in range(2):
            for row, joint in enumerate(JUDGED):
                offsets = np.concatenate([np.zeros((1, 2)), WAYS * step * truth.height])
                tried = joints + INFLUENCE[row][:, None] * offsets[:, None]
                rows, columns = _window(truth, joints[joint])
                drawn = painter.draw(tried, rows, columns)
                costs = np.abs(drawn - picture[rows, columns]).mean((1, 2, 3))
                joints = tried[int(costs.argmin())]
    return joints, float(np.abs(painter.draw(joints[None])[0] - picture).mean())


def _findable(truth: puppet_clips.Truth, joints: np.ndarray) -> list[int]:
    """Indices in JUDGED of the joints whose place the ideal drawing shows."""
    painter = _Painter(truth, {})
    found = []
    for row, joint in enumerate(JUDGED):
        offsets = np.concatenate([np.zeros((1, 2)), WAYS * EVIDENCE_STEP * truth.height])
        rows, columns = _window(truth, joints[joint])
        drawn = painter.draw(joints + INFLUENCE[row][:, None] * offsets[:, None], rows, columns)
        if np.abs(drawn[1:] - drawn[:1]).mean((1, 2, 3)).min() > EVIDENCE:
            found.append(row)
    return found


def _colors(parts: list[puppets.Part], truth: puppet_clips.Truth, video: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Per frame the median colours of the parts whose insides can be seen."""
    labels = puppets.label(parts, *truth.axes(), INSIDE)
    names = np.array([part.name for part in parts] + ["", ""])  # -2 and -1 are the last two
    result = []
    for picture, frame_labels in zip(video, labels):
        named = names[frame_labels]
        seen = {}
        for name in puppets.PARTS:
            pixels = picture[named == name]
            if len(pixels) >= LEAST_PIXELS:
                seen[name] = np.median(pixels, 0)
        result.append(seen)
    return result


def _read(truth: puppet_clips.Truth, picture: np.ndarray, frame: int) -> FrameReading:
    joints = truth.joints[frame]
    rng = np.random.default_rng(frame)
    here = replace(truth, joints=joints[None], face=puppets.Face(truth.face.mouth[[frame]], truth.face.eyes[[frame]]))
    seen = _colors(here.parts(), truth, picture[None])[0]
    painter = _Painter(truth, seen)
    best, least = joints, np.inf
    for _ in range(STARTS):
        angles = rng.uniform(0, 2 * np.pi, len(JUDGED))
        thrown = np.stack([np.cos(angles), np.sin(angles)], -1) * START_ERROR * truth.height
        fitted, cost = _fit(painter, truth, picture, joints + INFLUENCE.T @ thrown)
        if cost < least:
            best, least = fitted, cost
    off = np.linalg.norm(best - joints, axis=-1) / truth.height * 100
    errors = {JUDGED[row]: float(off[JUDGED[row]]) for row in _findable(truth, joints)}
    colors = {name: float(puppets.difference(color, truth.look.colors[name])) for name, color in seen.items()}
    return FrameReading(frame, errors, colors)


def judge(video: np.ndarray, truth: puppet_clips.Truth, every: int = 4, joins: tuple[int, ...] = ()) -> Result:
    """video: [F, rows, columns, 3] in 0..1, judged by the joints and the look of truth. Joints are read in every
    so-manieth frame. joins: first frames of segments."""
    result = Result([_read(truth, video[frame], frame) for frame in range(0, len(video), every)])
    colors = _colors(truth.parts(slice(0, len(video))), truth, video)
    for frame in range(1, len(video)):
        before, now = colors[frame - 1], colors[frame]
        steps = [float(puppets.difference(before[name], now[name])) for name in before.keys() & now.keys()]
        (result.at_joins if frame in joins else result.inside).extend(steps)
    return result


def with_look(truth: puppet_clips.Truth, look: puppets.Look) -> puppet_clips.Truth:
    """The same motion, another reference picture."""
    return replace(truth, look=look)


def with_motion(truth: puppet_clips.Truth, other: puppet_clips.Truth) -> puppet_clips.Truth:
    """The same puppet, another driving pose (which stands where the puppet stands)."""
    scale = truth.height / other.height
    joints = (other.joints - other.joints[:, [MID_HIP]].mean((0, 1))) * scale + truth.joints[:, [MID_HIP]].mean((0, 1))
    return replace(truth, joints=joints)


def self_test(clips: int, frames: int = 9) -> str:
    """The judge on drawn clips, with their own puppets and motions and with each other's."""
    made = [puppet_clips.make_clip(40_000_000 + i, frames, want_held_out=True) for i in range(clips)]
    rows = {"own": [], "another reference": [], "another motion": [], "no puppet": []}
    for index, clip in enumerate(made):
        other, video = made[(index + 1) % clips].truth, clip.video()
        rows["own"].append(judge(video, clip.truth))
        rows["another reference"].append(judge(video, with_look(clip.truth, other.look)))
        rows["another motion"].append(judge(video, with_motion(clip.truth, other)))
        rows["no puppet"].append(judge(np.broadcast_to(clip.truth.backdrop(), video.shape), clip.truth))
    lines = ["| judged by | joint error, % | joints read | colours right, % | mean CIE76 | flicker |",
             "| --- | --- | --- | --- | --- | --- |"]
    for name, results in rows.items():
        joints = [e for r in results for e in r.joint_errors()]
        colors = [e for r in results for e in r.color_errors()]
        right = 100 * right_share(colors)
        flicker = np.mean([e for r in results for e in r.inside])
        lines.append(f"| {name} | {np.mean(joints):.2f} | {len(joints)} | {right:.1f} | {np.mean(colors):.1f} "
                     f"| {flicker:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--self-test", type=int, metavar="CLIPS", default=20)
    print(self_test(parser.parse_args().self_test))


if __name__ == "__main__":
    main()
