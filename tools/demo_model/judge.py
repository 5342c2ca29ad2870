"""Reads from frames alone what a video shows, and compares that with its prompt.

    python judge.py --videos DIR --prompts FILE.json [--report FILE.md]
    python judge.py --self-test 200

FILE.json is a list of prompts, or of {"prompt": ..., "video": name in DIR}. Without names, the
videos of DIR are taken in sorted order. A video is an MP4 file, a folder of PNG files, or a
.safetensors file with the key `video`, float32 [B, F, 3, H, W] in 0..1 (B videos in a row).

The reading is classical picture processing: the background is a function of the row, so each row's
colour is the median of its ends; what differs from it are the objects; their colour is a vote of
the pixels, their shape the best of rotated templates, their motion the track of their centres.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import data

DIFFERENCE = 0.13      # of a colour channel, from the background
MOVED = 0.13           # of the shorter side, over the clip
RESIZED = 1.35         # factor of the area, over the clip
BOUNCED = 0.16         # of the shorter side, top to bottom
TURNED = 0.045         # overlap lost by comparing with the upright shape and not with the best angle
OFF_CENTER = 0.12      # of the shorter side
GRID = 32              # samples across an object for comparing shapes
ANGLES = 24
FACTS = ("color", "shape", "motion", "place", "background", "count")


@dataclass
class Track:
    """One object over time: centres and areas per frame, its name-able properties."""

    centers: np.ndarray  # [F, 2], x and y from the picture's centre by the shorter side
    areas: np.ndarray    # [F], pixels
    color: str
    shape: str
    motion: str

    @property
    def place(self) -> str:
        x, y = self.centers.mean(0)
        if max(abs(x), abs(y)) < OFF_CENTER:
            return "center"
        if abs(x) > abs(y):
            return "left" if x < 0 else "right"
        return "top" if y < 0 else "bottom"


@dataclass
class Reading:
    background: str
    tracks: list[Track]


# ------------------------------------------------------------------------------- segmentation

def estimate_backdrop(video: np.ndarray) -> np.ndarray:
    """video: [F, H, W, 3]. Returns [H, 3]."""
    ends = np.concatenate((video[:, :, :3], video[:, :, -3:]), 2)
    return np.median(ends.transpose(1, 0, 2, 3).reshape(video.shape[1], -1, 3), axis=1)


def name_background(rows: np.ndarray) -> str:
    return min(data.BACKGROUNDS, key=lambda name: float(np.abs(rows - data.backdrop(name, len(rows))).mean()))


def _spread(values: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The greatest value of each 4-connected region of `allowed`, per frame."""
    values = np.where(allowed, values, 0)
    while True:
        wider = values.copy()
        np.maximum(wider[:, 1:], values[:, :-1], out=wider[:, 1:])
        np.maximum(wider[:, :-1], values[:, 1:], out=wider[:, :-1])
        np.maximum(wider[:, :, 1:], values[:, :, :-1], out=wider[:, :, 1:])
        np.maximum(wider[:, :, :-1], values[:, :, 1:], out=wider[:, :, :-1])
        wider *= allowed
        if np.array_equal(wider, values):
            return values
        values = wider


