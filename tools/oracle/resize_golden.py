"""Writes tests/golden/media/resize.json: CRC-32 of what Pillow's Image.resize makes of generated pictures.

    python tools/oracle/resize_golden.py

Needs Pillow 13 and numpy. Pixels are a hash of their position, which the test computes too.
"""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

import numpy
from PIL import Image

OUT = Path(__file__).parents[2] / "tests/golden/media/resize.json"
EDGES = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144]
LARGE = [(1920, 1080, 832, 480), (640, 360, 1280, 720), (333, 1000, 224, 672), (50, 2000, 400, 9)]


def picture(width: int, height: int, seed: int, contrast: bool) -> Image.Image:
    """Noise, or only black and white, which drives the filters beyond both ends."""
    n = (numpy.arange(width * height * 3, dtype=numpy.uint64) + seed) * 2654435761 % 2**32
    n ^= n >> 15
    n = n * 2246822519 % 2**32
    n ^= n >> 13
    values = ((n & 1) * 255 if contrast else n & 255).astype(numpy.uint8)
    return Image.fromarray(values.reshape(height, width, 3))


def main() -> None:
    rng = random.Random(8)
    sizes = [tuple(rng.choice(EDGES) + rng.randint(0, 4) for _ in range(4)) for _ in range(400)]
    sizes += [(w, h, w, rng.randint(1, 90)) for w, h in ((9, 7), (64, 48))]
    sizes += [(w, h, rng.randint(1, 90), h) for w, h in ((9, 7), (64, 48))]
    cases = []
    for index, size in enumerate(sizes + LARGE):
        filters = range(6) if size in LARGE else [index % 6]
        for number in filters:
            contrast = index % 3 == 0
            resized = picture(size[0], size[1], index, contrast).resize(size[2:], Image.Resampling(number))
            cases.append([*size, number, index, int(contrast), zlib.crc32(resized.tobytes())])
    rows = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(f'{{"columns": "width, height, to width, to height, filter, seed, contrast, crc32", "cases": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
