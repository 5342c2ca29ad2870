"""Synthetic clips with captions: the whole world the demo model knows.

A `Scene` is one or two flat shapes on a background; `caption` puts it into words, `render` draws
it, and `understand` reads a caption back into the `Scene` facts that a judge can check. Everything
is deterministic by seed. Coordinates are fractions of the shorter picture side, measured from the
centre, x to the right and y down.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

import numpy as np

FPS = 8
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond")
COLORS = {
    "red": (225, 35, 40),
    "orange": (250, 135, 25),
    "yellow": (250, 220, 40),
    "green": (40, 165, 70),
    "cyan": (50, 205, 215),
    "blue": (40, 80, 225),
    "purple": (130, 50, 175),
    "pink": (250, 130, 185),
}
# Each background is a function of the height alone: a list of (position, colour) stops.
BACKGROUNDS = {
    "white": ((0.0, (245, 245, 245)),),
    "black": ((0.0, (18, 18, 20)),),
    "gray": ((0.0, (128, 130, 134)),),
    "navy": ((0.0, (22, 30, 72)),),
    "beige": ((0.0, (236, 218, 184)),),
    "sky": ((0.0, (110, 170, 235)), (1.0, (232, 243, 252))),
    "sunset": ((0.0, (72, 52, 110)), (1.0, (242, 182, 140))),
    "meadow": ((0.0, (190, 222, 246)), (0.62, (205, 230, 248)), (0.66, (150, 196, 108)), (1.0, (120, 172, 88))),
}
MOTIONS = ("left", "right", "up", "down", "bounce", "spin", "grow", "shrink", "still")
PLACES = ("center", "left", "right", "top", "bottom")
RELATIONS = ("above", "below", "left of", "right of")
SIZES = {"small": (0.115, 0.13), "medium": (0.155, 0.185), "big": (0.215, 0.24)}

SHAPE_WORDS = {
    "circle": ("circle", "circle", "ball"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "diamond": ("diamond",),
}
COLOR_WORDS = {name: (name,) for name in COLORS} | {"purple": ("purple", "purple", "violet")}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("",), "big": ("big", "large", "huge")}
# Per motion: (finite form, participle). Each is used in captions as it stands.
MOTION_WORDS = {
    "left": (("moves left", "moving left"), ("moves to the left", "moving to the left"),
             ("slides to the left", "sliding to the left"), ("goes left", "going left")),
    "right": (("moves right", "moving right"), ("moves to the right", "moving to the right"),
              ("slides to the right", "sliding to the right"), ("goes right", "going right")),
    "up": (("moves up", "moving up"), ("rises", "rising"), ("floats up", "floating up"), ("goes up", "going up")),
    "down": (("moves down", "moving down"), ("falls", "falling"), ("sinks down", "sinking down"),
             ("goes down", "going down")),
    "bounce": (("bounces", "bouncing"), ("bounces up and down", "bouncing up and down"), ("jumps", "jumping")),
    "spin": (("spins", "spinning"), ("rotates", "rotating"), ("turns around", "turning around")),
    "grow": (("grows", "growing"), ("gets bigger", "getting bigger")),
    "shrink": (("shrinks", "shrinking"), ("gets smaller", "getting smaller")),
    "still": (("stands still", "standing still"), ("stays still", "staying still"), ("does not move", "not moving"),
              ("", "")),
}
BACKGROUND_WORDS = {
    "white": ("on a white background", "on white"),
    "black": ("on a black background", "on black"),
    "gray": ("on a gray background", "on a grey background"),
    "navy": ("on a navy background", "on navy"),
    "beige": ("on a beige background", "on beige"),
    "sky": ("in the sky", "against the sky"),
    "sunset": ("at sunset", "in front of a sunset"),
    "meadow": ("on a meadow", "over a meadow"),
}
PLACE_WORDS = {
    "center": ("", "", "in the center", "in the middle"),
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
}
RELATION_WORDS = {
    "above": ("above",),
    "below": ("below", "under"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
}
OPENINGS = ("a video of", "a cartoon of", "an animation of")
MOODS = ("happy", "nice", "cute", "bright")  # words that change nothing
# Object colours too near to a background to be told apart.
TOO_NEAR = {("sky", "cyan"), ("sky", "blue"), ("sunset", "orange"), ("sunset", "pink"), ("sunset", "purple"),
            ("meadow", "green"), ("navy", "blue"), ("navy", "purple"), ("beige", "yellow")}


@dataclass(frozen=True)
class Thing:
    """One object of a scene; `place` is where a lone object is (for its whole way, across it)."""

    shape: str
    color: str
    size: str = "medium"
    motion: str = "still"
    place: str = "center"


@dataclass(frozen=True)
class Scene:
    """What a caption says. `relation` is where the first of two things is, seen from the second."""

    things: tuple[Thing, ...]
    background: str
    relation: str | None = None
    seed: int = field(default=0, compare=False)


def held_out(thing: Thing) -> bool:
    """True for the tenth of all (colour, shape, motion) triples that training never shows."""
    return zlib.crc32(f"{thing.color} {thing.shape} {thing.motion}".encode()) % 10 == 0


def _places_for(motion: str) -> tuple[str, ...]:
    if motion in ("left", "right"):
        return ("center", "top", "bottom")
    if motion in ("up", "down", "bounce"):
        return ("center", "left", "right")
    return PLACES


def _pick(rng: np.random.Generator, options):
    return options[int(rng.integers(len(options)))]


def _colors_on(background: str) -> list[str]:
    return [color for color in COLORS if (background, color) not in TOO_NEAR]


def sample_scene(seed: int, want_held_out: bool = False) -> Scene:
    """A random scene whose first thing is a held-out combination or, by default, is not."""
    rng = np.random.default_rng((seed, 1))
    while True:
        background = _pick(rng, tuple(BACKGROUNDS))
        colors = _colors_on(background)
        if rng.random() < 0.25:
            scene = _sample_pair(rng, background, colors, seed)
        else:
            motion = _pick(rng, MOTIONS)
            place = _pick(rng, _places_for(motion)) if rng.random() < 0.5 else "center"
            size = "medium" if motion in ("grow", "shrink") or rng.random() < 0.5 else _pick(rng, tuple(SIZES))
            shapes = SHAPES[1:] if motion == "spin" else SHAPES  # a spinning circle looks still
            thing = Thing(_pick(rng, shapes), _pick(rng, colors), size, motion, place)
            scene = Scene((thing,), background, None, seed)
        if held_out(scene.things[0]) == want_held_out:
            return scene


def _sample_pair(rng: np.random.Generator, background: str, colors: list[str], seed: int) -> Scene:
    relation = _pick(rng, RELATIONS)
    moves = ("left", "right", "still", "spin") if relation in ("above", "below") else ("up", "down", "still", "spin")
    motion = _pick(rng, moves)
    first = Thing(_pick(rng, SHAPES[1:] if motion == "spin" else SHAPES), _pick(rng, colors), "medium", motion)
    second = Thing(_pick(rng, SHAPES), _pick(rng, [c for c in colors if c != first.color]))
    return Scene((first, second), background, relation, seed)


def caption(scene: Scene, seed: int) -> str:
    """One of many phrasings of a scene."""
    rng = np.random.default_rng((seed, 2))
    first = scene.things[0]
    finite, participle = _pick(rng, MOTION_WORDS[first.motion])
    where = _pick(rng, BACKGROUND_WORDS[scene.background])
    if scene.relation is None:
        rest = _pick(rng, PLACE_WORDS[first.place])
    else:
        rest = f"{_pick(rng, RELATION_WORDS[scene.relation])} {_noun(rng, scene.things[1])}"
    noun = _noun(rng, first)
    subject = f"{noun} {participle} {rest}"
    form = int(rng.integers(5))
    if form == 0:
        text = f"{noun} {finite} {rest} {where}" if finite else f"{subject} {where}"
    elif form == 1:
        text = f"{where}, {noun} {finite} {rest}" if finite else f"{where}, {subject}"
    elif form == 2:
        text = f"{_pick(rng, OPENINGS)} {subject} {where}"
    elif form == 3:
        text = f"{subject}, {where}"
    else:
        text = f"{subject} {where}"
    text = re.sub(r"\s+", " ", text).replace(" ,", ",").strip()
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:] + "."
    return text


def _noun(rng: np.random.Generator, thing: Thing) -> str:
    mood = _pick(rng, MOODS) if rng.random() < 0.2 else ""
    parts = (_pick(rng, SIZE_WORDS[thing.size]), mood, _pick(rng, COLOR_WORDS[thing.color]),
             _pick(rng, SHAPE_WORDS[thing.shape]))
    words = " ".join(part for part in parts if part)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _alternatives(table: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """word or phrase -> name, for the phrases of a table."""
    return {phrase: name for name, phrases in table.items() for phrase in phrases if phrase}


def understand(prompt: str) -> Scene | None:
    """The scene that a caption names, or None where it names no coloured shape and background.

    >>> understand("A red circle moves left above a blue square on white.").relation
    'above'
    """
    text = re.sub(r"[^a-z ]", " ", prompt.lower())
    text = re.sub(r"\s+", " ", text)
    shapes, colors, sizes = (_alternatives(t) for t in (SHAPE_WORDS, COLOR_WORDS, SIZE_WORDS))
    pattern = rf"(?:({'|'.join(sizes)}) )?(?:(?:{'|'.join(MOODS)}) )*({'|'.join(colors)}) ({'|'.join(shapes)})\b"
    nouns = re.findall(pattern, text)
    background = _find(text, _alternatives(BACKGROUND_WORDS))
    if not nouns or background is None:
        return None
    phrases = {p: name for name, forms in MOTION_WORDS.items() for pair in forms for p in pair if p}
    motion = _find(text, phrases) or "still"
    things = [Thing(shapes[s], colors[c], sizes.get(z, "medium")) for z, c, s in nouns[:2]]
    relation = None
    place = "center"
    if len(things) == 2:
        between = text[re.search(pattern, text).end():]
        relation = _find(between, _alternatives(RELATION_WORDS))
    else:
        place = _find(text, _alternatives(PLACE_WORDS)) or "center"
    first = Thing(things[0].shape, things[0].color, things[0].size, motion, place)
    return Scene((first, *things[1:]), background, relation)


def _find(text: str, phrases: dict[str, str]) -> str | None:
    """The name of the first phrase in the text, the longest of those that begin there."""
    longest_first = sorted(phrases, key=len, reverse=True)
    match = re.search(rf"\b({'|'.join(longest_first)})\b", text)
    return phrases[match[1]] if match else None


def vocabulary() -> list[str]:
    """Every word that a caption can have."""
    tables = (SHAPE_WORDS, COLOR_WORDS, SIZE_WORDS, BACKGROUND_WORDS, PLACE_WORDS, RELATION_WORDS)
    phrases = [p for table in tables for options in table.values() for p in options]
    phrases += [p for forms in MOTION_WORDS.values() for pair in forms for p in pair]
    return sorted({word for phrase in phrases + ["a", "an", *MOODS, *OPENINGS] for word in phrase.split()})


# ---------------------------------------------------------------------------------- drawing

def backdrop(background: str, height: int) -> np.ndarray:
    """[height, 3] in 0..1: the colour of each row."""
    stops = BACKGROUNDS[background]
    rows = (np.arange(height) + 0.5) / height
    channels = [np.interp(rows, [p for p, _ in stops], [c[i] for _, c in stops]) for i in range(3)]
    return (np.stack(channels, -1) / 255).astype(np.float32)


def distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (negative inside) to a shape of about unit radius; all have similar areas."""
    if shape == "circle":
        return np.hypot(x, y) - 0.95
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.85
    if shape == "triangle":
        return np.maximum(y - 0.75, 0.875 * np.abs(x) - 0.484 * (y + 1.15))
    if shape == "diamond":
        return (np.abs(x) / 0.78 + np.abs(y) / 1.25 - 1.0) * 0.66
    if shape == "star":
        angle = np.arctan2(x, -y)
        sector = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        radius = np.hypot(x, y)
        px, py = radius * np.sin(sector), radius * np.cos(sector)
        # The edge runs from the tip (0, 1.25) to the inner corner at 36 degrees, radius 0.62.
        return ((py - 1.25) * 0.364 + px * 0.748) / 0.832
    if shape == "heart":
        px, py = np.abs(x) / 1.7, 0.52 - y / 1.7
        lobe = np.hypot(px - 0.25, py - 0.75) - 0.3536
        half = 0.5 * np.maximum(px + py, 0)
        flank = np.minimum(np.hypot(px, py - 1), np.hypot(px - half, py - half)) * np.sign(px - py)
        return np.where(px + py > 1, lobe, flank) * 1.7
    raise ValueError(f"no shape is called {shape!r}")


