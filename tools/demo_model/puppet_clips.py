"""Clips of puppets with everything that Wan-Animate is conditioned on: the whole world of the model.

`make_clip(seed, frames)` gives the video, the drawn pose video, the reference picture and the face
video; `Truth` is what a judge needs to know. Coordinates are in pixels, a pixel's centre at + 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import pose_drawing
import puppets
from puppet_motion import (FPS, Motion, Skeleton, excerpt, joints_of, random_skeleton, synthetic_motion)

SIZE = 64
FACE_SIZE = 16
MARGIN = 0.09  # of the body height, for hands and limbs' widths
OTHER_BONES_SHARE = 0.25  # clips whose driving skeleton is not the puppet's own
EXTRACTED_SHARE = 0.15
COUNTED = (*puppets.PARTS, "hands")  # in training
PART_OF = {"eyes": "face", "mouth": "face", "badge": "torso"}
BACKGROUND_SHARE = 0.25  # of a frame's weight
SMALL_PART = 12  # pixels; what shows less of itself has less than its share
DRAWN_SCALES = (2, 3, 5)  # without --retarget, poses are drawn at the driving clip's size


@dataclass
class Truth:
    """A puppet on its way: joints are [F, 21, 2], height is the body's, ground the floor's."""

    look: puppets.Look
    joints: np.ndarray
    height: float
    head: float
    ground: float
    face: puppets.Face
    size: tuple[int, int] = (SIZE, SIZE)  # rows, columns

    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """x of the columns, y of the rows."""
        return (np.arange(self.size[1], dtype=np.float32) + 0.5, np.arange(self.size[0], dtype=np.float32) + 0.5)

    def parts(self, frames: slice = slice(None)) -> list[puppets.Part]:
        face = puppets.Face(self.face.mouth[frames], self.face.eyes[frames])
        return puppets.parts_of(self.look, self.joints[frames], self.height, self.head, face)

    def backdrop(self) -> np.ndarray:
        return puppets.backdrop(self.look, self.ground, self.axes()[1], self.size[1])

    def draw(self, frames: slice = slice(None)) -> np.ndarray:
        """[F, rows, columns, 3] in 0..1."""
        return puppets.paint(self.parts(frames), self.backdrop(), *self.axes())


def part_weights(truth: Truth, frames: slice = slice(None)) -> np.ndarray:
    """[F, rows, columns], how much a pixel counts in training: BACKGROUND_SHARE is for the background, and all parts
    that a frame shows have the same share of the rest, however small they are (hair is a hundredth of the pixels). A
    frame's mean is 1 if none is below SMALL_PART."""
    parts = truth.parts(frames)
    groups = np.array([1 + COUNTED.index(PART_OF.get(part.name, part.name)) for part in parts] + [0])
    groups = groups[puppets.label(parts, *truth.axes())]
    weights = np.empty(groups.shape, np.float32)
    for picture, group in zip(weights, groups):
        pixels = np.bincount(group.ravel(), minlength=1 + len(COUNTED)).astype(np.float32)
        share = np.where(pixels > 0, (1 - BACKGROUND_SHARE) / max((pixels[1:] > 0).sum(), 1), 0)
        share[0] = BACKGROUND_SHARE
        picture[:] = (share / np.maximum(pixels, SMALL_PART))[group] * group.size
    return weights


@dataclass
class Clip:
    """video and reference ([rows, columns, 3]) are in 0..1, pose and face are bytes, all [F, rows, columns, 3]."""

    truth: Truth
    reference: np.ndarray
    pose: np.ndarray
    face: np.ndarray

    def video(self) -> np.ndarray:
        return self.truth.draw()


def _place(motion: Motion, skeleton: Skeleton, height: float, ground: float, columns: int,
           aside: float = 0.0) -> tuple[np.ndarray, float]:
    """Joints in pixels and the body height: at most `height`, less where the motion would leave the picture."""
    joints = joints_of(motion, skeleton)
    left, right = joints[..., 0].min() - MARGIN, joints[..., 0].max() + MARGIN
    tall = max(-joints[..., 1].min() + MARGIN, 1.0)
    height = min(height, columns / (right - left), (ground - 0.5) / tall)
    low, high = -left * height, columns - right * height
    x = min(max(columns / 2 + aside, low), high)
    return joints * height + np.array([x, ground]), height


def standing(rng: np.random.Generator) -> Motion:
    """One frame, arms a little out."""
    motion = synthetic_motion(rng, 1, "idle")
    motion.root[:] = 0
    return motion


