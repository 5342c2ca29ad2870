"""One stage of a real model's shape in stable-diffusion.cpp, by its Python package stable-diffusion-cpp-python.

    python sdcpp.py --stage dit --height 480 --width 832 --num-frames 5 --weights q8_0
    python sdcpp.py --stage vae-decode --vae-tiling

The library gets files of random weights in the original layout and makes a video; the stage is timed between its own
log messages. It takes Wan2.1 1.3B with all 30 blocks and UMT5-XXL with all 24 layers only, so those stages run all of
them, and their seconds are those of --layers of them. Every call is made in a forked process that ends when the stage
does: the weights are loaded once, other stages cost nothing, and buffers are new in each call, as in its own program.
"""

import argparse
import ctypes
import json
import os
import pathlib
import struct
import tempfile
import time

import common

LAYERS = 30  # of the 1.3B DiT; the library tells models by this number
DIM = 1536
VOCABULARY = 256384
# log messages around each stage, and how often the stage happens between them
MARKS = {
    "text": ("sampling using", "get_learned_condition completed", 1),
    "dit": ("generate_video ", "sampling completed", 1),
    "vae-encode": ("VACE", "encode_first_stage completed", 2),
    "vae-decode": ("sampling completed", "decode_first_stage completed", 1),
}

Shapes = dict[str, tuple[int, ...]]


def linear(shapes: Shapes, name: str, outputs: int, inputs: int) -> None:
    shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def block(shapes: Shapes, name: str, ffn: int) -> None:
    shapes[f"{name}.modulation"] = (1, 6, DIM)
    for attention in ("self_attn", "cross_attn"):
        for part in "qkvo":
            linear(shapes, f"{name}.{attention}.{part}", DIM, DIM)
        for part in "qk":
            shapes[f"{name}.{attention}.norm_{part}.weight"] = (DIM,)
    shapes |= {f"{name}.norm3.weight": (DIM,), f"{name}.norm3.bias": (DIM,)}
    linear(shapes, f"{name}.ffn.0", ffn, DIM)
    linear(shapes, f"{name}.ffn.2", DIM, ffn)


def dit_shapes(ffn: int, vace: bool) -> Shapes:
    """The 1.3B T2V model; with vace also one control block, which makes the library encode a control video."""
    shapes: Shapes = {"patch_embedding.weight": (DIM, 16, 1, 2, 2), "patch_embedding.bias": (DIM,)}
    linear(shapes, "text_embedding.0", DIM, common.TEXT_WIDTH)
    linear(shapes, "text_embedding.2", DIM, DIM)
    linear(shapes, "time_embedding.0", DIM, 256)
    linear(shapes, "time_embedding.2", DIM, DIM)
    linear(shapes, "time_projection.1", 6 * DIM, DIM)
    for i in range(LAYERS):
        block(shapes, f"blocks.{i}", ffn)
    linear(shapes, "head.head", 16 * 4, DIM)
    shapes["head.modulation"] = (1, 2, DIM)
    if vace:
        shapes |= {"vace_patch_embedding.weight": (DIM, 96, 1, 2, 2), "vace_patch_embedding.bias": (DIM,)}
        block(shapes, "vace_blocks.0", ffn)
        linear(shapes, "vace_blocks.0.before_proj", DIM, DIM)
        linear(shapes, "vace_blocks.0.after_proj", DIM, DIM)
    return shapes


def text_shapes() -> Shapes:
    width, ffn = common.TEXT_WIDTH, common.TEXT_FFN
    shapes: Shapes = {"shared.weight": (VOCABULARY, width), "encoder.final_layer_norm.weight": (width,)}
    for i in range(common.TEXT_LAYERS):
        attention, feed_forward = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        for part in "qkvo":
            shapes[f"{attention}.SelfAttention.{part}.weight"] = (width, width)
        shapes[f"{attention}.SelfAttention.relative_attention_bias.weight"] = (32, common.TEXT_HEADS)
        for part in ("wi_0", "wi_1"):
            shapes[f"{feed_forward}.DenseReluDense.{part}.weight"] = (ffn, width)
        shapes[f"{feed_forward}.DenseReluDense.wo.weight"] = (width, ffn)
        for layer in (attention, feed_forward):
            shapes[f"{layer}.layer_norm.weight"] = (width,)
    return shapes


