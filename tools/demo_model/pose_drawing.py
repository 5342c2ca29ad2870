"""Draws poses as `zoetrope preprocess` does (src/preprocess/pose_drawing.cpp), pixel for pixel.

Points are [n, 3]: x, y in pixels (the first pixel's centre at 0, 0) and a score; those below
DRAWN_SCORE are left out. Only numpy. Limbs that cross the picture's border may differ there by a
pixel; pictures whose shorter side is 1000 or more (hands of several pixels) are not supported.
"""

from __future__ import annotations

import functools
import math

import numpy as np

BODY_POINTS, HAND_POINTS = 20, 21
(NOSE, NECK, R_SHOULDER, R_ELBOW, R_WRIST, L_SHOULDER, L_ELBOW, L_WRIST, R_HIP, R_KNEE, R_ANKLE, L_HIP, L_KNEE, L_ANKLE,
 R_EYE, L_EYE, R_EAR, L_EAR, L_TOE, R_TOE) = range(BODY_POINTS)
LIMBS = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
         (0, 14), (14, 16), (0, 15), (15, 17), (13, 18), (10, 19))
COLORS = ((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
          (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
          (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85), (200, 200, 0), (100, 100, 0))
LIMB_BRIGHTNESS = 0.6
DRAWN_SCORE = 0.5
BONES_PER_FINGER = 4
HAND_JOINT = (0, 0, 255)
ONE, HALF = 1 << 16, 1 << 15  # coordinates between pixels have 16 binary places

Pixels = tuple[np.ndarray, np.ndarray]  # rows, columns


def _as_pixels(points: set[tuple[int, int]]) -> Pixels:
    """points: (x, y)."""
    ordered = sorted(points)
    return np.array([y for _, y in ordered], int), np.array([x for x, _ in ordered], int)


def _thin_line(ax: int, ay: int, bx: int, by: int) -> list[tuple[int, int]]:
    """Bresenham's line, from left to right."""
    if bx < ax:
        ax, ay, bx, by = bx, by, ax, ay
    dx, dy, down = bx - ax, abs(by - ay), -1 if by < ay else 1
    steep = dy > dx
    longer, shorter = (dy, dx) if steep else (dx, dy)
    error = longer - 2 * shorter
    points = []
    for _ in range(longer + 1):
        points.append((ax, ay))
        aside = error < 0
        error += (2 * longer if aside else 0) - 2 * shorter
        if steep or aside:
            ay += down
        if not steep or aside:
            ax += 1
    return points


def _fill_convex(corners: list[tuple[int, int]]) -> set[tuple[int, int]]:
    count = len(corners)
    points = {p for i in range(count) for p in _thin_line(*corners[i - 1], *corners[i])}
    if count < 3:
        return points
    rows = [y for _, y in corners]
    top, bottom = min(rows), max(rows)
    topmost = rows.index(top)
    edges_left = count
    # The edges of both sides on the way down: corner, direction, row at which it ends, x, step of x per row.
    sides = [[topmost, 1, top, -ONE, 0], [topmost, -1, top, -ONE, 0]]
    for y in range(top, bottom + 1):
        for side in sides:
            if y < side[2]:
                continue
            start = side[0]
            while edges_left > 0:
                edges_left -= 1
                end = (start + side[1]) % count
                if corners[end][1] > y:
                    height = corners[end][1] - y
                    twice = (corners[end][0] - corners[start][0]) * ONE * 2 + height
                    step = abs(twice) // (2 * height) * (1 if twice >= 0 else -1)
                    side[:] = [end, side[1], corners[end][1], corners[start][0] * ONE, step]
                    break
                start = end
        left, right = sorted((sides[0][3], sides[1][3]))
        points.update((x, y) for x in range((left + HALF) >> 16, ((right + HALF) >> 16) + 1))
        for side in sides:
            side[3] += side[4]
    return points


def _table_sine(degrees: int) -> float:
    return float(np.float32(round(math.sin(math.radians(degrees)) * 1e7) / 1e7))


SINES = [_table_sine(degrees) for degrees in range(451)]


@functools.lru_cache(100_000)
def _ellipse(half_length: int, half_width: int, angle: int, odd_x: int, odd_y: int) -> Pixels:
    """A filled ellipse around (odd_x, odd_y): halves round to even, so where the centre is matters."""
    cosine, sine = SINES[450 - angle], SINES[angle]
    outline: list[tuple[int, int]] = []
    for degrees in range(361):
        x, y = half_length * SINES[450 - degrees], half_width * SINES[degrees]
        pixel = (round(odd_x + x * cosine - y * sine), round(odd_y + x * sine + y * cosine))
        if not outline or outline[-1] != pixel:
            outline.append(pixel)
    return _as_pixels(_fill_convex(outline if len(outline) > 1 else outline * 2))


@functools.lru_cache(100_000)
def _line(dx: int, dy: int) -> Pixels:
    return _as_pixels(set(_thin_line(0, 0, dx, dy)))


@functools.lru_cache(16)
def _disc(radius: int) -> Pixels:
    """The midpoint circle."""
    points: set[tuple[int, int]] = set()
    error, dx, dy, shrink = 0, radius, 0, 2 * radius - 1
    while dx >= dy:
        for reach, height in ((dx, dy), (dy, dx)):
            points.update((x, y) for y in (-height, height) for x in range(-reach, reach + 1))
        error += 2 * dy + 1
        if error > 0:
            error -= shrink
            dx -= 1
            shrink -= 2
        dy += 1
    return _as_pixels(points)


def _paint(picture: np.ndarray, pixels: Pixels, x: int, y: int, color: tuple[int, ...]) -> None:
    rows, columns = pixels[0] + y, pixels[1] + x
    inside = (rows >= 0) & (rows < picture.shape[0]) & (columns >= 0) & (columns < picture.shape[1])
    picture[rows[inside], columns[inside]] = color


def _hue(share: float) -> tuple[int, int, int]:
    sixth = int(share * 6)
    part = share * 6 - sixth
    falling, rising = round((1 - part) * 255), round((1 - (1 - part)) * 255)
    return [(255, rising, 0), (falling, 255, 0), (0, 255, rising), (0, falling, 255), (rising, 0, 255),
            (255, 0, falling)][sixth % 6]


def _draw_limb(picture: np.ndarray, a: np.ndarray, b: np.ndarray, color: tuple[int, ...], half_width: int) -> None:
    ax, ay, bx, by = float(a[0]), float(a[1]), float(b[0]), float(b[1])
    x, y = int((ax + bx) / 2), int((ay + by) / 2)
    angle = int(math.degrees(math.atan2(ay - by, ax - bx))) % 360
    half_length = int(math.hypot(ay - by, ax - bx) / 2)
    pixels = _ellipse(half_length, half_width, angle, x & 1, y & 1)
    _paint(picture, pixels, x - (x & 1), y - (y & 1), tuple(int(c * LIMB_BRIGHTNESS) for c in color))


def _draw_hand(picture: np.ndarray, hand: np.ndarray) -> None:
    pixels = hand[:, :2].astype(int)
    seen = (hand[:, 2] >= DRAWN_SCORE) & (pixels > 0).all(1)
    bones = HAND_POINTS - 1
    for bone in range(bones):
        start, end = 0 if bone % BONES_PER_FINGER == 0 else bone, bone + 1
        if seen[start] and seen[end]:
            (x, y), (dx, dy) = pixels[start], pixels[end] - pixels[start]
            _paint(picture, _line(int(dx), int(dy)), x, y, _hue(bone / bones))
    for x, y in pixels[seen]:
        _paint(picture, _disc(1), x, y, HAND_JOINT)


def draw_pose(picture: np.ndarray, body: np.ndarray, left_hand: np.ndarray | None = None,
              right_hand: np.ndarray | None = None) -> None:
    """Draws on picture ([height, width, 3] uint8)."""
    short = min(picture.shape[:2])
    if short >= 1000:
        raise ValueError(f"the picture's shorter side is {short} pixels: below 1000 is supported")
    width = max(short // 200 - 1, 1)
    seen = body[:, 2] >= DRAWN_SCORE
    for (start, end), color in zip(LIMBS, COLORS):
        if seen[start] and seen[end]:
            _draw_limb(picture, body[start], body[end], color, width)
    for point, color in zip(body[seen], np.array(COLORS)[seen]):
        _paint(picture, _disc(width), int(point[0]), int(point[1]), tuple(color))
    for hand in (left_hand, right_hand):
        if hand is not None:
            _draw_hand(picture, hand)


def draw_poses(bodies: np.ndarray, hands: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """bodies: [F, 20, 3], hands: [F, 2, 21, 3], left first. Returns [F, height, width, 3] uint8."""
    video = np.zeros((len(bodies), height, width, 3), np.uint8)
    for index, picture in enumerate(video):
        draw_pose(picture, bodies[index], *(hands[index] if hands is not None else ()))
    return video


def as_video_file(video: np.ndarray) -> np.ndarray:
    """What colours at half the resolution (yuv420p, as in video files) leave of a video [F, H, W, 3] uint8."""
    rgb = video.astype(np.float32)
    luma = rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)  # BT.709
    chroma = rgb - luma[..., None]
    frames, height, width, _ = video.shape
    halved = chroma.reshape(frames, height // 2, 2, width // 2, 2, 3).mean((2, 4))
    full = halved.repeat(2, 1).repeat(2, 2)
    return np.clip(luma[..., None] + full + 0.5, 0, 255).astype(np.uint8)
