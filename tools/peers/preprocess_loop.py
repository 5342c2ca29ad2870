#!/usr/bin/env python3
"""Preprocessing of a driving clip: `zoetrope preprocess` with 1 and 2 threads beside a plain OpenVINO loop in Python.

    python preprocess_loop.py --zoetrope build/zoetrope --clip clip.mp4 --mediapipe build/pose-models
    python preprocess_loop.py ... --checkpoint FOLDER      # of tools/oracle/preprocess_networks.py: YOLOv10-M, ViTPose-H

The loop is what a script does: decode a frame, look for people, find their points, draw the points, encode; frame after
frame, networks on --loop-threads threads (as many as the machine has). Same files of networks, float32, the same
frames. It joins no identities, cuts out no face and draws points only, so it has less to do. Calls alternate; the
medians and all seconds are printed, or as JSON. Needs: openvino, opencv-python, numpy, onnx, Pillow, FFmpeg's program.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import openvino as ov

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oracle"))
import preprocess_points_golden as chain  # noqa: E402


def warped(picture, region, side, low):
    """What the chain's sample() gives, by OpenCV."""
    x, y, width, height, angle = region
    corners = np.array([[0, 0], [side, 0], [0, side]], np.float32)
    target = [chain.to_picture(region, u, v) for u, v in ((0, 0), (1, 0), (0, 1))]
    matrix = cv2.getAffineTransform(corners, np.array(target, np.float32))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return low + (1 - low) / 255 * cv2.warpAffine(picture, matrix, (side, side), flags=flags).astype(np.float32)


class Onnx:
    """YOLOv10, then ViTPose on at most three people, as the Wan2.2 repository's preprocessing does it."""

    def __init__(self, folder, compiled):
        self.detector = compiled(folder / "det" / "yolov10m.onnx")
        self.pose = compiled(folder / "pose2d" / "vitpose_h_wholebody.onnx")

    def points(self, picture):
        height, width = picture.shape[:2]
        image = cv2.resize(picture, (640, 640)).transpose(2, 0, 1)[None].astype(np.float32) / 255
        rows = np.asarray(self.detector(image)[0])[0]
        rows = rows[(rows[:, 4] >= 0.05) & (rows[:, 5] == 0)]
        boxes = [row[:4] * [width / 640, height / 640, width / 640, height / 640] for row in rows[np.argsort(-rows[:, 4])]]
        kept = []
        for box in boxes:
            wide = box[2] - box[0] >= 1 and box[3] - box[1] >= 1
            if wide and all(chain.iou(box, other) <= 0.5 for other in kept):
                kept.append(box)
        sides = [max(box[2] - box[0], box[3] - box[1]) for box in kept]
        kept = [box for box, side in zip(kept, sides) if side >= 0.4 * max(sides)]
        kept = sorted(kept, key=lambda b: -(b[2] - b[0]) * (b[3] - b[1]))[:3]
        return np.concatenate([self.person(picture, box) for box in kept]) if kept else np.zeros((0, 3))

    def person(self, picture, box):
        tall = max((box[2] - box[0]) * 256 / 192, box[3] - box[1]) * 1.25
        region = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, tall * 192 / 256, tall, 0)
        matrix = cv2.getAffineTransform(
            np.array([[0, 0], [192, 0], [0, 256]], np.float32),
            np.array([chain.to_picture(region, u, v) for u, v in ((0, 0), (1, 0), (0, 1))], np.float32),
        )
        crop = cv2.warpAffine(picture, matrix, (192, 256), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        image = (crop[..., ::-1] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        heat = np.asarray(self.pose(image.transpose(2, 0, 1)[None].astype(np.float32))[0])[0]
        best = heat.reshape(len(heat), -1).argmax(1)
        x, y = chain.to_picture(region, best % 48 / 48, best // 48 / 64)
        return np.stack([x, y, heat.reshape(len(heat), -1).max(1)], 1)


def loop(clip, estimator, output, area):
    """One run -> its seconds, frames."""
    start = time.perf_counter()
    reader = cv2.VideoCapture(str(clip))
    encoder, count = None, 0
    while True:
        read, frame = reader.read()
        if not read:
            break
        picture = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        try:
            points = estimator.points(picture)
        except StopIteration:  # nobody
            points = np.zeros((0, 3))
        scale = min(1, (area / (picture.shape[0] * picture.shape[1])) ** 0.5)
        width, height = (int(side * scale) // 16 * 16 for side in picture.shape[1::-1])
        canvas = np.zeros((height, width, 3), np.uint8)
        for x, y, score in points:
            if score > 0.3:
                cv2.circle(canvas, (int(x * scale), int(y * scale)), 4, (255, 255, 255), -1)
        if encoder is None:
            command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-i", "-"]
            command += ["-c:v", "libx264", "-crf", "8", "-pix_fmt", "yuv420p", "-threads", "1", str(output)]
            encoder = subprocess.Popen(command, stdin=subprocess.PIPE)
        encoder.stdin.write(canvas.tobytes())
        count += 1
    encoder.stdin.close()
    encoder.wait()
    return time.perf_counter() - start, count


def zoetrope(arguments, threads, folder):
    """One run of the program -> its report."""
    command = [arguments.zoetrope, "preprocess", "--video", arguments.clip, "--output-path", folder, "--cache-dir", "off"]
    command += ["--fps", "0", "--threads", threads, "--resolution-area", f"{arguments.area // 64}x64", "--json"]
    if arguments.checkpoint:
        command += ["--process-checkpoint", arguments.checkpoint]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", required=True)
    parser.add_argument("--clip", required=True)
    parser.add_argument("--mediapipe", type=Path, default=Path("build/pose-models"), help="folder of its networks")
    parser.add_argument("--checkpoint", type=Path, help="folder of YOLOv10 and ViTPose in place of MediaPipe's networks")
    parser.add_argument("--threads", default="1,2", help="of Zoetrope, several with commas")
    parser.add_argument("--loop-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--area", type=int, default=1280 * 720, help="pixels of a drawn frame, at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    core = ov.Core()

    def compiled(path):
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": arguments.loop_threads}
        return core.compile_model(str(path), "CPU", settings)

    chain.network, chain.sample = compiled, warped
    estimator = Onnx(arguments.checkpoint, compiled) if arguments.checkpoint else chain.MediaPipe(arguments.mediapipe)
    threads = [int(word) for word in arguments.threads.split(",")]
    seconds = {"loop": [], **{f"zoetrope {n}": [] for n in threads}}
    details = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.repeats):
            taken, frames = loop(arguments.clip, estimator, Path(folder) / "loop.mp4", arguments.area)
            seconds["loop"].append(taken)
            for n in threads:
                report = zoetrope(arguments, n, Path(folder) / str(n))
                seconds[f"zoetrope {n}"].append(report["seconds"])
                details[f"zoetrope {n}"] = {key: report[key] for key in ("frames", "idle_seconds", "stages")}
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    result = {"frames": frames, "seconds": seconds, "median": medians, "details": details, "openvino": ov.__version__,
              "loop_threads": arguments.loop_threads}  # fmt: skip
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    for key, values in seconds.items():
        print(f"{key:12} {medians[key]:7.2f} s  {frames / medians[key]:6.1f} frames/s   {['%.2f' % v for v in values]}")
    first = medians[f"zoetrope {threads[0]}"]
    for n in threads[1:]:
        print(f"{n} threads: {first / medians[f'zoetrope {n}']:.2f} times {threads[0]}")
    print(f"loop over zoetrope {threads[-1]}: {medians['loop'] / medians[f'zoetrope {threads[-1]}']:.2f}")


if __name__ == "__main__":
    main()
