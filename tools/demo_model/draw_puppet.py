"""Draws a puppet that no training clip has, standing upright: a picture for --image.

    python draw_puppet.py --output ../../examples/puppet.png

SEED picks looks and bones as in `puppet_clips.make_scene`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

import puppet_clips

SEED, SIZE = 90_000_021, 256  # of examples/puppet.png


def draw(seed: int, size: int) -> np.ndarray:
    """[size, size, 3] uint8: the reference picture, drawn with finer pixels."""
    still = puppet_clips.make_scene(seed, 1, want_held_out=True).reference
    zoom = size / puppet_clips.SIZE
    finer = replace(still, joints=still.joints * zoom, height=still.height * zoom, ground=still.ground * zoom,
                    size=(size, size))
    return (finer.draw()[0] * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--size", type=int, default=SIZE, help="pixels of a side")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()

    from PIL import Image

    args.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(args.seed, args.size)).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