def segment(video: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[F, H, W] labels of the objects, 0 outside; holes are filled."""
    mask = np.abs(video - rows[None, :, None]).max(-1) > DIFFERENCE
    border = np.zeros(mask.shape, np.int32)
    border[:, (0, -1)] = 1
    border[:, :, (0, -1)] = 1
    solid = _spread(border, ~mask) == 0
    seeds = np.arange(1, solid[0].size + 1, dtype=np.int32).reshape(1, *solid.shape[1:])
    return _spread(np.broadcast_to(seeds, solid.shape), solid)


def find_blobs(labels: np.ndarray) -> list[np.ndarray]:
    """The masks of one frame's objects, the largest first, without specks."""
    names, sizes = np.unique(labels[labels > 0], return_counts=True)
    if not len(sizes):
        return []
    least = max(12.0, 0.2 * sizes.max(), 0.004 * labels.size)
    order = [i for i in np.argsort(-sizes) if sizes[i] >= least]
    return [labels == names[i] for i in order]


# ------------------------------------------------------------------------ reading of one object

def _center(mask: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(mask)
    height, width = mask.shape
    return np.array((xs.mean() + 0.5 - width / 2, ys.mean() + 0.5 - height / 2)) / min(height, width)


def _sample(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture on a GRID x GRID raster around the mask's centre, scaled by the mask's area."""
    ys, xs = np.nonzero(mask)
    steps = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    reach = 1.75 * np.sqrt(mask.sum() / np.pi)
    x = np.clip(np.rint(xs.mean() + steps * reach), 0, mask.shape[1] - 1).astype(int)
    y = np.clip(np.rint(ys.mean() + steps * reach), 0, mask.shape[0] - 1).astype(int)
    return picture[y[:, None], x[None, :]]


@cache
def _templates() -> np.ndarray:
    """[shapes * ANGLES, GRID * GRID] masks of all shapes at all angles, scaled as `_sample` scales."""
    side = 240
    axis = ((np.arange(side) + 0.5) / side * 2 - 1) * 1.7
    rasters = []
    for shape in data.SHAPES:
        for angle in np.arange(ANGLES) * 2 * np.pi / ANGLES:
            x = axis[None] * np.cos(angle) + axis[:, None] * np.sin(angle)
            y = axis[:, None] * np.cos(angle) - axis[None] * np.sin(angle)
            mask = data.distance(shape, x, y) < 0
            rasters.append(_sample(mask, mask).ravel())
    return np.stack(rasters).astype(np.float32)


def shape_scores(mask: np.ndarray) -> np.ndarray:
    """[shapes, ANGLES]: intersection over union with each shape at each angle, the first one upright."""
    templates = _templates()
    raster = _sample(mask, mask).ravel().astype(np.float32)
    both = templates @ raster
    return (both / (templates.sum(1) + raster.sum() - both)).reshape(len(data.SHAPES), ANGLES)


def color_votes(frame: np.ndarray, mask: np.ndarray) -> Counter:
    """Pixels near enough to a palette colour vote for it; blurred edges are near to none."""
    palette = np.array(list(data.COLORS.values()), np.float32) / 255
    distances = np.linalg.norm(frame[mask][:, None] - palette, axis=-1)
    nearest = distances.argmin(1)[distances.min(1) < 0.22]
    return Counter(np.array(list(data.COLORS))[nearest].tolist())


def name_motion(centers: np.ndarray, areas: np.ndarray, scores: np.ndarray) -> str:
    """scores: [F, ANGLES], the frames' overlap with the object's own shape at each angle."""
    ends = max(1, len(centers) // 8)
    way = centers[-ends:].mean(0) - centers[:ends].mean(0)
    if np.abs(way).max() > MOVED:
        horizontal = abs(way[0]) > abs(way[1])
        return ("left", "right")[int(way[0] > 0)] if horizontal else ("up", "down")[int(way[1] > 0)]
    growth = areas[-ends:].mean() / areas[:ends].mean()
    if max(growth, 1 / growth) > RESIZED:
        return "grow" if growth > 1 else "shrink"
    if np.ptp(centers[:, 1]) > BOUNCED:
        return "bounce"
    lost = scores.max(1) - scores[:, 0]
    return "spin" if np.percentile(lost, 75) > TURNED else "still"


def read(video: np.ndarray) -> Reading:
    """video: [F, H, W, 3] in 0..1. At most two objects are followed, from the frames that show them."""
    video = video.astype(np.float32)
    rows = estimate_backdrop(video)
    blobs = [find_blobs(labels) for labels in segment(video, rows)]
    shown = [b for b in blobs if b]
    if len(shown) < max(1, len(video) // 2):
        return Reading(name_background(rows), [])
    count = min(2, int(np.median([len(b) for b in shown])))
    tracks: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(count)]
    for index, masks in enumerate(blobs):
        if len(masks) < count:
            continue
        masks = list(masks[:count])
        if tracks[0] and count == 2:
            last = _center(tracks[0][-1][1])
            masks.sort(key=lambda m: float(np.linalg.norm(_center(m) - last)))
        for track, mask in zip(tracks, masks):
            track.append((index, mask))
    return Reading(name_background(rows), [_describe(video, track) for track in tracks])


def _describe(video: np.ndarray, track: list[tuple[int, np.ndarray]]) -> Track:
    centers = np.stack([_center(mask) for _, mask in track])
    areas = np.array([mask.sum() for _, mask in track], float)
    votes: Counter = Counter()
    for index, mask in track:
        votes.update(color_votes(video[index], mask))
    scores = np.stack([shape_scores(mask) for _, mask in track])
    shape = int(scores.max(2).mean(0).argmax())
    color = votes.most_common(1)[0][0] if votes else "none"
    return Track(centers, areas, color, data.SHAPES[shape], name_motion(centers, areas, scores[:, shape]))


# --------------------------------------------------------------------------------- comparing

def relation_holds(relation: str, first: Track, second: Track) -> bool:
    x, y = first.centers.mean(0) - second.centers.mean(0)
    return {"above": y < -abs(x) / 2, "below": y > abs(x) / 2,
            "left of": x < -abs(y) / 2, "right of": x > abs(y) / 2}[relation]


def order_tracks(scene: data.Scene, tracks: list[Track]) -> list[Track]:
    """The tracks in the order of the scene's things: of the two ways, that with more right."""
    if len(scene.things) != 2 or len(tracks) != 2:
        return tracks
    def hits(order: list[Track]) -> int:
        pairs = zip(scene.things, order)
        return sum((t.color == s.color) * 2 + (t.shape == s.shape) + (t.motion == s.motion) for t, s in pairs)
    return max((tracks, tracks[::-1]), key=hits)


def compare(scene: data.Scene, reading: Reading) -> dict[str, bool]:
    """Which facts of the prompt the video shows; color, shape and motion must hold for every thing."""
    result = {"background": reading.background == scene.background, "count": len(reading.tracks) == len(scene.things)}
    tracks = order_tracks(scene, reading.tracks)
    pairs = list(zip(scene.things, tracks))
    for fact in ("color", "shape", "motion"):
        result[fact] = len(tracks) >= len(scene.things) and all(getattr(a, fact) == getattr(b, fact) for a, b in pairs)
    result["place"] = bool(tracks) and _right_place(scene, tracks)
    return {fact: result[fact] for fact in FACTS}


def _right_place(scene: data.Scene, tracks: list[Track]) -> bool:
    if scene.relation is not None:
        return len(tracks) == 2 and relation_holds(scene.relation, *tracks)
    thing, track = scene.things[0], tracks[0]
    centers = track.centers.copy()
    if thing.motion in ("left", "right"):
        centers[:, 0] = 0
    elif thing.motion in ("up", "down", "bounce"):
        centers[:, 1] = 0
    still = Track(centers, track.areas, track.color, track.shape, track.motion)
    return still.place == thing.place


class Score:
    """Sums of comparisons, and who was taken for whom."""

    def __init__(self) -> None:
        self.results: list[dict[str, bool]] = []
        self.confusion = {fact: Counter() for fact in ("color", "shape", "motion", "background")}
        self.failures: list[str] = []

    def add(self, prompt: str, scene: data.Scene, reading: Reading) -> None:
        result = compare(scene, reading)
        self.results.append(result)
        tracks = order_tracks(scene, reading.tracks)
        for fact in ("color", "shape", "motion"):
            for index, thing in enumerate(scene.things):
                seen = getattr(tracks[index], fact) if index < len(tracks) else "none"
                self.confusion[fact][getattr(thing, fact), seen] += 1
        self.confusion["background"][scene.background, reading.background] += 1
        wrong = [fact for fact, right in result.items() if not right]
        if wrong:
            seen = "; ".join(f"{t.color} {t.shape} {t.motion} {t.place}" for t in tracks)
            self.failures.append(f"{prompt} -> {seen} on {reading.background} (wrong: {', '.join(wrong)})")

    def rate(self, fact: str) -> float:
        return float(np.mean([r[fact] for r in self.results]))

    def report(self) -> str:
        lines = [f"{len(self.results)} videos", "", "| fact | right |", "| --- | --- |"]
        lines += [f"| {fact} | {100 * self.rate(fact):.1f} % |" for fact in FACTS]
        everything = np.mean([all(r.values()) for r in self.results])
        lines += [f"| all at once | {100 * everything:.1f} % |"]
        for fact, counts in self.confusion.items():
            lines += ["", f"### {fact}: asked (rows), seen (columns)", "", *_table(counts)]
        return "\n".join(lines) + "\n"


def _table(counts: Counter) -> list[str]:
    asked = sorted({a for a, _ in counts})
    seen = sorted({s for _, s in counts} | set(asked))
    lines = [f"| | {' | '.join(seen)} |", "| --- |" + " --- |" * len(seen)]
    return lines + [f"| {a} | " + " | ".join(str(counts[a, s] or "") for s in seen) + " |" for a in asked]


# ------------------------------------------------------------------------------------- input

def load_videos(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, [F, H, W, 3] in 0..1) for every video of a folder, in sorted order."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and any(path.glob("*.png")):
            from PIL import Image

            frames = [np.asarray(Image.open(file).convert("RGB")) for file in sorted(path.glob("*.png"))]
            yield path.name, np.stack(frames) / 255
        elif path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            for index, video in enumerate(load_file(path)["video"]):
                yield f"{path.name}#{index}" if index else path.name, video.transpose(0, 2, 3, 1)
        elif path.suffix == ".mp4":
            import imageio.v3

            yield path.name, imageio.v3.imread(path) / 255


def judge_folder(folder: Path, prompts_file: Path) -> Score:
    entries = json.loads(prompts_file.read_text())
    videos = dict(load_videos(folder))
    names = list(videos)
    score = Score()
    for index, entry in enumerate(entries):
        prompt = entry if isinstance(entry, str) else entry["prompt"]
        name = names[index] if isinstance(entry, str) or "video" not in entry else entry["video"]
        scene = data.understand(prompt)
        if scene is None:
            raise SystemExit(f"prompt {index} names no coloured shape on a known background: {prompt!r}")
        score.add(prompt, scene, read(videos[name]))
    return score


def self_test(clips: int, size: int = 64) -> tuple[Score, Score]:
    """The judge on drawn clips, with their own captions and with each other's."""
    scenes = [data.sample_scene(seed) for seed in range(20_000_000, 20_000_000 + clips)]
    prompts = [data.caption(scene, scene.seed) for scene in scenes]
    own, shuffled = Score(), Score()
    for index, scene in enumerate(scenes):
        reading = read(data.render(scene, 17, size, size))
        own.add(prompts[index], scene, reading)
        other = prompts[(index + 1) % clips]
        shuffled.add(other, data.understand(other), reading)
    return own, shuffled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--report", type=Path, help="also write the tables to this Markdown file")
    parser.add_argument("--self-test", type=int, metavar="CLIPS")
    args = parser.parse_args()
    if args.self_test:
        own, shuffled = self_test(args.self_test)
        text = f"Drawn clips with their captions: {own.report()}\nWith others' captions: {shuffled.report()}"
        print("\n".join(own.failures))
    elif args.videos and args.prompts:
        score = judge_folder(args.videos, args.prompts)
        text = score.report()
        print("\n".join(score.failures))
    else:
        parser.error("give --videos and --prompts, or --self-test")
    print(text)
    if args.report:
        args.report.write_text(text)


if __name__ == "__main__":
    main()