def conv(shapes: Shapes, name: str, outputs: int, inputs: int, kernel: tuple[int, ...] = (3, 3, 3)) -> None:
    shapes |= {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}


def residual(shapes: Shapes, name: str, inputs: int, outputs: int) -> None:
    shapes |= {f"{name}.residual.0.gamma": (inputs, 1, 1, 1), f"{name}.residual.3.gamma": (outputs, 1, 1, 1)}
    conv(shapes, f"{name}.residual.2", outputs, inputs)
    conv(shapes, f"{name}.residual.6", outputs, outputs)
    if inputs != outputs:
        conv(shapes, f"{name}.shortcut", outputs, inputs, (1, 1, 1))


def middle(shapes: Shapes, name: str, width: int) -> None:
    residual(shapes, f"{name}.middle.0", width, width)
    shapes[f"{name}.middle.1.norm.gamma"] = (width, 1, 1)
    conv(shapes, f"{name}.middle.1.to_qkv", 3 * width, width, (1, 1))
    conv(shapes, f"{name}.middle.1.proj", width, width, (1, 1))
    residual(shapes, f"{name}.middle.2", width, width)


def vae_shapes() -> Shapes:
    shapes: Shapes = {}
    conv(shapes, "conv1", 32, 32, (1, 1, 1))
    conv(shapes, "conv2", 16, 16, (1, 1, 1))
    conv(shapes, "encoder.conv1", 96, 3)
    width, index = 96, 0
    for level, out in enumerate((96, 192, 384, 384)):
        for _ in range(2):
            residual(shapes, f"encoder.downsamples.{index}", width, out)
            width, index = out, index + 1
        if level < 3:
            conv(shapes, f"encoder.downsamples.{index}.resample.1", out, out, (3, 3))
            if level > 0:
                conv(shapes, f"encoder.downsamples.{index}.time_conv", out, out, (3, 1, 1))
            index += 1
    middle(shapes, "encoder", 384)
    shapes["encoder.head.0.gamma"] = (384, 1, 1, 1)
    conv(shapes, "encoder.head.2", 32, 384)
    conv(shapes, "decoder.conv1", 384, 16)
    middle(shapes, "decoder", 384)
    width, index = 384, 0
    for level, out in enumerate((384, 384, 192, 96)):
        for _ in range(3):
            residual(shapes, f"decoder.upsamples.{index}", width, out)
            width, index = out, index + 1
        if level < 3:
            conv(shapes, f"decoder.upsamples.{index}.resample.1", out // 2, out, (3, 3))
            if level < 2:
                conv(shapes, f"decoder.upsamples.{index}.time_conv", 2 * out, out, (3, 1, 1))
            width, index = out // 2, index + 1
    shapes["decoder.head.0.gamma"] = (96, 1, 1, 1)
    conv(shapes, "decoder.head.2", 3, 96)
    return shapes


def write_random(path: pathlib.Path, shapes: Shapes, dtype: str) -> str:
    """A safetensors file whose tensors all begin at one of two pools of random numbers: vectors in F32, matrices and
    convolutions in dtype (F16 or BF16). The library copies each tensor to a place of its own. The table of tokens
    reaches beyond the pool into a hole of the file, which reads as zeros."""
    import numpy

    def elements(shape: tuple[int, ...]) -> int:
        return int(numpy.prod(shape))

    def is_vector(name: str, shape: tuple[int, ...]) -> bool:
        return max(shape) == elements(shape) or name.endswith("modulation")

    generator = numpy.random.default_rng(0)
    floats = max(elements(shape) for name, shape in shapes.items() if is_vector(name, shape))
    halves = [elements(shape) for name, shape in shapes.items() if not is_vector(name, shape)]
    pool = max(count for count in halves if count < VOCABULARY * common.TEXT_WIDTH)
    header = {}
    for name, shape in shapes.items():
        vector = is_vector(name, shape)
        begin = 0 if vector else 4 * floats
        end = begin + (4 if vector else 2) * elements(shape)
        header[name] = {"dtype": "F32" if vector else dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = 0.02 * generator.standard_normal(pool, dtype=numpy.float32)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.write(generator.uniform(-0.1, 0.1, floats).astype(numpy.float32))
        file.write(numbers.astype(numpy.float16) if dtype == "F16" else (numbers.view(numpy.uint32) >> 16).astype("u2"))
        file.truncate(8 + len(text) + 4 * floats + 2 * max(halves))
    return str(path)


def load(arguments):
    from stable_diffusion_cpp import StableDiffusion

    dtype = "BF16" if arguments.weights == "bf16" else "F16"
    ffn = common.SHAPES[arguments.shape][1]
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        paths = {
            "diffusion_model_path": write_random(
                at / "wan.safetensors", dit_shapes(ffn, arguments.stage == "vae-encode"), dtype
            ),
            "vae_path": write_random(at / "vae.safetensors", vae_shapes(), "F16"),
        }
        if arguments.stage == "text":
            paths["t5xxl_path"] = write_random(at / "umt5.safetensors", text_shapes(), dtype)
        return StableDiffusion(
            **paths,
            wtype="q8_0" if arguments.weights == "q8_0" else "default",
            n_threads=arguments.threads,
            diffusion_flash_attn=arguments.flash_attention == "on",
            flash_attn=False,
        )


def generate(model, arguments) -> None:
    model.generate_video(
        prompt="a red circle",
        cfg_scale=1.0,
        width=arguments.width,
        height=arguments.height,
        video_frames=arguments.num_frames,
        sample_method="euler",
        sample_steps=1,
        sigmas="1.0" if arguments.stage == "vae-decode" else None,  # one sigma is no step
        vae_tiling=arguments.vae_tiling,
        seed=1,
    )


def prepare(arguments) -> common.Peer:
    import stable_diffusion_cpp

    if arguments.shape != "wan2.1-t2v-1.3b":
        raise SystemExit("stable-diffusion.cpp is timed at --shape wan2.1-t2v-1.3b only: it loads whole models")
    model = load(arguments)
    begin_mark, end_mark, times = MARKS[arguments.stage]
    whole = {"dit": LAYERS, "text": common.TEXT_LAYERS}.get(arguments.stage, 1)
    share = arguments.layers / whole if whole > 1 else 1.0
    peak = 0

    def run_child(write_end: int) -> None:
        begin = None

        @stable_diffusion_cpp.sd_log_callback
        def on_log(level: int, message: bytes, data) -> None:
            nonlocal begin
            now = time.perf_counter()
            if begin is not None and end_mark.encode() in message:
                os.write(write_end, struct.pack("d", (now - begin) / times))
                os._exit(0)
            if begin_mark.encode() in message:
                begin = now
            if level >= 2:
                os.write(2, message)

        stable_diffusion_cpp.sd_set_log_callback(on_log, ctypes.c_void_p(0))
        generate(model, arguments)

    def call() -> float:
        nonlocal peak
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                run_child(write_end)
            finally:
                os._exit(1)  # the stage's end was never reached
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            answer = pipe.read()
        _, status, usage = os.wait4(child, 0)
        if len(answer) != 8:
            raise RuntimeError(f"stable-diffusion.cpp did not finish stage {arguments.stage}: wait status {status}")
        peak = max(peak, 1024 * usage.ru_maxrss)
        return share * struct.unpack("d", answer)[0]

    notes = [f"flash attention {arguments.flash_attention}"] if arguments.stage == "dit" else []
    if whole > 1:
        notes.append(f"{whole} layers run, seconds of {arguments.layers}")
    if arguments.stage == "dit":
        notes.append("256 text tokens")
    if arguments.vae_tiling:
        notes.append("VAE in tiles")
    versions = {"stable-diffusion-cpp-python": stable_diffusion_cpp.__version__}
    versions["system"] = stable_diffusion_cpp.sd_get_system_info().decode().strip()
    dtype = arguments.weights if arguments.stage in ("dit", "text") else "f16"
    return common.Peer("stable-diffusion.cpp", call, versions, dtype, notes, warm_up=False, peak_rss=lambda: peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="f16", choices=["f16", "bf16", "q8_0"], help="of the DiT and text encoder")
    parser.add_argument("--flash-attention", default="on", choices=["on", "off"], help="of the DiT")
    parser.add_argument("--vae-tiling", action="store_true", help="where the whole picture's buffers do not fit")
    common.serve(prepare, common.parse(parser))


if __name__ == "__main__":
    main()
