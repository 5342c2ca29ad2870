"""Skeletons that move: bones of random proportions, and motions that any bones can follow.

A motion is bone directions over time, so the same motion moves every skeleton. Lengths are in body
heights (head's top to soles), x to the right and y down on the screen, the ground at y = 0; a
person faces the viewer, so the right hand is on the left. Joints are the 20 that Wan-Animate draws
(pose_drawing.py) and the middle of the hips. Only numpy; everything is deterministic by seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pose_drawing import (L_ANKLE, L_EAR, L_ELBOW, L_EYE, L_HIP, L_KNEE, L_SHOULDER, L_TOE, L_WRIST, NECK, NOSE,
                          R_ANKLE, R_EAR, R_ELBOW, R_EYE, R_HIP, R_KNEE, R_SHOULDER, R_TOE, R_WRIST)

FPS = 16
MID_HIP, JOINTS = 20, 21
# From the root outwards.
BONES = ((MID_HIP, NECK), (NECK, R_SHOULDER), (NECK, L_SHOULDER), (R_SHOULDER, R_ELBOW), (L_SHOULDER, L_ELBOW),
         (R_ELBOW, R_WRIST), (L_ELBOW, L_WRIST), (MID_HIP, R_HIP), (MID_HIP, L_HIP), (R_HIP, R_KNEE), (L_HIP, L_KNEE),
         (R_KNEE, R_ANKLE), (L_KNEE, L_ANKLE), (R_ANKLE, R_TOE), (L_ANKLE, L_TOE), (NECK, NOSE), (NOSE, R_EYE),
         (NOSE, L_EYE), (NOSE, R_EAR), (NOSE, L_EAR))
BONE_OF = {child: index for index, (_, child) in enumerate(BONES)}
SOLE = 0.03  # from ankle to ground
NECK_LENGTH = 0.015  # from the line of the shoulders to the chin
PAIRS = ((R_SHOULDER, L_SHOULDER), (R_ELBOW, L_ELBOW), (R_WRIST, L_WRIST), (R_HIP, L_HIP), (R_KNEE, L_KNEE),
         (R_ANKLE, L_ANKLE), (R_TOE, L_TOE), (R_EYE, L_EYE), (R_EAR, L_EAR))
KINDS = {"dance": 0.4, "poses": 0.2, "walk": 0.12, "jacks": 0.08, "wave": 0.1, "squat": 0.06, "idle": 0.04}


@dataclass
class Skeleton:
    """lengths: one per bone, in body heights."""

    lengths: np.ndarray
    head: float  # height of the head
    hand: float


@dataclass
class Motion:
    """vectors: [F, bones, 2], a bone's direction times what foreshortening leaves of it.

    root: [F], the hips' way to the right. lift: [F], the lowest foot's height above the ground.
    """

    vectors: np.ndarray
    root: np.ndarray
    lift: np.ndarray


def random_skeleton(rng: np.random.Generator) -> Skeleton:
    head = rng.uniform(0.2, 0.27)
    torso = rng.uniform(0.27, 0.32)
    legs = 1 - head - NECK_LENGTH - torso - SOLE
    lengths = np.zeros(len(BONES))
    thigh = legs * rng.uniform(0.49, 0.54)
    sizes = {NECK: torso, R_SHOULDER: rng.uniform(0.085, 0.12), R_ELBOW: rng.uniform(0.14, 0.17),
             R_WRIST: rng.uniform(0.125, 0.155), R_HIP: rng.uniform(0.05, 0.075), R_KNEE: thigh, R_ANKLE: legs - thigh,
             R_TOE: 0.06, NOSE: NECK_LENGTH + 0.45 * head, R_EYE: 0.2 * head, R_EAR: 0.42 * head}
    for joint, size in sizes.items():
        lengths[BONE_OF[joint]] = size
    for right, left in PAIRS:
        lengths[BONE_OF[left]] = lengths[BONE_OF[right]]
    return Skeleton(lengths, head, rng.uniform(0.065, 0.085))


def joints_of(motion: Motion, skeleton: Skeleton) -> np.ndarray:
    """[F, 21, 2] in body heights."""
    joints = np.zeros((len(motion.root), JOINTS, 2))
    for index, (parent, child) in enumerate(BONES):
        joints[:, child] = joints[:, parent] + motion.vectors[:, index] * skeleton.lengths[index]
    lowest = joints[:, [R_ANKLE, L_ANKLE], 1].max(1)
    joints[..., 1] -= (lowest + SOLE + motion.lift)[:, None]
    joints[..., 0] += motion.root[:, None]
    return joints


def mirrored(motion: Motion) -> Motion:
    vectors = motion.vectors.copy()
    for right, left in PAIRS:
        a, b = BONE_OF[right], BONE_OF[left]
        vectors[:, [a, b]] = motion.vectors[:, [b, a]]
    vectors[..., 0] *= -1
    return Motion(vectors, -motion.root, motion.lift)


# ---------------------------------------------------------------------------------- synthetic

def _curve(rng: np.random.Generator, time: np.ndarray, low: float, high: float, rate: float = 0.5) -> np.ndarray:
    """A smooth way within low..high: a random part of the range, at most `rate` swings a second."""
    def swing() -> np.ndarray:
        return np.sin(2 * np.pi * (rng.uniform(0.3, 1.0) * rate * time + rng.random()))

    values = 0.7 * swing() + 0.3 * swing()
    width = rng.uniform(0.3, 1.0) * (high - low) / 2
    middle = rng.uniform(low + width, high - width)
    return middle + width * values


def _between_poses(rng: np.random.Generator, time: np.ndarray, low: float, high: float,
                   changes: np.ndarray) -> np.ndarray:
    """Holds a random value, then eases to the next at each of the changes (seconds)."""
    values = rng.uniform(low, high, len(changes) + 1)
    result = np.full(len(time), values[0])
    for moment, start, end in zip(changes, values, values[1:]):
        share = np.clip((time - moment) / 0.6, 0, 1)
        result += (end - start) * share * share * (3 - 2 * share)
    return result


class _Angles:
    """Angles by joint: of limbs from straight down outwards, of torso and head from upright to the right."""

    def __init__(self, rng: np.random.Generator, frames: int):
        self.zero = np.zeros(frames)
        self.values = {name: self.zero for name in ("lean", "tilt", "yaw", "root", "lift")}
        for side in "rl":
            self.values |= {side + "arm": self.zero + rng.uniform(0.15, 0.4),
                            side + "fore": self.zero + rng.uniform(-0.1, 0.3),
                            side + "thigh": self.zero + rng.uniform(0.02, 0.15), side + "shin": self.zero,
                            side + "thigh_length": self.zero + 1, side + "shin_length": self.zero + 1,
                            side + "arm_length": self.zero + 1, side + "fore_length": self.zero + 1}

    def motion(self) -> Motion:
        v = self.values
        frames = len(self.zero)
        vectors = np.zeros((frames, len(BONES), 2))

        def put(joint: int, angle: np.ndarray, side: float, size: np.ndarray | float = 1.0) -> None:
            vectors[:, BONE_OF[joint]] = np.stack([side * np.sin(angle), np.cos(angle)], -1) * np.reshape(size, (-1, 1))

        up = np.pi - v["lean"]
        put(NECK, up, 1)
        put(R_SHOULDER, np.pi / 2 + v["lean"], -1)
        put(L_SHOULDER, np.pi / 2 - v["lean"], 1)
        put(R_HIP, self.zero + np.pi / 2, -1)
        put(L_HIP, self.zero + np.pi / 2, 1)
        for name, side, points in (("r", -1, (R_ELBOW, R_WRIST, R_KNEE, R_ANKLE, R_TOE)),
                                   ("l", 1, (L_ELBOW, L_WRIST, L_KNEE, L_ANKLE, L_TOE))):
            elbow, wrist, knee, ankle, toe = points
            put(elbow, v[name + "arm"], side, v[name + "arm_length"])
            put(wrist, v[name + "arm"] + v[name + "fore"], side, v[name + "fore_length"])
            put(knee, v[name + "thigh"], side, v[name + "thigh_length"])
            put(ankle, v[name + "thigh"] + v[name + "shin"], side, v[name + "shin_length"])
            put(toe, self.zero + 0.9, side)
        head = v["lean"] + v["tilt"]
        put(NOSE, np.pi - head, 1)
        for joint, x, y in ((R_EYE, -0.85, -0.5), (L_EYE, 0.85, -0.5), (R_EAR, -1.0, -0.1), (L_EAR, 1.0, -0.1)):
            far = 1 - 0.5 * np.clip(v["yaw"] * np.sign(x), 0, 1)  # a turned head's nose is nearer to one side
            offset = np.stack([x * far, self.zero + y], -1)
            turned = np.stack([offset[:, 0] * np.cos(head) - offset[:, 1] * np.sin(head),
                               offset[:, 0] * np.sin(head) + offset[:, 1] * np.cos(head)], -1)
            vectors[:, BONE_OF[joint]] = turned
        return Motion(vectors, v["root"], v["lift"])


def synthetic_motion(rng: np.random.Generator, frames: int, kind: str | None = None) -> Motion:
    """`kind` is one of KINDS, by default a random one."""
    time = np.arange(frames) / FPS + rng.uniform(0, 20)
    kind = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
    angles = _Angles(rng, frames)
    v = angles.values
    v["lean"], v["tilt"] = _curve(rng, time, -0.06, 0.06), _curve(rng, time, -0.12, 0.12)
    v["yaw"] = _curve(rng, time, -0.6, 0.6, 0.3)
    v["root"] = _curve(rng, time, -0.05, 0.05, 0.3)
    if kind in ("dance", "poses"):
        changes = np.arange(time[0] - rng.uniform(0, 1.2), time[-1] + 1, rng.uniform(0.9, 1.6))

        def way(low: float, high: float, rate: float = 0.45) -> np.ndarray:
            if kind == "dance":
                return _curve(rng, time, low, high, rate)
            return _between_poses(rng, time, low, high, changes)

        v["lean"], v["tilt"] = way(-0.2, 0.2), way(-0.2, 0.2)
        v["root"] = way(-0.1, 0.1, 0.3)
        for side in "rl":
            v[side + "arm"], v[side + "fore"] = way(0.05, 2.7), way(-0.8, 2.0)
            v[side + "thigh"], v[side + "shin"] = way(0.0, 0.55), way(-0.5, 0.05)
            v[side + "arm_length"], v[side + "fore_length"] = way(0.7, 1.0), way(0.7, 1.0)
        if rng.random() < 0.3:
            v["lift"] = 0.06 * np.abs(np.sin(2 * np.pi * 0.8 * time))
    elif kind == "walk":
        phase = 2 * np.pi * rng.uniform(0.6, 1.0) * time
        for side, sign in (("r", 1), ("l", -1)):
            step = np.clip(sign * np.sin(phase), 0, 1)
            v[side + "thigh_length"], v[side + "shin_length"] = 1 - 0.25 * step, 1 - 0.3 * step
            v[side + "arm"] = 0.25 + 0.15 * sign * np.sin(phase)
            v[side + "fore_length"] = 1 - 0.35 * np.clip(-sign * np.sin(phase), 0, 1)
        v["root"] = _curve(rng, time, -0.15, 0.15, 0.25)
    elif kind == "jacks":
        share = 0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(0.4, 0.65) * time)
        for side in "rl":
            v[side + "arm"], v[side + "fore"] = 0.2 + 2.4 * share, 0.1 + 0.1 * share
            v[side + "thigh"] = 0.05 + 0.4 * share
        v["lift"] = 0.05 * np.sin(np.pi * share) ** 2
    elif kind == "wave":
        side = str(rng.choice(["r", "l"]))
        v[side + "arm"] = _curve(rng, time, 1.4, 2.2, 0.2)
        v[side + "fore"] = 0.8 + 0.55 * np.sin(2 * np.pi * rng.uniform(0.7, 1.1) * time)
    elif kind == "squat":
        share = 0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(0.25, 0.45) * time)
        for side in "rl":
            v[side + "thigh"], v[side + "shin"] = 0.1 + 0.7 * share, -0.65 * share
            v[side + "thigh_length"] = 1 - 0.3 * share
            v[side + "arm"], v[side + "fore"] = 0.3 + 1.2 * share, 0.1 - 0.3 * share
    return angles.motion()


# ---------------------------------------------------------------------------------- extracted

def motion_from_points(points: np.ndarray, longest: float = 95) -> Motion:
    """From a clip's joints [F, 20, 2], in pixels. A bone's full length is a high percentile of those seen."""
    middle = (points[:, [R_HIP]] + points[:, [L_HIP]]) / 2
    joints = np.concatenate([points, middle], 1)
    vectors = np.stack([joints[:, child] - joints[:, parent] for parent, child in BONES], 1)
    lengths = np.percentile(np.linalg.norm(vectors, axis=-1), longest, axis=0)
    for right, left in PAIRS:
        lengths[[BONE_OF[right], BONE_OF[left]]] = max(lengths[BONE_OF[right]], lengths[BONE_OF[left]])
    vectors = vectors / np.maximum(lengths, 1e-6)[None, :, None]
    size = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors = vectors / np.maximum(size, 1)  # never longer than the bone
    height = lengths[[BONE_OF[NECK], BONE_OF[R_KNEE], BONE_OF[R_ANKLE]]].sum() / 0.72
    feet = points[:, [R_ANKLE, L_ANKLE], 1].max(1)
    ground = np.percentile(feet, 90)
    root = (middle[:, 0, 0] - middle[:, 0, 0].mean()) / height
    lift = np.clip((ground - feet) / height, 0, 0.2)
    return Motion(vectors, np.clip(root, -0.2, 0.2), lift)


def load_motions(folder: Path) -> list[Motion]:
    """Every extracted motion of a folder: .npy files of joints [F, 20, 2] at FPS frames a second."""
    return [motion_from_points(np.load(file).astype(np.float64)) for file in sorted(folder.glob("*.npy"))]


def excerpt(motion: Motion, rng: np.random.Generator, frames: int) -> Motion:
    """A random stretch, there and back where the motion is shorter, mirrored half the time."""
    available = len(motion.root)
    start = int(rng.integers(max(available - frames, 0) + 1))
    steps = (start + np.arange(frames)) % max(2 * available - 2, 1)
    steps = np.minimum(steps, 2 * available - 2 - steps)
    taken = Motion(motion.vectors[steps], motion.root[steps], motion.lift[steps])
    return mirrored(taken) if rng.random() < 0.5 else taken
