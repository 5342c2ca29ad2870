"""Writes tests/golden/media/pictures: small picture files of many kinds, the CRC-32 of the pixels that Diffusers'
load_image (Pillow) gives for each, and smaller ones as seeds for tests/fuzz.

    python tools/oracle/picture_golden.py

Needs Pillow with WebP, and numpy.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy
from PIL import Image, ImageOps, PngImagePlugin

ROOT = Path(__file__).parents[2]
OUT = ROOT / "tests/golden/media/pictures"
SEEDS = ROOT / "tests/fuzz/corpus/picture"
ORIENTATION = 0x112
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def scene(width: int, height: int) -> Image.Image:
    """Slopes, edges and noise in all channels."""
    y, x = numpy.mgrid[0:height, 0:width]
    noise = numpy.random.default_rng(1).integers(0, 60, (height, width, 3))
    planes = numpy.stack([x * 255 // width, y * 255 // height, (x * 3 ^ y * 5) % 256], axis=-1)
    planes[height // 4 : height // 2, width // 3 : width // 2] = (250, 10, 30)
    return Image.fromarray(numpy.clip(planes + noise - 30, 0, 255).astype(numpy.uint8))


def png(samples: numpy.ndarray, depth: int, color: int, interlaced: bool = False, palette: bytes = b"") -> bytes:
    """samples: [height, width, channels]"""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def rows(part: numpy.ndarray) -> bytes:
        out = b""
        for row in part.reshape(part.shape[0], -1) if part.size else ():
            bits = "".join(f"{value:0{depth}b}" for value in row)
            bits += "0" * (-len(bits) % 8)
            out += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
        return out

    height, width = samples.shape[:2]
    passes = [samples[y0::dy, x0::dx] for x0, y0, dx, dy in ADAM7] if interlaced else [samples]
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))
            + (chunk(b"PLTE", palette) if palette else b"") + chunk(b"IDAT", zlib.compress(b"".join(map(rows, passes)), 9))
            + chunk(b"IEND", b""))


def bmp(rows: bytes, width: int, height: int, bits: int, masks: tuple[int, ...] = (), palette: bytes = b"") -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 3 if masks else 0, 0, 0, 0, len(palette) // 4, 0)
    head += struct.pack(f"<{len(masks)}I", *masks) + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(rows), 0, 0, 14 + len(head)) + head + rows


def write_pngs(out: Path, image: Image.Image) -> None:
    width, height = image.size
    alpha = Image.linear_gradient("L").resize(image.size)
    grey = image.convert("L")
    image.save(out / "rgb.png")
    Image.merge("RGBA", (*image.split(), alpha)).save(out / "rgba.png")
    grey.save(out / "grey.png")
    Image.merge("LA", (grey, alpha)).save(out / "grey_alpha.png")
    grey.convert("1").save(out / "grey_1.png")
    colors = image.quantize(200)
    colors.save(out / "palette.png", transparency=5)
    image.quantize(13).save(out / "palette_4.png", bits=4)
    levels = numpy.asarray(grey, dtype=numpy.int64)[..., None]
    wide = numpy.asarray(image, dtype=numpy.int64) * 257 - 3
    (out / "grey_2.png").write_bytes(png(levels >> 6, 2, 0))
    (out / "grey_4_interlaced.png").write_bytes(png(levels >> 4, 4, 0, interlaced=True))
    (out / "rgb_interlaced.png").write_bytes(png(numpy.asarray(image), 8, 2, interlaced=True))
    small = slice(0, 20)
    (out / "rgb_16.png").write_bytes(png(numpy.clip(wide[small], 0, 65535), 16, 2))
    (out / "grey_alpha_16.png").write_bytes(png(numpy.clip(wide[small, :, :2], 0, 65535), 16, 4))
    (out / "palette_short.png").write_bytes(png(levels[small] >> 4, 8, 3, palette=bytes(range(30))))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image.save(out / "turned_exif.png", exif=exif)
    xmp = '<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    for name, key, compressed in (("xmp", "XML:com.adobe.xmp", False), ("profile", "Raw profile type exif", True)):
        text = PngImagePlugin.PngInfo()
        if name == "xmp":
            text.add_itxt(key, xmp)
        else:
            text.add_text(key, f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n", zip=compressed)
        image.resize((24, 16)).save(out / f"turned_{name}.png", pnginfo=text)


def write_jpegs(out: Path, image: Image.Image) -> None:
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        image.save(out / f"{name}.jpg", quality=85, subsampling=subsampling)
    image.save(out / "411.jpg", quality=60, subsampling="4:1:1")
    image.save(out / "progressive.jpg", quality=70, progressive=True)
    image.save(out / "restarts.jpg", quality=70, restart_marker_blocks=3)
    image.save(out / "rgb.jpg", quality=70, keep_rgb=True)
    image.convert("L").save(out / "grey.jpg", quality=75)
    image.convert("CMYK").save(out / "cmyk.jpg", quality=75)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        image.save(out / f"turned_{orientation}.jpg", quality=60, exif=exif)
    image.save(out / "turned_xmp.jpg", quality=50, xmp=b"<rdf:Description><tiff:Orientation>3</tiff:Orientation></rdf:Description>")
    big_endian = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHI4s", 0x10F, 2, 4, b"abc\0")
    image.save(out / "turned_long.jpg", quality=50, exif=big_endian + struct.pack(">HHII", ORIENTATION, 4, 1, 5) + b"\0\0\0\0")


def write_webps(out: Path, image: Image.Image) -> None:
    alpha = Image.linear_gradient("L").resize(image.size)
    both = Image.merge("RGBA", (*image.split(), alpha))
    image.save(out / "lossy.webp", quality=70)
    image.save(out / "lossless.webp", lossless=True)
    both.save(out / "lossy_alpha.webp", quality=60)
    both.save(out / "lossless_alpha.webp", lossless=True, exact=False)
    image.save(out / "animated.webp", save_all=True, append_images=[image.rotate(90)], quality=40)
    exif = Image.Exif()
    exif[ORIENTATION] = 7
    image.save(out / "turned.webp", quality=50, exif=exif)


def write_moving_webp(path: Path) -> None:
    """Three frames of one colour; the second changes a part of the first."""
    frames = [Image.new("RGB", (20, 12), color) for color in ((200, 40, 90), (200, 40, 90), (30, 60, 240))]
    frames[1].paste((10, 220, 60), (2, 2, 8, 8))
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True, duration=[40, 41, 250], minimize_size=True)


def write_bmps(out: Path, image: Image.Image) -> None:
    width, height = image.size
    image.save(out / "24.bmp")
    image.convert("RGBA").save(out / "32.bmp")
    image.quantize(100).save(out / "8.bmp")
    image.convert("1").save(out / "1.bmp")
    rng = numpy.random.default_rng(2)
    words = rng.integers(0, 65536, (10, 18), dtype=numpy.uint16).astype("<u2").tobytes()
    (out / "555.bmp").write_bytes(bmp(words, 18, 10, 16))
    (out / "565.bmp").write_bytes(bmp(words, 18, 10, 16, (0xF800, 0x7E0, 0x1F)))
    (out / "32_bgrx.bmp").write_bytes(bmp(words, 9, 10, 32))
    (out / "4_top_down.bmp").write_bytes(bmp(words, 70, -10, 4, palette=rng.integers(0, 256, 44, dtype=numpy.uint8).tobytes()))


def write_gifs(out: Path, image: Image.Image) -> None:
    colors = image.quantize(150)
    colors.save(out / "interlaced.gif")
    colors.save(out / "plain.gif", interlace=0)
    colors.save(out / "transparent.gif", transparency=7)
    colors.save(out / "animated.gif", save_all=True, append_images=[image.rotate(180).quantize(40)])
    image.convert("L").save(out / "grey.gif")
    image.convert("1").save(out / "black_and_white.gif")
    larger = bytearray((out / "transparent.gif").read_bytes())
    larger[6:10] = struct.pack("<HH", image.width + 9, image.height + 5)
    (out / "larger_screen.gif").write_bytes(larger)


def write_all(out: Path, image: Image.Image) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    for write in (write_pngs, write_jpegs, write_webps, write_bmps, write_gifs):
        write(out, image)


def main() -> None:
    write_all(OUT, scene(43, 31))
    scene(43, 31).save(OUT / "deflate.tiff", compression="tiff_adobe_deflate")
    greys = numpy.arange(20 * 10).reshape(10, 20, 1) * 327
    (OUT.parent / "grey_16.png").write_bytes(png(greys, 16, 0))  # Pillow cuts it off at 255: refused
    expected = {}
    for path in sorted(OUT.iterdir()):
        found = ImageOps.exif_transpose(Image.open(path)).convert("RGB")  # load_image's own lines
        expected[path.name] = {"width": found.width, "height": found.height, "crc32": zlib.crc32(found.tobytes())}
    write_moving_webp(OUT.parent / "moving.webp")
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in expected.items())
    (OUT.parent / "pictures.json").write_text(f"{{\n{rows}\n}}\n")
    write_all(SEEDS, scene(17, 9))
    total = sum(path.stat().st_size for folder in (OUT, SEEDS) for path in folder.iterdir())
    print(f"{len(expected)} pictures, {total} bytes with the seeds")


if __name__ == "__main__":
    main()
