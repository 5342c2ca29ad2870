#!/usr/bin/env python3
"""Finds people's 133 points in pictures with the same networks in Python: tests/golden/preprocess_points/.

usage: preprocess_points_golden.py MEDIAPIPE_FOLDER FOLDER PICTURE...    (needs openvino, onnx, numpy, Pillow)

MediaPipe's chain (detector, body, hands, face) is written here a second time, in NumPy. Beside it, a small detector and
a small whole-body network with random weights are written (detector.onnx, pose.onnx) and decoded as the Wan2.2
repository does it, and segmenters (segmenter.onnx, segmenter2.onnx). points.json holds what was found.
"""
import json
import math
import pathlib
import sys

import numpy as np
import onnx
import openvino as ov
from onnx import helper, numpy_helper
from PIL import Image

CORE = ov.Core()
BODY = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28, 31, 31, 29, 32, 32, 30]
FACE = [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389, 71, 63, 105, 66, 107, 336, 296,
        334, 293, 301, 168, 197, 5, 4, 98, 97, 2, 326, 327, 33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380, 61, 39,
        37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87]


def network(path):
    return CORE.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})


def by_size(net, image, *sizes):
    results = [np.asarray(v).reshape(-1) for v in net(image[None].astype(np.float32)).values()]
    return [next(r for r in results if r.size == size) for size in sizes]


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


def to_picture(region, u, v):
    x, y, width, height, angle = region
    dx, dy = (np.asarray(u) - 0.5) * width, (np.asarray(v) - 0.5) * height
    return x + dx * math.cos(angle) - dy * math.sin(angle), y + dx * math.sin(angle) + dy * math.cos(angle)


def sample(picture, region, side, low):
    """Bilinear, black outside; [side, side, 3] in low to 1."""
    grid = (np.arange(side) + 0.5) / side
    x, y = to_picture(region, grid[None, :], grid[:, None])
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    out = np.zeros((side, side, 3))
    for i in (0, 1):
        for j in (0, 1):
            px, py = left + i, top + j
            inside = (px >= 0) & (py >= 0) & (px < picture.shape[1]) & (py < picture.shape[0])
            weight = np.where(i, x - left, 1 - x + left) * np.where(j, y - top, 1 - y + top) * inside
            out += weight[..., None] * picture[np.clip(py, 0, picture.shape[0] - 1), np.clip(px, 0, picture.shape[1] - 1)]
    return low + (1 - low) / 255 * out


def anchors(side, groups):
    rows = []
    for stride, per_cell in groups:
        cells = side // stride
        for y in range(cells):
            for x in range(cells):
                rows += [[(x + 0.5) / cells, (y + 0.5) / cells]] * per_cell
    return np.array(rows)


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    joint = w * h if w > 0 and h > 0 else 0
    area = lambda r: max(r[2] - r[0], 0) * max(r[3] - r[1], 0)
    return joint / max(area(a) + area(b) - joint, 1e-12)


