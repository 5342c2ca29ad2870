"""Writes tests/golden/metrics.json: PSNR and SSIM by scikit-image and LPIPS by its authors' package, of pictures
and parameters that the test makes again.

    python tools/oracle/metrics_golden.py

Needs scikit-image, torch, and lpips with torchvision. AlexNet's parameters are random.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import lpips
import numpy
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

OUT = Path(__file__).parents[2] / "tests/golden/metrics.json"
SIZES = ((64, 48), (31, 40), (11, 13))


def pictures(width: int, height: int) -> dict[str, numpy.ndarray]:
    """[H, W, 3] float32 in 0..1 by name."""
    y, x, c = numpy.mgrid[0:height, 0:width, 0:3]
    slope = (x * 255 // width + y * 255 // height + c * 40) // 3
    texture = (x * 7 + y * 13 + c * 50 + x * y // 3) % 256
    noisy = numpy.clip(slope + (x * 31 + y * 17 + c * 11) % 41 - 20, 0, 255)
    named = {"slope": slope, "texture": texture, "noisy": noisy, "inverse": 255 - texture, "flat": slope * 0 + 77}
    return {name: (levels / 255).astype(numpy.float32) for name, levels in named.items()}


def make_lpips() -> lpips.LPIPS:
    model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.state_dict().items():
        if not name.startswith(("net.", "lin")) or name.startswith("lins."):
            continue
        values = torch.randn(parameter.shape, generator=generator)
        if name.startswith("lin"):
            values = values.abs()
        else:
            values *= 0.1 if name.endswith("bias") else math.sqrt(2 / parameter[0].numel())
        parameter.copy_(values)
    return model


def main() -> None:
    model = make_lpips()
    weights = numpy.array([0.299, 0.587, 0.114])
    rows = []
    for width, height in SIZES:
        made = pictures(width, height)
        for a, b in (("slope", "noisy"), ("texture", "inverse"), ("noisy", "texture"), ("flat", "slope")):
            first, second = made[a], made[b]
            row = {"width": width, "height": height, "a": a, "b": b,
                   "psnr": peak_signal_noise_ratio(first, second, data_range=1),
                   "ssim": structural_similarity(first.astype(float) @ weights, second.astype(float) @ weights,
                                                 gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                                 data_range=1)}
            if min(width, height) >= 31:
                tensors = [torch.from_numpy(p).permute(2, 0, 1)[None] for p in (first, second)]
                with torch.no_grad():
                    row["lpips"] = model(*tensors, normalize=True).item()
            rows.append(row)
    OUT.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