def _track(thing: Thing, scene: Scene, index: int, frames: int, aspect: tuple[float, float], rng: np.random.Generator):
    """Per frame: centre x, centre y, radius, angle. aspect is (width, height) by the shorter side."""
    time = np.linspace(0.0, 1.0, frames) if frames > 1 else np.array([rng.random()])
    radius = np.full(frames, rng.uniform(*SIZES[thing.size]))
    if scene.relation is not None:
        radius *= 0.9
    jitter = rng.uniform(-0.03, 0.03, 2)
    offset = {"left": (-0.26, 0), "right": (0.26, 0), "top": (0, -0.26), "bottom": (0, 0.26)}.get(thing.place, (0, 0))
    if scene.relation is not None:
        side = 1 if index == 0 else -1
        offset = {"above": (0, -0.24), "below": (0, 0.24), "left of": (-0.24, 0), "right of": (0.24, 0)}[scene.relation]
        offset = (offset[0] * side, offset[1] * side)
    x = np.full(frames, jitter[0] + offset[0] * aspect[0])
    y = np.full(frames, jitter[1] + offset[1] * aspect[1])
    angle = np.zeros(frames)
    reach = [0.5 * side - 1.15 * radius.max() for side in aspect]
    x, y = (np.clip(v, -r, r) for v, r in zip((x, y), reach))
    way = rng.uniform(0.42, 0.52)
    if thing.motion in ("left", "right"):
        x = (time - 0.5) * min(way * aspect[0], 2 * reach[0]) * (1 if thing.motion == "right" else -1)
    elif thing.motion in ("up", "down"):
        y = (time - 0.5) * min(way * aspect[1], 2 * reach[1]) * (1 if thing.motion == "down" else -1)
    elif thing.motion == "bounce":
        height = min(0.4, 2 * reach[1])
        y = 0.5 * height - height * np.abs(np.sin(2 * np.pi * time))
    elif thing.motion == "spin":
        angle = 1.5 * np.pi * time
    elif thing.motion == "grow":
        radius = radius * (0.6 + 0.75 * time)
    elif thing.motion == "shrink":
        radius = radius * (1.35 - 0.75 * time)
    return x, y, radius, angle