def detect(net, picture, region, side, groups, columns):
    grid = anchors(side, groups)
    rows, logits = by_size(net, sample(picture, region, side, -1), len(grid) * columns, len(grid))
    rows, scores = rows.reshape(-1, columns) / side, sigmoid(logits)
    rows[:, 0:2] += grid
    for k in range(4, columns, 2):
        rows[:, k:k + 2] += grid
    found = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] >= 0.5:
            x, y, w, h = rows[i, :4]
            found.append((scores[i], np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]), rows[i, 4:].reshape(-1, 2)))
    people = []
    while found:
        same = [f for f in found if f is found[0] or iou(found[0][1], f[1]) > 0.3]
        found = [f for f in found if not any(f is s for s in same)]
        weights = np.array([f[0] for f in same])
        box = np.average([f[1] for f in same], axis=0, weights=weights)
        keys = np.average([f[2] for f in same], axis=0, weights=weights)
        x, y = to_picture(region, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        keys = np.stack(to_picture(region, keys[:, 0], keys[:, 1]), 1)
        people.append((np.array([x, y]), (box[2:] - box[:2]) * region[2], keys))
    return people


def upright(a, b):
    return math.atan2(b[1] - a[1], b[0] - a[0]) + math.pi / 2


def level(a, b):
    return math.atan2(b[1] - a[1], b[0] - a[0])


class MediaPipe:
    def __init__(self, folder):
        names = {"people": "pose_detection", "body": "pose_landmark_full", "recrop": "hand_recrop",
                 "hand": "hand_landmark_full", "faces": "face_detection_short_range", "face": "face_landmark"}
        self.nets = {key: network(folder / f"{name}.tflite") for key, name in names.items()}

    def points(self, picture):
        return next(self.everybody(picture))

    def everybody(self, picture):
        """The points of each detected person that the body's network sees too."""
        height, width = picture.shape[:2]
        side = max(width, height)
        whole = ((width - 1) / 2, (height - 1) / 2, side, side, 0)
        for _, _, keys in detect(self.nets["people"], picture, whole, 224, [(8, 2), (16, 2), (32, 6)], 12):
            size = 2 * np.linalg.norm(keys[1] - keys[0]) * 1.25
            region = (*keys[0], size, size, upright(keys[0], keys[1]))
            raw, presence = by_size(self.nets["body"], sample(picture, region, 256, 0), 195, 1)
            if presence[0] <= 0.5:
                continue
            raw = raw.reshape(39, 5)[:33]
            body = np.stack([*to_picture(region, raw[:, 0] / 256, raw[:, 1] / 256),
                             np.minimum(sigmoid(raw[:, 3]), sigmoid(raw[:, 4]))], 1)
            points = np.zeros((133, 3))
            points[:23] = body[BODY]
            for first, wrist, little, index in ((91, 15, 17, 19), (112, 16, 18, 20)):
                points[first:first + 21] = self.hand(picture, *body[[wrist, little, index]])
            points[23:91] = self.face(picture, body)
            yield points

    def hand(self, picture, wrist, little, index):
        if wrist[2] < 0.1:
            return 0
        middle = (2 * index[:2] + little[:2]) / 3
        size = 2 * np.linalg.norm(middle - wrist[:2]) * 2.7
        guess = (*middle, size, size, upright(wrist[:2], middle))
        raw, = by_size(self.nets["recrop"], sample(picture, guess, 256, 0), 4)
        centre, edge = np.stack(to_picture(guess, raw[0::2] / 256, raw[1::2] / 256), 1)
        size = 2 * np.linalg.norm(edge - centre)
        region = (*centre, size, size, upright(centre, edge))
        region = (*to_picture(region, 0.5, 0.4), size, size, region[4])
        outputs = self.nets["hand"](sample(picture, region, 224, 0)[None].astype(np.float32))
        raw, score = (np.asarray(outputs[name]).reshape(-1) for name in ("Identity", "Identity_1"))
        if score[0] < 0.5:
            return 0
        x, y = to_picture(region, raw[0::3] / 224, raw[1::3] / 224)
        return np.stack([x, y, np.full(21, score[0])], 1)

    def face(self, picture, body):
        head = body[:11, :2]
        low, high = head.min(0), head.max(0)
        size = 3 * (high - low).max()
        search = (*(low + high) / 2, size, size, level(body[5], body[2]))
        faces = detect(self.nets["faces"], picture, search, 128, [(8, 2), (16, 6)], 16)
        if not faces:
            return 0
        centre, extent, keys = faces[0]
        size = 1.5 * extent.max()
        region = (*centre, size, size, level(keys[0], keys[1]))
        raw, logit = by_size(self.nets["face"], sample(picture, region, 192, 0), 1404, 1)
        if sigmoid(logit[0]) < 0.5:
            return 0
        x, y = to_picture(region, raw[0::3][FACE] / 192, raw[1::3][FACE] / 192)
        return np.stack([x, y, np.full(68, sigmoid(logit[0]))], 1)


def onnx_file(path, nodes, inputs, outputs, weights):
    infos = [[helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in side]
             for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "random", *infos, [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


def write_networks(folder):
    """The real inputs' and outputs' layouts, next to nothing between them."""
    rng = np.random.default_rng(3)
    rows = np.zeros((8, 6), np.float32)  # x0, y0, x1, y1, score, class; of a 64 pixel square
    rows[0] = 10, 4, 50, 60, 0.9, 0
    rows[1] = 11, 5, 52, 61, 0.8, 0     # the first again
    rows[2] = 2, 2, 6, 8, 0.7, 0        # too small beside it
    rows[3] = 0, 0, 64, 64, 0.95, 2     # a car
    rows[4] = 20, 2, 40, 30, 0.6, 0
    gain = (rng.normal(0, 0.3, (12, 48)) * np.tile([1, 1, 1, 1, 0, 0], 8)).astype(np.float32)
    onnx_file(folder / "detector.onnx",
              [helper.make_node("AveragePool", ["images"], ["pooled"], kernel_shape=[32, 32], strides=[32, 32]),
               helper.make_node("Flatten", ["pooled"], ["flat"]),
               helper.make_node("MatMul", ["flat", "gain"], ["product"]),
               helper.make_node("Add", ["product", "rows"], ["sum"]),
               helper.make_node("Reshape", ["sum", "shape"], ["output0"])],
              [("images", [1, 3, 64, 64])], [("output0", [1, 8, 6])],
              {"gain": gain, "rows": rows.reshape(1, 48), "shape": np.array([1, 8, 6])})
    kernel = rng.normal(0, 0.05, (133, 3, 4, 4)).astype(np.float32)
    onnx_file(folder / "pose.onnx",
              [helper.make_node("Conv", ["input", "kernel"], ["raw"], kernel_shape=[4, 4], strides=[4, 4]),
               helper.make_node("Sigmoid", ["raw"], ["heat"])],
              [("input", [1, 3, 128, 96])], [("heat", [1, 133, 32, 24])], {"kernel": kernel})


def write_segmenters(folder):
    """Inside where the picture, undone of ImageNet's normalisation, is darker than grey: a logit; scores of two classes."""
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    kernel = -20 * deviation.reshape(1, 3, 1, 1)
    bias = np.array([20 * (3 * 0.5 - mean.sum())], np.float32)
    onnx_file(folder / "segmenter.onnx",
              [helper.make_node("Conv", ["picture", "kernel", "bias"], ["dark"], kernel_shape=[1, 1])],
              [("picture", [1, 3, 160, 128])], [("dark", [1, 1, 160, 128])], {"kernel": kernel, "bias": bias})
    onnx_file(folder / "segmenter2.onnx",
              [helper.make_node("Conv", ["picture", "kernel", "bias"], ["scores"], kernel_shape=[1, 1])],
              [("picture", [1, 3, "h", "w"])], [("scores", [1, 2, "h", "w"])],
              {"kernel": np.concatenate([-kernel / 2, kernel / 2]), "bias": np.concatenate([-bias / 2, bias / 2])})


def bilinear(picture, width, height):
    """Resized with pixel centres at halves, borders repeated; float."""
    def taps(count, out):
        at = (np.arange(out) + 0.5) * count / out - 0.5
        first = np.floor(at).astype(int)
        return np.clip(first, 0, count - 1), np.clip(first + 1, 0, count - 1), at - first
    y0, y1, fy = taps(picture.shape[0], height)
    x0, x1, fx = taps(picture.shape[1], width)
    rows = picture[y0] * (1 - fy)[:, None, None] + picture[y1] * fy[:, None, None]
    return rows[:, x0] * (1 - fx)[None, :, None] + rows[:, x1] * fx[None, :, None]


def blurred(heat, radius=5, sigma=2.0):
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    smooth = np.apply_along_axis(lambda v: np.convolve(v, kernel, "same"), 0, heat.astype(np.float64))
    return np.apply_along_axis(lambda v: np.convolve(v, kernel, "same"), 1, smooth)


def onnx_points(folder, picture):
    height, width = picture.shape[:2]
    image = np.round(bilinear(picture, 64, 64)).transpose(2, 0, 1) / 255
    rows = np.asarray(network(folder / "detector.onnx")(image[None].astype(np.float32))[0])[0].astype(float)
    best = rows[0]  # by construction the largest that stays
    x0, y0 = math.trunc(best[0] * width / 64), math.trunc(best[1] * height / 64)
    box = [x0, y0, x0 + math.trunc((best[2] - best[0]) * width / 64), y0 + math.trunc((best[3] - best[1]) * height / 64)]
    tall = max((box[2] - box[0]) * 128 / 96, box[3] - box[1]) * 1.25
    wide = tall * 96 / 128
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x0, y0, x1, y1 = round(cx - wide / 2), round(cy - tall / 2), round(cx + wide / 2), round(cy + tall / 2)
    crop = np.zeros((y1 - y0, x1 - x0, 3))
    ox, oy = max(x0, 0), max(y0, 0)
    part = picture[oy:min(y1, height), ox:min(x1, width)]
    crop[oy - y0:oy - y0 + part.shape[0], ox - x0:ox - x0 + part.shape[1]] = part
    image = bilinear(crop, 96, 128)[..., ::-1] / 255
    image = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    heat = np.asarray(network(folder / "pose.onnx")(image.transpose(2, 0, 1)[None].astype(np.float32))[0])[0]
    points = np.zeros((133, 3))
    for k, one in enumerate(heat):
        y, x = np.unravel_index(one.argmax(), one.shape)
        place = np.array([x, y], float)
        if 1 < x < 22 and 1 < y < 30:
            smooth = blurred(one)
            log = np.log(np.maximum(smooth * one.max() / smooth.max(), 1e-10))
            d = 0.5 * np.array([log[y, x + 1] - log[y, x - 1], log[y + 1, x] - log[y - 1, x]])
            xx = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
            yy = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
            xy = 0.25 * (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1])
            place -= np.linalg.solve([[xx, xy], [xy, yy]], d)
        points[k] = place[0] * wide / 24 + cx - wide / 2, place[1] * tall / 32 + cy - tall / 2, one.max()
    return box, points


def main():
    mediapipe, folder, *pictures = map(pathlib.Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    write_networks(folder)
    write_segmenters(folder)
    networks, cases = MediaPipe(mediapipe), []
    rounded = lambda points: [[round(float(v), 3) for v in row] for row in points]
    for path in pictures:
        picture = np.asarray(Image.open(path).convert("RGB"))
        Image.fromarray(picture).save(folder / f"{path.stem}.png", optimize=True)
        box, points = onnx_points(folder, picture.astype(np.float64))
        cases.append({"picture": f"{path.stem}.png", "mediapipe": rounded(networks.points(picture.astype(np.float64))),
                      "box": box, "onnx": rounded(points)})
    (folder / "points.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
