"""One stage of a real model's shape in Diffusers and Transformers, on random weights.

    python diffusers_model.py --stage dit --height 480 --width 832 --num-frames 17
    python diffusers_model.py --compile --json
    python diffusers_model.py --zoetrope build/zoetrope        # alternately with Zoetrope, one table row

The DiT is the model with --layers blocks: patches in, time and text embedding, the blocks, patches out. The text
encoder reads its 512 padded tokens, as Diffusers' pipelines have it. See common.py for the rest.
"""

import argparse
import statistics

import common


def make_dit(arguments, dtype):
    import torch
    from diffusers import WanTransformer3DModel

    heads, ffn, _, channels = common.SHAPES[arguments.shape]
    model = WanTransformer3DModel(num_attention_heads=heads, ffn_dim=ffn, num_layers=arguments.layers).eval()
    keep = WanTransformer3DModel._keep_in_fp32_modules  # as from_pretrained(torch_dtype=...) loads it
    for name, parameter in model.named_parameters():
        if not any(part in name.split(".") for part in keep):
            parameter.data = parameter.data.to(dtype)
    inputs = {
        "hidden_states": torch.randn(1, channels, *common.latent_size(arguments), dtype=dtype),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, common.TEXT_LENGTH, common.TEXT_WIDTH, dtype=dtype),
    }
    return model, inputs


def make_text(arguments, dtype):
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=256,  # the table is only looked up in
        d_model=common.TEXT_WIDTH,
        d_kv=common.TEXT_WIDTH // common.TEXT_HEADS,
        d_ff=common.TEXT_FFN,
        num_layers=arguments.layers,
        num_heads=common.TEXT_HEADS,
    )
    model = UMT5EncoderModel(config).to(dtype).eval()
    places = torch.arange(common.TEXT_LENGTH)
    return model, {"input_ids": places[None] % 256, "attention_mask": (places < arguments.tokens)[None].long()}


def make_vae(arguments, dtype):
    """A module of one call: the frames of latents, or the latents' distribution of frames."""
    import torch
    from diffusers import AutoencoderKLWan

    decodes = arguments.stage == "vae-decode"

    class Stage(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vae = AutoencoderKLWan()

        def forward(self, x):
            if decodes:
                return self.vae.decode(x, return_dict=False)[0]
            return self.vae.encode(x, return_dict=False)[0].parameters

    frames, height, width = common.latent_size(arguments)
    if decodes:
        x = torch.randn(1, 16, frames, height, width, dtype=dtype)
    else:
        x = torch.randn(1, 3, arguments.num_frames, arguments.height, arguments.width, dtype=dtype).tanh()
    stage = Stage()
    stage.vae.to(dtype)
    return stage.eval(), {"x": x}


def make_stage(arguments, dtype):
    """The module of arguments.stage and the inputs of one call."""
    if arguments.stage == "dit":
        return make_dit(arguments, dtype)
    return make_text(arguments, dtype) if arguments.stage == "text" else make_vae(arguments, dtype)


def prepare(arguments) -> common.Peer:
    import diffusers
    import torch
    import transformers

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    versions["transformers"] = transformers.__version__
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[arguments.dtype]
    model, inputs = make_stage(arguments, dtype)
    name = "Diffusers"
    notes = []
    if arguments.compile:
        import torch._dynamo
        import torch._inductor.config

        name = "Diffusers, torch.compile"
        torch._dynamo.config.cache_size_limit = 64  # the VAE's code is specialised per frame and cache state
        torch._inductor.config.freezing = not arguments.no_freezing
        if torch._inductor.config.freezing:
            notes.append("weights frozen")
        if arguments.compile_mode != "default":
            notes.append(f"mode {arguments.compile_mode}")
        model = torch.compile(model, mode=arguments.compile_mode, dynamic=False)

    def call() -> None:
        with torch.no_grad():
            model(**inputs)

    if arguments.compile:
        call()  # compiles; the second call is the warm-up
    return common.Peer(name, call, versions, arguments.dtype, notes)


def alternate(arguments) -> None:
    """One row of a table: --repeats timed calls, and after each one of Zoetrope's."""
    peer = prepare(arguments)
    common.timed(peer)
    theirs, ours = [], []
    for _ in range(arguments.repeats):
        theirs.append(common.timed(peer))
        ours.append(common.run_zoetrope(arguments.zoetrope, arguments, arguments.stage, arguments.dtype))
    seconds = [result["seconds"] for result in ours]
    middle = statistics.median(seconds)
    print(
        f"| {arguments.stage} {arguments.width}x{arguments.height}x{arguments.num_frames} {arguments.dtype} "
        f"| {statistics.median(theirs):.2f} ({min(theirs):.2f} to {max(theirs):.2f}) "
        f"| {middle:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {statistics.median(theirs) / middle:.2f} "
        f"| {100 * statistics.median(result['fraction_of_peak'] for result in ours):.0f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    parser.add_argument("--compile-mode", default="default", choices=["default", "max-autotune-no-cudagraphs"])
    parser.add_argument("--no-freezing", action="store_true", help="compile with weights that may change")
    parser.add_argument("--zoetrope", help="the program to alternate with; without it the peer alone")
    arguments = common.parse(parser)
    if arguments.zoetrope:
        alternate(arguments)
    else:
        common.serve(prepare, arguments)


if __name__ == "__main__":
    main()
