#!/usr/bin/env python3
"""Compares the points that `zoetrope preprocess --points` finds in clips with the same networks' points in Python.

    python preprocess_points_check.py --zoetrope build/zoetrope CLIP...
    python preprocess_points_check.py --zoetrope build/zoetrope --checkpoint FOLDER --frames 4 CLIP...

A clip is a video or a folder of PNG pictures. Its frames are decoded here by OpenCV and given to both as PNG files, so that
networks and what surrounds them are compared, not decoders; --own-decoding lets the program decode the clip itself.
MediaPipe's chain is preprocess_points_golden.py's; with --checkpoint (a process_checkpoint folder, or
preprocess_networks.py's of random weights) frames are prepared and heat maps decoded by OpenCV, as the Wan2.2 repository does
it. Printed per network: points compared, mean and largest distance in pixels, how many are beyond --limit, the largest of
those with a score of 0.3 and more (which are drawn). Ends with 1 where a point is beyond --limit or where only the program
finds a person. Needs: openvino, onnx, opencv-python, numpy, Pillow.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

import preprocess_points_golden as chain

GROUPS = {"body": slice(0, 23), "face": slice(23, 91), "left hand": slice(91, 112), "right hand": slice(112, 133)}


class Onnx:
    """YOLOv10 and ViTPose."""

    def __init__(self, folder):
        self.detector = chain.network(folder / "det" / "yolov10m.onnx")
        self.pose = chain.network(folder / "pose2d" / "vitpose_h_wholebody.onnx")

    def boxes(self, picture):
        height, width = picture.shape[:2]
        image = (cv2.resize(picture, (640, 640)) / 255.0).transpose(2, 0, 1)[None].astype(np.float32)
        rows = np.asarray(self.detector(image)[0])[0].copy()
        rows = rows[(rows[:, 4] >= 0.05) & (rows[:, 5] == 0)]
        rows[:, [0, 2]] *= width / 640
        rows[:, [1, 3]] *= height / 640
        rows[:, 2:4] -= rows[:, 0:2]
        corners = rows[:, :4].astype(np.int32)  # x, y, width, height
        kept = cv2.dnn.NMSBoxes(corners.tolist(), rows[:, 4].tolist(), 0.05, 0.5)
        return [corners[i].tolist() for i in kept if corners[i][2:].min() >= 1]

    def person(self, picture, box):
        x, y, width, height = box
        if min(width, height) < 10:
            x, y, width, height = 0, 0, picture.shape[1], picture.shape[0]
        tall = max(width * 256 / 192, height) * 1.25
        wide = tall * 192 / 256
        cx, cy = x + width / 2, y + height / 2
        x0, y0, x1, y1 = round(cx - wide / 2), round(cy - tall / 2), round(cx + wide / 2), round(cy + tall / 2)
        crop = np.zeros((y1 - y0, x1 - x0, 3), np.float32)
        part = picture[max(y0, 0):max(y1, 0), max(x0, 0):max(x1, 0)]
        top, left = max(-y0, 0), max(-x0, 0)
        crop[top:top + part.shape[0], left:left + part.shape[1]] = part
        image = cv2.resize(crop, (192, 256))[..., ::-1] / 255.0
        image = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        heat = np.asarray(self.pose(image.transpose(2, 0, 1)[None].astype(np.float32))[0])[0]
        points = np.zeros((len(heat), 3))
        for k, one in enumerate(heat):
            points[k] = *self.top(one), one.max()
        points[:, 0] = points[:, 0] * wide / heat.shape[2] + cx - wide / 2
        points[:, 1] = points[:, 1] * tall / heat.shape[1] + cy - tall / 2
        return points

    @staticmethod
    def top(heat):
        """The maximum, moved by one step of Newton's method on the logarithm of the smoothed map."""
        if heat.max() <= 0:
            return -1, -1
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        if not (1 < x < heat.shape[1] - 2 and 1 < y < heat.shape[0] - 2):
            return x, y
        smooth = cv2.GaussianBlur(np.pad(heat, 5), (11, 11), 0)[5:-5, 5:-5]
        log = np.log(np.maximum(smooth * (heat.max() / smooth.max()), np.float32(1e-10)).astype(np.float64))
        slope = 0.5 * np.array([log[y, x + 1] - log[y, x - 1], log[y + 1, x] - log[y - 1, x]])
        xx = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
        yy = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
        xy = 0.25 * (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1])
        if xx * yy == xy * xy:
            return x, y
        return np.array([x, y]) - np.linalg.solve([[xx, xy], [xy, yy]], slope)

    def people(self, picture, near):
        """Of those who were detected, the one in the box that the program found."""
        boxes = self.boxes(picture)
        corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
        best = max(range(len(boxes)), key=lambda i: chain.iou(corners[i], near), default=None)
        return [] if best is None else [self.person(picture, boxes[best])]


