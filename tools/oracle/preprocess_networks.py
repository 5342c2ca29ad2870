#!/usr/bin/env python3
"""Writes a process_checkpoint folder with random weights: YOLOv10-M at 640 and ViTPose-H at 256x192, 133 points.

usage: preprocess_networks.py FOLDER [--blocks 32]     (needs onnx, numpy)

For measuring: the layers and shapes are the real ones (Wang et al., YOLOv10, 2024; Xu et al., ViTPose, 2022), so the
load is. The transformer's blocks share one set of weights, which keeps the file at 100 MB instead of 2.5 GB. The
detector's last bias makes people of what it finds, so that the pose network runs.
"""
import argparse
import pathlib

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Graph:
    def __init__(self, seed):
        self.rng, self.nodes, self.weights, self.count = np.random.default_rng(seed), [], {}, 0

    def weight(self, *shape, scale=None, value=None):
        name = f"w{len(self.weights)}"
        if value is None:
            fan = int(np.prod(shape[1:])) or 1
            value = self.rng.standard_normal(shape, np.float32) * np.float32(scale or fan ** -0.5)
        self.weights[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [f"t{self.count + i}" for i in range(outputs)]
        self.count += outputs
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, cin, cout, k=1, stride=1, groups=1, act=True, bias=None):
        y = self.op("Conv", x, self.weight(cout, cin // groups, k, k, scale=(2 / (cin // groups * k * k)) ** 0.5),
                    self.weight(cout, value=np.zeros(cout, np.float32) if bias is None else bias),
                    kernel_shape=[k, k], strides=[stride, stride], pads=[k // 2] * 4, group=groups)
        return self.op("Mul", y, self.op("Sigmoid", y)) if act else y

    def save(self, path, inputs, output):
        infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in (inputs, output)]
        graph = helper.make_graph(self.nodes, "random", infos[:1], infos[1:], list(self.weights.values()))
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


class Yolo(Graph):
    """YOLOv10-M: depth 0.67, width 0.75, at most 768 channels."""

    def c2f(self, x, cin, cout, n, shortcut, cib=False):
        c = cout // 2
        parts = list(self.op("Split", self.conv(x, cin, 2 * c), outputs=2, axis=1))
        for _ in range(n):
            last = parts[-1]
            y = self.cib(last, c) if cib else self.conv(self.conv(last, c, c, 3), c, c, 3)
            parts.append(self.op("Add", last, y) if shortcut else y)
        return self.conv(self.op("Concat", *parts, axis=1), (2 + n) * c, cout)

    def cib(self, x, c):
        x = self.conv(self.conv(x, c, c, 3, groups=c), c, 2 * c)
        x = self.conv(self.conv(x, 2 * c, 2 * c, 3, groups=2 * c), 2 * c, c)
        return self.conv(x, c, c, 3, groups=c)

    def down(self, x, cin, cout):
        return self.conv(self.conv(x, cin, cout), cout, cout, 3, 2, groups=cout, act=False)

    def sppf(self, x, c):
        parts = [self.conv(x, c, c // 2)]
        for _ in range(3):
            parts.append(self.op("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2] * 4, strides=[1, 1]))
        return self.conv(self.op("Concat", *parts, axis=1), 2 * c, c)

    def attention(self, x, dim, cells, heads):
        key, head = dim // heads // 2, dim // heads
        qkv = self.conv(x, dim, dim + 2 * key * heads, act=False)
        qkv = self.op("Reshape", qkv, self.weight(value=np.array([1, heads, 2 * key + head, cells])))
        q, k, v = self.op("Split", qkv, self.weight(value=np.array([key, key, head])), outputs=3, axis=2)
        scores = self.op("MatMul", self.op("Transpose", q, perm=[0, 1, 3, 2]), k)
        scores = self.op("Softmax", self.op("Mul", scores, self.weight(value=np.float32(key ** -0.5))), axis=-1)
        out = self.op("MatMul", v, self.op("Transpose", scores, perm=[0, 1, 3, 2]))
        side = self.weight(value=np.array([1, dim, int(cells ** 0.5), int(cells ** 0.5)]))
        out, v = self.op("Reshape", out, side), self.op("Reshape", v, side)
        out = self.op("Add", out, self.conv(v, dim, dim, 3, groups=dim, act=False))
        return self.conv(out, dim, dim, act=False)

    def psa(self, x, c, cells):
        half = c // 2
        a, b = self.op("Split", self.conv(x, c, c), outputs=2, axis=1)
        b = self.op("Add", b, self.attention(b, half, cells, half // 64))
        b = self.op("Add", b, self.conv(self.conv(b, half, c), c, half, act=False))
        return self.conv(self.op("Concat", a, b, axis=1), c, c)

    def head(self, levels):
        boxes, classes = [], []
        person = np.zeros(80, np.float32)
        person[0] = 30
        for x, c in levels:
            r = self.conv(self.conv(self.conv(x, c, 64, 3), 64, 64, 3), 64, 64, act=False)
            s = self.conv(self.conv(x, c, c, 3, groups=c), c, 192)
            s = self.conv(self.conv(s, 192, 192, 3, groups=192), 192, 192)
            s = self.conv(s, 192, 80, act=False, bias=person)
            flat = lambda y, n: self.op("Reshape", y, self.weight(value=np.array([1, n, -1])))
            boxes.append(flat(r, 64))
            classes.append(flat(s, 80))
        boxes = self.op("Concat", *boxes, axis=2)
        boxes = self.op("Reshape", boxes, self.weight(value=np.array([1, 4, 16, 8400])))
        bins = self.weight(value=np.arange(16, dtype=np.float32).reshape(1, 1, 16, 1))
        away = self.op("Mul", self.op("Softmax", boxes, axis=2), bins)
        away = self.op("ReduceSum", away, self.weight(value=np.array([2])), keepdims=0)
        low, high = self.op("Split", away, outputs=2, axis=1)
        centres, strides = [], []
        for stride in (8, 16, 32):
            n = 640 // stride
            y, x = np.mgrid[:n, :n] + 0.5
            centres.append(np.stack([x.ravel(), y.ravel()]))
            strides.append(np.full(n * n, stride))
        centre = self.weight(value=np.concatenate(centres, 1)[None].astype(np.float32))
        stride = self.weight(value=np.concatenate(strides)[None, None].astype(np.float32))
        box = self.op("Concat", self.op("Sub", centre, low), self.op("Add", centre, high), axis=1)
        box = self.op("Transpose", self.op("Mul", box, stride), perm=[0, 2, 1])
        scores = self.op("Transpose", self.op("Sigmoid", self.op("Concat", *classes, axis=2)), perm=[0, 2, 1])
        best = self.op("ReduceMax", scores, axes=[2], keepdims=0)
        score, index = self.op("TopK", best, self.weight(value=np.array([300])), outputs=2, axis=1)
        kind = self.op("Cast", self.op("ArgMax", scores, axis=2, keepdims=0), to=onnx.TensorProto.FLOAT)
        kind = self.op("GatherElements", kind, index, axis=1)
        index = self.op("Unsqueeze", index, self.weight(value=np.array([2])))
        four = self.op("Expand", index, self.weight(value=np.array([1, 300, 4])))
        rows = [self.op("GatherElements", box, four, axis=1)]
        rows += [self.op("Unsqueeze", r, self.weight(value=np.array([2]))) for r in (score, kind)]
        self.nodes.append(helper.make_node("Concat", rows, ["output0"], axis=2))

    def build(self, path):
        x = self.conv(self.conv("images", 3, 48, 3, 2), 48, 96, 3, 2)
        x = self.conv(self.c2f(x, 96, 96, 2, True), 96, 192, 3, 2)
        p3 = self.c2f(x, 192, 192, 4, True)
        p4 = self.c2f(self.down(p3, 192, 384), 384, 384, 4, True)
        x = self.c2f(self.down(p4, 384, 576), 576, 576, 2, True, cib=True)
        p5 = self.psa(self.sppf(x, 576), 576, 400)
        twice = lambda y: self.op("Resize", y, "", self.weight(value=np.array([1, 1, 2, 2], np.float32)), mode="nearest")
        join = lambda *y: self.op("Concat", *y, axis=1)
        n4 = self.c2f(join(twice(p5), p4), 576 + 384, 384, 2, False)
        n3 = self.c2f(join(twice(n4), p3), 384 + 192, 192, 2, False)
        n4 = self.c2f(join(self.conv(n3, 192, 192, 3, 2), n4), 192 + 384, 384, 2, True, cib=True)
        n5 = self.c2f(join(self.down(n4, 384, 384), p5), 384 + 576, 576, 2, True, cib=True)
        self.head([(n3, 192), (n4, 384), (n5, 576)])
        self.save(path, ("images", [1, 3, 640, 640]), ("output0", [1, 300, 6]))


class VitPose(Graph):
    """ViT-H: 1280 wide, 16 heads, 192 tokens; two transposed convolutions to heat maps."""

    def norm(self, x, dim):
        mean = self.op("ReduceMean", x, axes=[-1])
        centred = self.op("Sub", x, mean)
        variance = self.op("ReduceMean", self.op("Mul", centred, centred), axes=[-1])
        root = self.op("Sqrt", self.op("Add", variance, self.weight(value=np.float32(1e-6))))
        scaled = self.op("Mul", self.op("Div", centred, root), self.weight(value=np.ones(dim, np.float32)))
        return self.op("Add", scaled, self.weight(value=np.zeros(dim, np.float32)))

    def linear(self, x, weight):
        return self.op("MatMul", x, weight)

    def build(self, path, blocks, dim=1280, heads=16):
        x = self.op("Conv", "input", self.weight(dim, 3, 16, 16), kernel_shape=[16, 16], strides=[16, 16], pads=[2] * 4)
        x = self.op("Transpose", self.op("Reshape", x, self.weight(value=np.array([1, dim, 192]))), perm=[0, 2, 1])
        qkv, proj = self.weight(dim, 3 * dim, scale=dim ** -0.5), self.weight(dim, dim, scale=dim ** -0.5)
        up, down = self.weight(dim, 4 * dim, scale=dim ** -0.5), self.weight(4 * dim, dim, scale=(4 * dim) ** -0.5)
        split = self.weight(value=np.array([1, 192, 3, heads, dim // heads]))
        flat = self.weight(value=np.array([1, 192, dim]))
        scale = self.weight(value=np.float32((dim // heads) ** -0.5))
        half, one, root = (self.weight(value=np.float32(v)) for v in (0.5, 1, 2 ** -0.5))
        for _ in range(blocks):
            y = self.op("Reshape", self.linear(self.norm(x, dim), qkv), split)
            q, k, v = self.op("Split", self.op("Transpose", y, perm=[2, 0, 3, 1, 4]), outputs=3, axis=0)
            scores = self.op("MatMul", self.op("Mul", q, scale), self.op("Transpose", k, perm=[0, 1, 2, 4, 3]))
            y = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
            y = self.op("Reshape", self.op("Transpose", y, perm=[0, 1, 3, 2, 4]), flat)
            x = self.op("Add", x, self.linear(y, proj))
            y = self.linear(self.norm(x, dim), up)
            erf = self.op("Add", self.op("Erf", self.op("Mul", y, root)), one)
            x = self.op("Add", x, self.linear(self.op("Mul", self.op("Mul", y, half), erf), down))
        x = self.op("Transpose", self.norm(x, dim), perm=[0, 2, 1])
        x, cin = self.op("Reshape", x, self.weight(value=np.array([1, dim, 16, 12]))), dim
        for _ in range(2):
            kernel = self.weight(cin, 256, 4, 4, scale=(cin * 4) ** -0.5)
            x = self.op("Relu", self.op("ConvTranspose", x, kernel, kernel_shape=[4, 4], strides=[2, 2], pads=[1] * 4))
            cin = 256
        self.nodes.append(helper.make_node("Conv", [x, self.weight(133, 256, 1, 1)], ["heat"], kernel_shape=[1, 1]))
        self.save(path, ("input", [1, 3, 256, 192]), ("heat", [1, 133, 64, 48]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--blocks", type=int, default=32, help="of the transformer")
    arguments = parser.parse_args()
    Yolo(1).build(arguments.folder / "det" / "yolov10m.onnx")
    VitPose(2).build(arguments.folder / "pose2d" / "vitpose_h_wholebody.onnx", arguments.blocks)


if __name__ == "__main__":
    main()