def _hands(rng: np.random.Generator, joints: np.ndarray, size: float) -> np.ndarray:
    """[F, 2, 21, 2]: fingers that go on where the forearms end, left hand first."""
    hands = np.zeros((len(joints), 2, pose_drawing.HAND_POINTS, 2))
    spread, closed = rng.uniform(0.15, 0.3), rng.uniform(0.5, 1.0)
    for side, (elbow, wrist) in enumerate(((pose_drawing.L_ELBOW, pose_drawing.L_WRIST),
                                           (pose_drawing.R_ELBOW, pose_drawing.R_WRIST))):
        forearm = joints[:, wrist] - joints[:, elbow]
        angle = np.arctan2(forearm[:, 1], forearm[:, 0]) + rng.uniform(-0.4, 0.4)
        hands[:, side, 0] = joints[:, wrist]
        for finger in range(5):
            turned = angle + (finger - 2) * spread * (1 if side else -1)
            way = np.stack([np.cos(turned), np.sin(turned)], -1)
            for bone, share in enumerate((0.45, 0.65, 0.85, 1.0)):
                reach = share * size * (0.75 if finger == 0 else 1.0) * (closed if bone > 0 else 1.0)
                hands[:, side, 1 + 4 * finger + bone] = joints[:, wrist] + reach * way
    return hands


def draw_pose_video(rng: np.random.Generator, joints: np.ndarray, hand: float, size: tuple[int, int],
                    clean: bool = False) -> np.ndarray:
    """As detectors and video files leave it: jitter, points that are not found, drawn at a clip's own size and made
    smaller (which thins the lines), colours at half the resolution."""
    frames = len(joints)
    points = np.ones((frames, pose_drawing.BODY_POINTS + 2 * pose_drawing.HAND_POINTS, 3), np.float64)
    hands = _hands(rng, joints, hand).reshape(frames, -1, 2)
    points[..., :2] = np.concatenate([joints[:, :pose_drawing.BODY_POINTS], hands], 1) - 0.5
    as_file = clean or rng.random() < 0.5
    if not clean:
        points[..., :2] += rng.normal(0, rng.uniform(0, 0.35), points[..., :2].shape)
        for group, share in ((slice(20, 41), 0.3), (slice(41, 62), 0.3), (slice(18, 20), 0.1), (16, 0.1), (17, 0.1)):
            if rng.random() < share:
                points[:, group, 2] = 0
        if rng.random() < 0.15:  # lost for a moment
            start = int(rng.integers(frames))
            points[start:start + 4, int(rng.choice([4, 7, 10, 13])), 2] = 0
    scale = 1 if clean or rng.random() < 0.65 else int(rng.choice(DRAWN_SCALES))
    points[..., :2] = (points[..., :2] + 0.5) * scale - 0.5
    body = points[:, :20]
    both = points[:, 20:].reshape(frames, 2, pose_drawing.HAND_POINTS, 3)
    video = pose_drawing.draw_poses(body, both, size[0] * scale, size[1] * scale)
    if scale > 1:
        video = video.reshape(frames, size[0], scale, size[1], scale, 3).mean((2, 4), dtype=np.float32)
        video = (video + 0.5).astype(np.uint8)
    return pose_drawing.as_video_file(video) if as_file else video


@dataclass
class Scene:
    """A puppet, the way it goes, and the same puppet as the reference picture has it."""

    truth: Truth
    reference: Truth
    hand: float  # length in pixels


def make_scene(seed: int, frames: int, motions: Sequence[Motion] = (), want_held_out: bool = False) -> Scene:
    """motions: extracted ones, of which some scenes use one."""
    rng = np.random.default_rng((seed, 11))
    look = puppets.random_look(rng, want_held_out)
    skeleton = random_skeleton(rng)
    driver = random_skeleton(rng) if rng.random() < OTHER_BONES_SHARE else skeleton
    if motions and rng.random() < EXTRACTED_SHARE:
        motion = excerpt(motions[int(rng.integers(len(motions)))], rng, frames)
    else:
        motion = synthetic_motion(rng, frames)
    ground = rng.uniform(0.92, 0.965) * SIZE
    feet = ground - rng.uniform(0, 0.07) * SIZE
    joints, height = _place(motion, driver, rng.uniform(0.6, 0.82) * SIZE, feet, SIZE, rng.uniform(-0.1, 0.1) * SIZE)
    own_joints, own_height = _place(standing(rng), skeleton, rng.uniform(0.74, 0.82) * SIZE, ground, SIZE)
    still = puppets.Face(np.zeros(1), np.ones(1))
    face = puppets.random_face(rng, frames, FPS)
    return Scene(Truth(look, joints, height, driver.head, ground, face),
                 Truth(look, own_joints, own_height, skeleton.head, ground, still), driver.hand * height)


def pose_video(scene: Scene, seed: int, clean: bool = False) -> np.ndarray:
    """[F, rows, columns, 3] uint8."""
    rng = np.random.default_rng((seed, 12))
    return draw_pose_video(rng, scene.truth.joints, scene.hand, scene.truth.size, clean)


def make_clip(seed: int, frames: int, motions: Sequence[Motion] = (), want_held_out: bool = False,
              clean_pose: bool = False) -> Clip:
    scene = make_scene(seed, frames, motions, want_held_out)
    face = puppets.draw_face(np.random.default_rng((seed, 13)), scene.truth.face, FACE_SIZE)
    return Clip(scene.truth, scene.reference.draw()[0], pose_video(scene, seed, clean_pose),
                (face * 255 + 0.5).astype(np.uint8))
