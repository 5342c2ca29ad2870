"""One stage of a real model's shape in OpenVINO: Diffusers' module converted, in bf16 or in int8 by NNCF.

    python openvino_layer.py --stage dit --height 480 --width 832 --num-frames 17 --precision int8

The module is traced and, for int8, calibrated at a small picture size and then given the real one (speed does not
depend on the numbers, and neither step then needs the real size's memory). bf16: inference precision hint bf16. int8: weights
and activations by post-training quantisation of every product that NNCF takes, the rest (attention's products, some of
the VAE's convolutions) in --rest.
"""

import argparse

import common
from diffusers_model import make_stage

SMALL = 64  # pixels a side while tracing and calibrating


def small_example(arguments):
    """The module in float32, and the inputs of one call at the small size."""
    import torch

    small = argparse.Namespace(**vars(arguments) | {"height": SMALL, "width": SMALL})
    model, inputs = make_stage(small, torch.float32)
    for module in model.modules():
        if getattr(module, "mode", None) == "nearest-exact":
            module.mode = "nearest"  # the same at a factor of 2, and the converter knows it
    return model, inputs


def real_shapes(arguments, inputs) -> dict:
    frames, height, width = common.latent_size(arguments)
    real = {
        "vae-decode": {"x": [1, 16, frames, height, width]},
        "vae-encode": {"x": [1, 3, arguments.num_frames, arguments.height, arguments.width]},
        "dit": {"hidden_states": [1, common.SHAPES[arguments.shape][3], frames, height, width]},
        "text": {},
    }[arguments.stage]
    return {name: real.get(name, list(value.shape)) for name, value in inputs.items()}


def quantised(model, inputs, stage: str):
    import nncf

    order = [port.any_name for port in model.inputs]
    item = dict(zip(order, (value.numpy() for value in inputs.values())))
    kind = None if stage.startswith("vae") else nncf.ModelType.TRANSFORMER
    return nncf.quantize(model, nncf.Dataset([item]), model_type=kind, subset_size=1)


def prepare(arguments) -> common.Peer:
    import diffusers
    import numpy
    import openvino
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    versions = {"openvino": openvino.__version__, "torch": torch.__version__, "diffusers": diffusers.__version__}
    module, inputs = small_example(arguments)
    with torch.no_grad():
        model = openvino.convert_model(module, example_input=inputs)
    del module
    notes = []
    if arguments.precision == "int8":
        import nncf

        versions["nncf"] = nncf.__version__
        model = quantised(model, inputs, arguments.stage)
        notes.append(f"the rest {arguments.rest}")
        notes.append(f"{sum(op.get_type_name() == 'FakeQuantize' for op in model.get_ops())} FakeQuantize nodes")
    rest = arguments.rest if arguments.precision == "int8" else arguments.precision
    shapes = real_shapes(arguments, inputs)
    model.reshape(dict(zip((port.any_name for port in model.inputs), shapes.values())))
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": arguments.threads,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[rest],
        },
    )
    del model
    generator = numpy.random.default_rng(0)
    values = []
    for (name, shape), small in zip(shapes.items(), inputs.values()):
        if small.is_floating_point():
            values.append(generator.standard_normal(shape, dtype=numpy.float32))
        else:
            values.append(small.numpy())
    request = compiled.create_infer_request()

    def call() -> None:
        request.infer(values, share_inputs=True, share_outputs=True)

    return common.Peer("OpenVINO", call, versions, arguments.precision, notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "int8", "fp32"])
    parser.add_argument("--rest", default="bf16", choices=["bf16", "fp32"], help="of what int8 leaves")
    common.serve(prepare, common.parse(parser))


if __name__ == "__main__":
    main()