def render(scene: Scene, frames: int = 17, height: int = 64, width: int = 64, only: slice = slice(None)) -> np.ndarray:
    """[frames, height, width, 3] float32 in 0..1, or those of the frames that `only` selects."""
    rng = np.random.default_rng((scene.seed, 3))
    short = min(height, width)
    aspect = (width / short, height / short)
    shown = len(range(frames)[only])
    video = np.broadcast_to(backdrop(scene.background, height)[None, :, None], (shown, height, width, 3)).copy()
    grid_x = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) / short
    grid_y = ((np.arange(height, dtype=np.float32) + 0.5) - height / 2) / short
    for index, thing in enumerate(scene.things):
        track = _track(thing, scene, index, frames, aspect, rng)
        cx, cy, radius, angle = (v[only].astype(np.float32)[:, None, None] for v in track)
        dx = (grid_x[None, None, :] - cx) / radius
        dy = (grid_y[None, :, None] - cy) / radius
        x = dx * np.cos(angle) + dy * np.sin(angle)
        y = dy * np.cos(angle) - dx * np.sin(angle)
        _paint(video, thing, x, y, radius * short)
    return video


def _paint(video: np.ndarray, thing: Thing, x: np.ndarray, y: np.ndarray, pixels: np.ndarray) -> None:
    """Draws a shape into the video; pixels is the size of one unit of x and y in pixels."""
    cover = np.clip(0.5 - distance(thing.shape, x, y) * pixels, 0.0, 1.0)[..., None]
    video += cover * (np.array(COLORS[thing.color], np.float32) / 255 - video)