class MediaPipe(chain.MediaPipe):
    def people(self, picture, near):
        return list(self.everybody(picture.astype(np.float64)))


def frames_of(clip):
    """RGB pictures, [height, width, 3] uint8."""
    if clip.is_dir():
        for file in sorted(clip.glob("*.png")):
            yield cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        return
    reader = cv2.VideoCapture(str(clip))
    while (read := reader.read())[0]:
        yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)


def run(arguments, clip, folder):
    """The program's lines."""
    command = [arguments.zoetrope, "preprocess", "--video", clip, "--output-path", folder / "videos", "--cache-dir", "off"]
    command += ["--fps", 0, "--threads", 1, "--points", folder / "points.jsonl", *arguments.flag]
    if arguments.checkpoint:
        command += ["--process-checkpoint", arguments.checkpoint]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]


def compare(arguments, estimator, clip, distances, once):
    """-> frames, those in which both found somebody, only the program, only Python"""
    frames = list(frames_of(clip))
    if arguments.frames:
        frames = [frames[i] for i in np.linspace(0, len(frames) - 1, arguments.frames).round().astype(int)]
    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), clip
        if not arguments.own_decoding:
            source = folder / "frames"
            source.mkdir()
            for i, frame in enumerate(frames):
                bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
                cv2.imwrite(str(source / f"{i:05}.png"), bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        lines = run(arguments, source, folder)
    if len(lines) != len(frames):
        sys.exit(f"{clip}: {len(lines)} frames of the program, {len(frames)} of OpenCV")
    counts = [len(frames), 0, 0, 0]
    for line, frame in zip(lines, frames):
        people = estimator.people(frame, line.get("box"))
        if not line["found"] or not people:
            counts[2] += line["found"]
            counts[3] += not line["found"] and len(people) > 0
            continue
        counts[1] += 1
        found = np.array(line["points"])
        apart = [np.linalg.norm(found[:, :2] - person[:, :2], axis=1) for person in people]
        nearest = min(range(len(people)), key=lambda i: apart[i][:23].mean())
        for group, part in GROUPS.items():
            one, other = found[part, 2].any(), people[nearest][part, 2].any()
            if one and other:
                distances[group] += zip(apart[nearest][part], found[part, 2])
            once[group] += int(one != other)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", required=True)
    parser.add_argument("--mediapipe", type=Path, default=Path("build/pose-models"), help="folder of its networks")
    parser.add_argument("--checkpoint", type=Path, help="folder of YOLOv10 and ViTPose in place of MediaPipe's networks")
    parser.add_argument("--frames", type=int, help="of each clip; default: all")
    parser.add_argument("--flag", action="append", default=[], help="of the program, several times")
    parser.add_argument("--own-decoding", action="store_true", help="all frames, decoded by the program")
    parser.add_argument("--limit", type=float, default=0.5, help="pixels")
    parser.add_argument("clips", nargs="+", type=Path)
    arguments = parser.parse_args()
    estimator = Onnx(arguments.checkpoint) if arguments.checkpoint else MediaPipe(arguments.mediapipe)
    beyond = False
    for clip in arguments.clips:
        distances, once = {group: [] for group in GROUPS}, dict.fromkeys(GROUPS, 0)
        frames, both, program, python = compare(arguments, estimator, clip, distances, once)
        beyond |= program > 0
        print(f"{clip.name}: {frames} frames, somebody in {both}; only by the program {program}, only by Python {python}")
        for group in GROUPS:
            values = np.array(distances[group]).reshape(-1, 2)
            if len(values) == 0:
                continue
            apart, drawn = values[:, 0], values[values[:, 1] >= 0.3, 0]
            beyond |= bool(apart.max() > arguments.limit)
            print(f"  {group:10}{len(apart):7} points  mean {apart.mean():.4f}  worst {apart.max():.4f}"
                  f"  beyond {int((apart > arguments.limit).sum())}  worst drawn {max(drawn, default=0):.4f}"
                  f"  frames with it in one alone {once[group]}")
    sys.exit(int(beyond))


if __name__ == "__main__":
    main()
