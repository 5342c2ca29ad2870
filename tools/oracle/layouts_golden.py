"""Writes tests/golden/layouts/: names and shapes of each component in Diffusers' or Transformers' key space, beside
the names and shapes that the same model has in the other layouts.

The canonical side comes from the classes themselves, on the meta device. The other side is written down here from the
modules of the Wan repositories (wan/modules/{model,vace_model,vae2_1,vae2_2,t5,clip}.py and animate/) and from
llama.cpp's names for T5 encoders: lists of names and shapes, with no weights.

    python tools/oracle/layouts_golden.py tests/golden/layouts
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import (AutoencoderKLWan, WanAnimateTransformer3DModel, WanTransformer3DModel,
                       WanVACETransformer3DModel)
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

OUT = Path(sys.argv[1])
DIM, FFN, TEXT, FREQ, IMAGE = 256, 320, 48, 64, 1280


def linear(name, rows, columns, bias=True):
    return {f"{name}.weight": [rows, columns], **({f"{name}.bias": [rows]} if bias else {})}


def conv(name, rows, columns, *kernel, bias=True):
    return {f"{name}.weight": [rows, columns, *kernel], **({f"{name}.bias": [rows]} if bias else {})}


def norm(name, size):
    return {f"{name}.weight": [size], f"{name}.bias": [size]}


# --- transformers ---

def attention(name, image=False):
    names = {}
    for matrix in ("q", "k", "v", "o") + (("k_img", "v_img") if image else ()):
        names |= linear(f"{name}.{matrix}", DIM, DIM)
    for scale in ("norm_q", "norm_k") + (("norm_k_img",) if image else ()):
        names[f"{name}.{scale}.weight"] = [DIM]
    return names


def block(name, image=False):
    return {**attention(f"{name}.self_attn"), **norm(f"{name}.norm3", DIM), **attention(f"{name}.cross_attn", image),
            **linear(f"{name}.ffn.0", FFN, DIM), **linear(f"{name}.ffn.2", DIM, FFN), f"{name}.modulation": [1, 6, DIM]}


def wan_model(in_channels, out_channels, layers, image=False, positions=0):
    names = {**conv("patch_embedding", DIM, in_channels, 1, 2, 2),
             **linear("text_embedding.0", DIM, TEXT), **linear("text_embedding.2", DIM, DIM),
             **linear("time_embedding.0", DIM, FREQ), **linear("time_embedding.2", DIM, DIM),
             **linear("time_projection.1", 6 * DIM, DIM)}
    for i in range(layers):
        names |= block(f"blocks.{i}", image)
    names |= {**linear("head.head", 4 * out_channels, DIM), "head.modulation": [1, 2, DIM]}
    if image:
        names |= {**norm("img_emb.proj.0", IMAGE), **linear("img_emb.proj.1", IMAGE, IMAGE),
                  **linear("img_emb.proj.3", DIM, IMAGE), **norm("img_emb.proj.4", DIM)}
    if positions:
        names["img_emb.emb_pos"] = [1, positions, IMAGE]
    return names


def vace_model(layers, vace_layers, vace_channels):
    names = wan_model(16, 16, layers)
    for n in range(len(vace_layers)):
        names |= block(f"vace_blocks.{n}")
        if n == 0:
            names |= linear(f"vace_blocks.{n}.before_proj", DIM, DIM)
        names |= linear(f"vace_blocks.{n}.after_proj", DIM, DIM)
    return names | conv("vace_patch_embedding", DIM, vace_channels, 1, 2, 2)


def motion_encoder(size=512, style=512, motion=20):
    channels = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32}
    app = "motion_encoder.enc.net_app.convs"
    names = {f"{app}.0.0.weight": [channels[size], 3, 1, 1], f"{app}.0.1.bias": [1, channels[size], 1, 1]}
    index, side = 1, size
    while side > 4:
        here, there = channels[side], channels[side // 2]
        names |= {f"{app}.{index}.conv1.0.weight": [here, here, 3, 3], f"{app}.{index}.conv1.1.bias": [1, here, 1, 1],
                  f"{app}.{index}.conv2.0.kernel": [4, 4],
                  f"{app}.{index}.conv2.1.weight": [there, here, 3, 3], f"{app}.{index}.conv2.2.bias": [1, there, 1, 1],
                  f"{app}.{index}.skip.0.kernel": [4, 4], f"{app}.{index}.skip.1.weight": [there, here, 1, 1]}
        index, side = index + 1, side // 2
    names[f"{app}.{index}.weight"] = [style, channels[4], 4, 4]
    for i in range(5):
        names |= linear(f"motion_encoder.enc.fc.{i}", motion if i == 4 else style, style)
    return names | {"motion_encoder.dec.direction.weight": [512, motion]}


def animate_model(layers):
    names = {**wan_model(36, 16, layers, image=True), **conv("pose_patch_embedding", DIM, 16, 1, 2, 2),
             **motion_encoder()}
    for i in range(layers // 5):
        fuser = f"face_adapter.fuser_blocks.{i}"
        names |= {**linear(f"{fuser}.linear1_kv", 2 * DIM, DIM), **linear(f"{fuser}.linear1_q", DIM, DIM),
                  **linear(f"{fuser}.linear2", DIM, DIM), f"{fuser}.q_norm.weight": [128],
                  f"{fuser}.k_norm.weight": [128]}
    return names | {**conv("face_encoder.conv1_local.conv", 4096, 512, 3), **conv("face_encoder.conv2.conv", 1024, 1024, 3),
                    **conv("face_encoder.conv3.conv", 1024, 1024, 3), **linear("face_encoder.out_proj", DIM, 1024),
                    "face_encoder.padding_tokens": [1, 1, 1, DIM]}


# --- VAEs ---

def residual_block(name, rows, columns):
    return {f"{name}.residual.0.gamma": [columns, 1, 1, 1], **conv(f"{name}.residual.2", rows, columns, 3, 3, 3),
            f"{name}.residual.3.gamma": [rows, 1, 1, 1], **conv(f"{name}.residual.6", rows, rows, 3, 3, 3),
            **(conv(f"{name}.shortcut", rows, columns, 1, 1, 1) if rows != columns else {})}


def coder_ends(name, channels_in, first, last, channels_out, middle):
    return {**conv(f"{name}.conv1", first, channels_in, 3, 3, 3), **residual_block(f"{name}.middle.0", middle, middle),
            f"{name}.middle.1.norm.gamma": [middle, 1, 1], **conv(f"{name}.middle.1.to_qkv", 3 * middle, middle, 1, 1),
            **conv(f"{name}.middle.1.proj", middle, middle, 1, 1), **residual_block(f"{name}.middle.2", middle, middle),
            f"{name}.head.0.gamma": [last, 1, 1, 1], **conv(f"{name}.head.2", channels_out, last, 3, 3, 3)}


def vae(base, decoder_base, z, multiples, blocks, temporal, pixel_channels, residual):
    names = {**conv("conv1", 2 * z, 2 * z, 1, 1, 1), **conv("conv2", z, z, 1, 1, 1)}
    down, up = [base * m for m in [1] + multiples], [decoder_base * m for m in [multiples[-1]] + multiples[::-1]]
    names |= coder_ends("encoder", pixel_channels, down[0], down[-1], 2 * z, down[-1])
    names |= coder_ends("decoder", z, up[0], up[-1], pixel_channels, up[0])
    flat = 0
    for level, (here, there) in enumerate(zip(down[:-1], down[1:])):
        for i in range(blocks + (level + 1 < len(multiples))):
            at = f"encoder.downsamples.{level}.downsamples.{i}" if residual else f"encoder.downsamples.{flat}"
            flat += 1
            if i < blocks:
                names |= residual_block(at, there, here if i == 0 else there)
            else:
                names |= conv(f"{at}.resample.1", there, there, 3, 3)
                names |= conv(f"{at}.time_conv", there, there, 3, 1, 1) if temporal[level] else {}
    flat = 0
    for level, (here, there) in enumerate(zip(up[:-1], up[1:])):
        here = here // 2 if level > 0 and not residual else here
        for i in range(blocks + 1 + (level + 1 < len(multiples))):
            at = f"decoder.upsamples.{level}.upsamples.{i}" if residual else f"decoder.upsamples.{flat}"
            flat += 1
            if i < blocks + 1:
                names |= residual_block(at, there, here if i == 0 else there)
            else:
                names |= conv(f"{at}.resample.1", there if residual else there // 2, there, 3, 3)
                names |= conv(f"{at}.time_conv", 2 * there, there, 3, 1, 1) if temporal[::-1][level] else {}
    return names


# --- encoders ---

def t5_encoder(layers, dim, inner, ffn, heads, vocabulary):
    names = {"token_embedding.weight": [vocabulary, dim], "norm.weight": [dim]}
    for i in range(layers):
        at = f"blocks.{i}"
        names |= {f"{at}.norm1.weight": [dim], f"{at}.norm2.weight": [dim],
                  f"{at}.pos_embedding.embedding.weight": [32, heads]}
        for matrix in "qkv":
            names[f"{at}.attn.{matrix}.weight"] = [inner, dim]
        names |= {f"{at}.attn.o.weight": [dim, inner], f"{at}.ffn.gate.0.weight": [ffn, dim],
                  f"{at}.ffn.fc1.weight": [ffn, dim], f"{at}.ffn.fc2.weight": [dim, ffn]}
    return names


def llama_t5(layers, dim, inner, ffn, heads, vocabulary):
    names = {"token_embd.weight": [vocabulary, dim], "enc.output_norm.weight": [dim]}
    for i in range(layers):
        at = f"enc.blk.{i}"
        names |= {f"{at}.attn_norm.weight": [dim], f"{at}.ffn_norm.weight": [dim], f"{at}.attn_rel_b.weight": [32, heads]}
        for matrix in "qkv":
            names[f"{at}.attn_{matrix}.weight"] = [inner, dim]
        names |= {f"{at}.attn_o.weight": [dim, inner], f"{at}.ffn_gate.weight": [ffn, dim],
                  f"{at}.ffn_up.weight": [ffn, dim], f"{at}.ffn_down.weight": [dim, ffn]}
    return names


def open_clip(layers, dim, ffn, patch, positions):
    names = {"visual.patch_embedding.weight": [dim, 3, patch, patch], "visual.cls_embedding": [1, 1, dim],
             "visual.pos_embedding": [1, positions, dim], **norm("visual.pre_norm", dim),
             **norm("visual.post_norm", dim), "visual.head": [dim, 1024], "log_scale": [],
             "textual.token_embedding.weight": [99, 32], **linear("textual.blocks.0.attn.q", 32, 32)}
    for i in range(layers):
        at = f"visual.transformer.{i}"
        names |= {**norm(f"{at}.norm1", dim), **linear(f"{at}.attn.to_qkv", 3 * dim, dim),
                  **linear(f"{at}.attn.proj", dim, dim), **norm(f"{at}.norm2", dim), **linear(f"{at}.mlp.0", ffn, dim),
                  **linear(f"{at}.mlp.2", dim, ffn)}
    return names


def shapes_of(model, before=""):
    return {before + name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def config_of(model):
    keep = {key: value for key, value in dict(model.config).items() if not key.startswith("_")}
    return {"_class_name": type(model).__name__, **json.loads(json.dumps(keep))}


def write(name, kind, canonical, layouts, config):
    case = {"kind": kind, "config": config, "canonical": canonical, "layouts": layouts}
    lines = json.dumps(case, separators=(",", ":"))
    (OUT / f"{name}.json").write_text(lines + "\n")
    print(name, len(canonical), {layout: len(names) for layout, names in layouts.items()}, len(lines))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    sizes = dict(num_attention_heads=2, attention_head_dim=128, ffn_dim=FFN, text_dim=TEXT, freq_dim=FREQ)
    with torch.device("meta"):
        for name, model, original in (
                ("dit_t2v", WanTransformer3DModel(num_layers=2, **sizes), wan_model(16, 16, 2)),
                ("dit_flf2v", WanTransformer3DModel(num_layers=1, in_channels=36, out_channels=16, image_dim=IMAGE,
                                                    added_kv_proj_dim=DIM, pos_embed_seq_len=514, **sizes),
                 wan_model(36, 16, 1, image=True, positions=514)),
                ("dit_vace", WanVACETransformer3DModel(num_layers=4, vace_layers=[0, 2], **sizes),
                 vace_model(4, [0, 2], 96)),
                ("dit_animate", WanAnimateTransformer3DModel(num_layers=5, added_kv_proj_dim=DIM, **sizes),
                 animate_model(5))):
            write(name, "dit", shapes_of(model), {"original": original}, config_of(model))
        plain = AutoencoderKLWan(base_dim=8)
        write("vae_2_1", "vae", shapes_of(plain),
              {"original": vae(8, 8, 16, [1, 2, 4, 4], 2, [False, True, True], 3, False)}, config_of(plain))
        deep = AutoencoderKLWan(base_dim=8, num_res_blocks=3, dim_mult=[1, 2], temperal_downsample=[True],
                                scale_factor_temporal=2, scale_factor_spatial=2)
        write("vae_other_depth", "vae", shapes_of(deep), {"original": vae(8, 8, 16, [1, 2], 3, [True], 3, False)},
              config_of(deep))
        residual = AutoencoderKLWan(base_dim=16, decoder_base_dim=32, z_dim=48, is_residual=True, in_channels=12,
                                    out_channels=12, patch_size=2, scale_factor_spatial=16)
        config = config_of(residual)
        del config["latents_mean"], config["latents_std"]  # the class has those of the other VAE
        write("vae_2_2", "vae", shapes_of(residual),
              {"original": vae(16, 32, 48, [1, 2, 4, 4], 2, [False, True, True], 12, True)}, config)
        config = UMT5Config(vocab_size=99, d_model=48, d_kv=16, d_ff=80, num_layers=2, num_heads=4)
        text = UMT5EncoderModel(config)
        names = shapes_of(text)
        names.pop("encoder.embed_tokens.weight", None)  # the same table as shared.weight
        write("umt5", "umt5", names, {"original": t5_encoder(2, 48, 64, 80, 4, 99),
                                      "llama.cpp": llama_t5(2, 48, 64, 80, 4, 99)}, config.to_dict())
        config = CLIPVisionConfig(hidden_size=160, intermediate_size=320, num_hidden_layers=2, num_attention_heads=2,
                                  patch_size=14, image_size=56, hidden_act="gelu", projection_dim=1024)
        picture = CLIPVisionModel(config)
        write("clip", "clip", shapes_of(picture, "vision_model."),
              {"original": open_clip(2, 160, 320, 14, 17), "Diffusers": shapes_of(picture)}, config.to_dict())


if __name__ == "__main__":
    main()
