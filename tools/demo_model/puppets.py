"""Cartoon puppets: looks, and how a look is drawn on a skeleton.

A puppet is a painter's list of flat parts (capsules, ellipses, a torso) laid over joints in pixels;
`draw` paints it, `label` says which part each pixel belongs to, `draw_face` is the close-up of its
face. Only numpy; everything is deterministic by seed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from pose_drawing import (L_ANKLE, L_ELBOW, L_EYE, L_HIP, L_KNEE, L_SHOULDER, L_TOE, L_WRIST, NECK, NOSE, R_ANKLE,
                          R_ELBOW, R_EYE, R_HIP, R_KNEE, R_SHOULDER, R_TOE, R_WRIST)
from puppet_motion import MID_HIP

CLOTHES = {"red": (215, 40, 45), "orange": (245, 135, 30), "yellow": (248, 215, 50), "green": (45, 160, 75),
           "cyan": (60, 200, 210), "blue": (45, 85, 215), "purple": (130, 60, 175), "pink": (245, 135, 185),
           "white": (240, 240, 240), "black": (35, 35, 40), "brown": (120, 75, 45), "navy": (30, 40, 95)}
SKINS = ((250, 215, 180), (225, 175, 130), (165, 110, 70), (100, 65, 45))
HAIRS = ((40, 30, 25), (95, 55, 30), (225, 180, 90), (180, 75, 35), (150, 150, 155), (90, 60, 150))
BACKGROUNDS = ((225, 232, 240), (190, 215, 240), (245, 228, 200), (200, 230, 200), (215, 200, 230), (90, 100, 120),
               (60, 85, 80), (150, 150, 150), (245, 205, 205), (70, 60, 90))
EYE_COLOR, MOUTH_COLOR = (25, 22, 28), (150, 35, 50)
HAIR_STYLES = ("short", "long", "bun", "bald")
# What the judge looks at.
PARTS = ("hair", "face", "torso", "upper arms", "forearms", "thighs", "shins", "shoes")
LEAST_CONTRAST = 28.0  # CIE76, of parts against the background and of forearms against the shirt


def to_lab(color: np.ndarray) -> np.ndarray:
    """sRGB in 0..1 to CIELAB (D65)."""
    color = np.asarray(color, np.float64)
    linear = np.where(color <= 0.04045, color / 12.92, ((np.maximum(color, 0) + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                       [0.0193339, 0.1191920, 0.9503041]])
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def difference(a, b) -> np.ndarray:
    """CIE76 of sRGB colours in 0..1."""
    return np.linalg.norm(to_lab(a) - to_lab(b), axis=-1)


def _unit(color) -> np.ndarray:
    return np.asarray(color, np.float32) / 255


@dataclass(frozen=True)
class Look:
    """Colours in 0..1 by part, sizes in body heights."""

    colors: dict[str, np.ndarray]
    background: tuple[np.ndarray, np.ndarray]  # wall and floor
    hair_style: str
    badge: np.ndarray | None
    arm_width: float
    leg_width: float
    belly: float  # the torso's half width beyond hips and shoulders
    name: str = field(default="")  # shirt and trousers


def held_out(shirt: str, trousers: str) -> bool:
    """True for the eighth of all pairs of shirt and trousers that training never shows."""
    return zlib.crc32(f"{shirt} {trousers}".encode()) % 8 == 0


def random_look(rng: np.random.Generator, want_held_out: bool = False) -> Look:
    def pick(options):
        return options[int(rng.integers(len(options)))]

    names = list(CLOTHES)
    while True:
        shirt, trousers = pick(names), pick(names)
        if shirt == trousers or held_out(shirt, trousers) != want_held_out:
            continue
        skin, wall = _unit(pick(SKINS)), _unit(pick(BACKGROUNDS))
        shirt_color, trousers_color = _unit(CLOTHES[shirt]), _unit(CLOTHES[trousers])
        sleeves = rng.random()
        arm = shirt_color if sleeves < 0.8 else skin
        forearm = skin if sleeves < 0.5 or sleeves >= 0.8 else _unit(CLOTHES[pick(names)])
        shin = trousers_color if rng.random() < 0.6 else skin
        colors = {"hair": _unit(pick(HAIRS)), "face": skin, "hands": skin, "torso": shirt_color, "upper arms": arm,
                  "forearms": forearm, "thighs": trousers_color, "shins": shin, "shoes": _unit(CLOTHES[pick(names)])}
        parts = np.stack(list(colors.values()))
        if difference(parts, wall).min() < LEAST_CONTRAST or difference(forearm, shirt_color) < LEAST_CONTRAST:
            continue
        if min(difference(colors["hair"], skin), difference(shirt_color, trousers_color),
               difference(colors["shoes"], shin)) < LEAST_CONTRAST:
            continue
        floor = np.clip(wall * rng.uniform(0.8, 0.95), 0, 1) if rng.random() < 0.6 else wall
        if difference(parts, floor).min() < LEAST_CONTRAST - 8:
            continue
        badge = _unit(CLOTHES[pick(names)]) if rng.random() < 0.3 else None
        return Look(colors, (wall, floor), pick(HAIR_STYLES), badge, rng.uniform(0.048, 0.062),
                    rng.uniform(0.06, 0.075), rng.uniform(0.02, 0.045), f"{shirt} {trousers}")


# ---------------------------------------------------------------------------------- geometry

@dataclass
class Part:
    """A shape over time; a and b are [F, 2] in pixels, the sizes in pixels too.

    capsule: from a to b, radii ra and rb. ellipse: around a, half axes ra across and rb along b - a.
    torso: from a to b, half widths `ra` and `rb` ([F]), rounded by `round`.
    """

    name: str
    kind: str
    color: np.ndarray
    a: np.ndarray
    b: np.ndarray
    ra: np.ndarray | float
    rb: np.ndarray | float
    round: float = 0.0


def _along(vector: np.ndarray, otherwise: tuple[float, float]) -> np.ndarray:
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.where(length > 1e-6, vector / np.maximum(length, 1e-6), np.array(otherwise))


@dataclass
class Face:
    """mouth: how far open, eyes: how far open; [F] in 0..1."""

    mouth: np.ndarray
    eyes: np.ndarray


def parts_of(look: Look, joints: np.ndarray, height: float, head: float, face: Face | None = None) -> list[Part]:
    """joints: [F, 21, 2] in pixels; height: the body's, in pixels; head: its share of the height."""
    j = joints
    frames = len(j)
    up = _along(j[:, NOSE] - j[:, NECK], (0.0, -1.0))
    radius = head * height / 2
    centre = j[:, NOSE] + 0.1 * radius * up
    parts: list[Part] = []

    def capsule(name: str, a: np.ndarray, b: np.ndarray, ra: float, rb: float | None = None, color=None) -> None:
        parts.append(Part(name, "capsule", look.colors[name] if color is None else color, a, b, ra,
                          ra if rb is None else rb))

    def ellipse(name: str, at: np.ndarray, across, along, color=None) -> None:
        parts.append(Part(name, "ellipse", look.colors[name] if color is None else color, at, at + up, across, along))

    if look.hair_style == "long":
        capsule("hair", centre, centre - 0.95 * radius * up, 0.98 * radius, 0.8 * radius)
    leg, arm = look.leg_width * height, look.arm_width * height
    for hip, knee, ankle, toe in ((R_HIP, R_KNEE, R_ANKLE, R_TOE), (L_HIP, L_KNEE, L_ANKLE, L_TOE)):
        capsule("shins", j[:, knee], j[:, ankle], 0.88 * leg, 0.8 * leg)
        capsule("thighs", j[:, hip], j[:, knee], leg, 0.95 * leg)
        capsule("shoes", j[:, ankle], j[:, toe], 0.85 * leg, 0.75 * leg)
    spine = _along(j[:, MID_HIP] - j[:, NECK], (0.0, 1.0))
    across = np.stack([-spine[:, 1], spine[:, 0]], -1)
    belly = look.belly * height

    def half_width(right: int, left: int, least: float) -> np.ndarray:
        spread = np.abs(((j[:, left] - j[:, right]) * across).sum(-1)) / 2
        return np.maximum(spread + belly * 0.6, least * height)

    parts.append(Part("torso", "torso", look.colors["torso"], j[:, NECK], j[:, MID_HIP] + 0.01 * height * spine,
                      half_width(R_SHOULDER, L_SHOULDER, 0.08), half_width(R_HIP, L_HIP, 0.07) + 0.4 * belly,
                      0.03 * height))
    if look.badge is not None:
        chest = j[:, NECK] + 0.4 * (j[:, MID_HIP] - j[:, NECK])
        capsule("badge", chest, chest, 0.045 * height, color=look.badge)
    if look.hair_style == "bun":
        ellipse("hair", centre + 1.1 * radius * up, 0.4 * radius, 0.4 * radius)
    if look.hair_style != "bald":
        ellipse("hair", centre + 0.12 * radius * up, 0.98 * radius, 0.98 * radius)
        ellipse("face", centre - 0.18 * radius * up, 0.86 * radius, 0.8 * radius)
    else:
        ellipse("face", centre, 0.9 * radius, 0.98 * radius)
    eyes = face.eyes if face is not None else np.ones(frames)
    mouth = face.mouth if face is not None else np.zeros(frames)
    for eye in (R_EYE, L_EYE):
        ellipse("eyes", j[:, eye], 0.14 * radius, (0.03 + 0.13 * eyes) * radius, _unit(EYE_COLOR))
    ellipse("mouth", j[:, NOSE] - 0.5 * radius * up, 0.26 * radius, (0.06 + 0.22 * mouth) * radius, _unit(MOUTH_COLOR))
    for shoulder, elbow, wrist in ((R_SHOULDER, R_ELBOW, R_WRIST), (L_SHOULDER, L_ELBOW, L_WRIST)):
        hand = j[:, wrist] + 0.04 * height * _along(j[:, wrist] - j[:, elbow], (0.0, 1.0))
        capsule("hands", hand, hand, 1.05 * arm)
        capsule("forearms", j[:, elbow], j[:, wrist], 0.92 * arm, 0.85 * arm)
        capsule("upper arms", j[:, shoulder], j[:, elbow], 1.05 * arm, 0.98 * arm)
    return parts


