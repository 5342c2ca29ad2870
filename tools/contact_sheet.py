#!/usr/bin/env python3
"""A picture of what `zoetrope preprocess` made of a clip: frames from left to right, with the drawn pose above each.

usage: contact_sheet.py CLIP FOLDER SHEET.jpg [--columns 6] [--height 150]     (needs Pillow, FFmpeg's program)

Rows: the pose alone, the frame with the pose over it, and the face; with src_bg.mp4 and src_mask.mp4 these too. The
frames must have been taken at the clip's own rate (--fps 0) and without --image, so that both have one shape.
"""
import argparse
import subprocess
from pathlib import Path

from PIL import Image, ImageChops


def frames_of(path, numbers):
    """Those frames as pictures; of a folder of pictures or a video."""
    if path.is_dir():
        files = sorted(path.iterdir())
        return [Image.open(files[i]).convert("RGB") for i in numbers]
    select = "+".join(f"eq(n\\,{i})" for i in numbers)
    size = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height", "-of",
                           "csv=p=0", str(path)], check=True, capture_output=True, text=True).stdout.strip()  # fmt: skip
    width, height = map(int, size.split(",")[:2])
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", f"select='{select}'", "-vsync", "0", "-f", "rawvideo", "-pix_fmt",
               "rgb24", "-"]  # fmt: skip
    data = subprocess.run(command, check=True, capture_output=True).stdout
    step = 3 * width * height
    return [Image.frombytes("RGB", (width, height), data[i : i + step]) for i in range(0, len(data), step)]


def count_of(path):
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=nb_frames", "-of", "csv=p=0", str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().strip(","))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--height", type=int, default=150)
    arguments = parser.parse_args()
    count = count_of(arguments.folder / "src_pose.mp4")
    numbers = [round(i * (count - 1) / (arguments.columns - 1)) for i in range(arguments.columns)]
    poses = frames_of(arguments.folder / "src_pose.mp4", numbers)
    clip = [frame.resize(pose.size) for frame, pose in zip(frames_of(arguments.clip, numbers), poses)]
    over = [ImageChops.lighter(frame.point(lambda v: v * 0.6), pose) for frame, pose in zip(clip, poses)]
    rows = [poses, over]
    for name in ("face", "bg", "mask"):
        file = arguments.folder / f"src_{name}.mp4"
        if file.exists():
            rows.append(frames_of(file, numbers))
    width = round(arguments.height * poses[0].width / poses[0].height)
    sheet = Image.new("RGB", (width * arguments.columns, arguments.height * len(rows)))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            picture = picture.copy()
            picture.thumbnail((width, arguments.height))
            sheet.paste(picture, (x * width + (width - picture.width) // 2, y * arguments.height))
    sheet.save(arguments.sheet, quality=80)


if __name__ == "__main__":
    main()