def distance(part: Part, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance in pixels, [F, rows, columns]; x: [columns], y: [rows], or with a leading F."""
    def each(values) -> np.ndarray:
        return np.asarray(values, np.float32).reshape(-1, 1, 1)

    px = x.reshape(-1, 1, x.shape[-1]) - each(part.a[:, 0])
    py = y.reshape(-1, y.shape[-1], 1) - each(part.a[:, 1])
    dx, dy = each(part.b[:, 0] - part.a[:, 0]), each(part.b[:, 1] - part.a[:, 1])
    ra, rb = each(part.ra), each(part.rb)
    if part.kind == "ellipse":
        along = px * dx + py * dy
        across = px * dy - py * dx
        return (np.sqrt((across / ra) ** 2 + (along / rb) ** 2) - 1) * np.minimum(ra, rb)
    length2 = np.maximum(dx * dx + dy * dy, 1e-6)
    share = (px * dx + py * dy) / length2
    if part.kind == "torso":
        length = np.sqrt(length2)
        side = np.abs(px * dy - py * dx) / length
        inside = np.clip(share, 0, 1)
        out_side = side - (ra + inside * (rb - ra)) + part.round
        out_end = (np.abs(share - 0.5) - 0.5) * length
        outside = np.sqrt(np.maximum(out_side, 0) ** 2 + np.maximum(out_end, 0) ** 2)
        return outside + np.minimum(np.maximum(out_side, out_end), 0) - part.round
    share = np.clip(share, 0, 1)
    return np.sqrt((px - share * dx) ** 2 + (py - share * dy) ** 2) - (ra + share * (rb - ra))


def backdrop(look: Look, ground: float, rows: np.ndarray, columns: int) -> np.ndarray:
    """[rows, columns, 3]; the floor begins a little above the feet's ground (pixels)."""
    wall, floor = look.background
    share = np.clip(rows - (ground - 4) + 0.5, 0, 1)[:, None, None].astype(np.float32)
    return np.broadcast_to(wall + share * (floor - wall), (len(rows), columns, 3))


def paint(parts: list[Part], background: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """background: [rows, columns, 3] or with a leading F. Returns [F, rows, columns, 3] in 0..1."""
    frames = len(parts[0].a)
    picture = np.broadcast_to(background, (frames, *background.shape[-3:])).astype(np.float32)
    for part in parts:
        cover = np.clip(0.5 - distance(part, x, y), 0, 1)[..., None]
        picture += cover * (part.color.astype(np.float32) - picture)
    return picture


def label(parts: list[Part], x: np.ndarray, y: np.ndarray, depth: float = 0.0) -> np.ndarray:
    """[F, rows, columns]: the index in `parts` of what is on top, -1 where nothing is.

    depth: pixels nearer to the part's edge than that get -2, so that what is left is inside.
    """
    frames = len(parts[0].a)
    labels = np.full((frames, y.shape[-1], x.shape[-1]), -1)
    for index, part in enumerate(parts):
        far = distance(part, x, y)
        labels[far < depth] = -2
        labels[far < -depth] = index
    return labels


# ---------------------------------------------------------------------------------- faces

def random_face(rng: np.random.Generator, frames: int, fps: float) -> Face:
    """Talking in phases, and now and then a blink."""
    time = np.arange(frames) / fps + rng.uniform(0, 20)
    talk = np.clip(np.sin(2 * np.pi * rng.uniform(1.0, 2.2) * time) * 0.9, 0, 1)
    phase = np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * time + rng.uniform(0, 6)) > rng.uniform(-1.2, 0.8)
    blink = np.abs((time * rng.uniform(0.3, 0.7)) % 1.0 - 0.5) < 0.06
    return Face(talk * phase, 1.0 - blink)


def draw_face(rng: np.random.Generator, face: Face, size: int) -> np.ndarray:
    """[F, size, size, 3] in 0..1: a close-up of anybody's face (seldom the puppet's own) doing the same."""
    if rng.random() < 0.08:
        return np.zeros((len(face.mouth), size, size, 3), np.float32)  # no face was found
    skin, hair = _unit(SKINS[int(rng.integers(len(SKINS)))]), _unit(HAIRS[int(rng.integers(len(HAIRS)))])
    wall = _unit(BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))])
    frames = len(face.mouth)
    x = y = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    shift = rng.uniform(-0.1, 0.1, 2)
    up = np.array([0.0, -1.0])

    def at(px: float, py: float) -> np.ndarray:
        return np.tile(np.array([px, py]) + shift, (frames, 1))

    big = rng.uniform(0.75, 0.95)
    shapes = [("hair", hair, at(0, -0.1), 0.95 * big, 0.95 * big), ("face", skin, at(0, 0.05), 0.8 * big, 0.9 * big)]
    for side in (-1, 1):
        shapes.append(("eyes", _unit(EYE_COLOR), at(side * 0.32 * big, -0.08), 0.13, 0.02 + 0.12 * face.eyes))
    shapes.append(("mouth", _unit(MOUTH_COLOR), at(0, 0.48 * big), 0.26, 0.05 + 0.2 * face.mouth))
    picture = np.broadcast_to(wall, (frames, size, size, 3)).astype(np.float32)
    for name, color, centre, across, along in shapes:
        part = Part(name, "ellipse", color, centre, centre + up, across, along)
        cover = np.clip(0.5 - distance(part, x, y) * size / 2, 0, 1)[..., None]
        picture += cover * (color - picture)
    return picture
