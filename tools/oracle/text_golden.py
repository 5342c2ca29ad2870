"""Writes tests/golden/text: small tokenizers in T5's and UMT5's layout with the ids that Transformers gives, and
tiny random UMT5 encoders with their outputs.

    python tools/oracle/text_golden.py

Needs transformers 5, tokenizers, sentencepiece, safetensors and torch.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import unicodedata
from pathlib import Path

import sentencepiece
import torch
import transformers
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers.models import Unigram
from transformers.models.umt5.modeling_umt5 import UMT5Attention, UMT5Config, UMT5EncoderModel

OUT = Path(__file__).parents[2] / "tests/golden/text"
SENTENCES = """A red fox walks across the fresh snow while the sun rises behind the mountains.
Two cats in boxing gear fight under bright lights on a stage, cinematic, slow motion, 35mm film.
The camera pans to the left and follows a boat that sails along the river at night.
An old man with a white beard reads a letter; the wind moves the curtains of the room.
Close-up of a hand that paints flowers on a wall, soft light, shallow depth of field...
Overexposed, static, blurred details, subtitles, worst quality, low quality, JPEG artifacts, ugly!!!
Ein kleiner Hund läuft über die grüne Wiese und bellt den großen Ball an.
Une femme élégante traverse la rue sous la pluie, un parapluie à la main.
El niño corre por la playa mientras las olas rompen contra las rocas.
Быстрая лиса бежит по снегу, а над лесом поднимается солнце.
一只红色的狐狸在雪地里行走，太阳从山后升起。
色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量。
夕方の海辺を二匹の猫が歩いている。カメラはゆっくり右へ動く。
눈 덮인 산길을 한 남자가 천천히 걸어가고 있습니다.
ثعلب أحمر يمشي على الثلج بينما تشرق الشمس خلف الجبال.
एक लाल लोमड़ी बर्फ पर चल रही है और सूरज पहाड़ों के पीछे उग रहा है।
สุนัขจิ้งจอกสีแดงเดินบนหิมะขณะที่ดวงอาทิตย์ขึ้นหลังภูเขา
Một con cáo đỏ đi trên tuyết khi mặt trời mọc sau những ngọn núi.
Kırmızı bir tilki karda yürürken güneş dağların arkasından doğuyor.
Μια κόκκινη αλεπού περπατά στο χιόνι καθώς ο ήλιος ανατέλλει.
שועל אדום הולך בשלג בזמן שהשמש זורחת מאחורי ההרים.
4K, 60 fps, 832x480, f/1.8, ISO 100, 2026-01-31, 50%, $9.99, #sunset @home [wide] (shot) {one} <two> "three" 'four'""".split("\n")
TAGS = "[eod] [web] [wiki] [translate] [convo] [fc] [ffc] [code] [book] [c4] [news] [forum] [eot]".split()
SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
ATOMS = ["</s>", "<pad>", "<unk>", "<s>", "<extra_id_0>", "<extra_id_99>", "<extra_id_299>", "[eod]", "<0x41>", "＜/s＞", "＜unk＞"]
BITS = ["a", "snow", "世界", "café", "e\u0301", "ｅ\u0301", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "🫠", "👨‍👩‍👧", "🇩🇪",
        "▁", "▁▁", "ﬁ", "①", "ｶﾞ", "½", "क्ष", "ไทย", "กำ", "한국", "각", "مرحبا", "\u200b", "\u200d", "\ufeff", "\x01", "\x7f",
        "...", "!!!", "，", "。", "！", "Ａ", "¨", "\u0300", "Å", "Ω", "㍿", "\u00ad", "\u2028", "9", "<", "[", "zzqq"]


def strings() -> list[str]:
    rng = random.Random(5)
    result = ["", " ", "   ", "\n", "a", " a", "a ", "  lots   of   space  ", "\ttabs\tand\nlines\n", "x" * 400,
              "The fox and the cat. " * 150, "</s</s>", "<extra_id_1><extra_id_10>", "<extra_id_", "a</s>b </s> c"]
    result += SENTENCES + [atom + " fox" for atom in ATOMS] + [f"fox{atom}cat" for atom in ATOMS]
    result += [c * n for c in ".!-a9哈" for n in (2, 3, 5, 8, 13, 21)] + ["ha" * n for n in range(2, 12)]
    result += ["".join(rng.choice(BITS + ATOMS) for _ in range(rng.randint(1, 14))) for _ in range(190)]
    return result


def normalisation_rules() -> str:
    """A part of NFKC, small enough to be kept: compatibility forms, composed letters, controls."""
    rules = {}
    for first, last in ((0xA0, 0x17F), (0x2100, 0x214F), (0x2460, 0x2473), (0x3000, 0x3000), (0x3370, 0x337F),
                        (0xFB00, 0xFB06), (0xFF01, 0xFF9F)):
        for code in range(first, last + 1):
            normal = unicodedata.normalize("NFKC", chr(code))
            if normal != chr(code):
                rules[chr(code)] = normal
            parts = unicodedata.normalize("NFD", chr(code))
            if len(parts) > 1:
                rules[parts] = chr(code)
    for half, full in (("ｶﾞ", "ガ"), ("ﾊﾟ", "パ")):
        rules[half] = full
    rules.update({"\t": " ", "\n": " ", "\r": " ", "\u2028": " ", "\u200b": " ", "\ufeff": " ", "\x01": "", "\x7f": "", "\u00ad": ""})
    line = lambda text: " ".join(f"{ord(c):X}" for c in text)
    return "".join(f"{line(source)}\t{line(target)}\n" for source, target in sorted(rules.items()))


def train(folder: Path, **settings) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, model_type="unigram", hard_vocab_limit=False, num_threads=1,
        minloglevel=2, pad_id=0, eos_id=1, **settings)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    proto.trainer_spec.ClearField("input")
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(proto.SerializeToString())


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")


def ids(folder: Path, unk_id: int) -> list[list[int]]:
    """What AutoTokenizer gives, but with the unknown token's id from the file: Transformers 5 puts 2."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    vocab = json.loads(tokenizer._tokenizer.to_str())["model"]["vocab"]
    tokenizer._tokenizer.model = Unigram([tuple(entry) for entry in vocab], unk_id=unk_id, byte_fallback=False)
    return [tokenizer(text, max_length=512, truncation=True)["input_ids"] for text in strings()]


def umt5_json(folder: Path) -> dict:
    """tokenizer.json as the released UMT5 has it."""
    proto = sentencepiece_model_pb2.ModelProto.FromString((folder / "spiece.model").read_bytes())
    vocab = [[piece.piece, piece.score] for piece in proto.pieces]
    size = len(vocab)
    vocab += [[f"<extra_id_{n}>", 0.0] for n in range(299, -1, -1)]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    metaspace = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=n, content=vocab[n][0], **flags) for n in [*range(4), *range(size, size + 300)]],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": metaspace, "post_processor": None, "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False}}


def write_tokenizers() -> None:
    t5, t5_json, umt5 = OUT / "tokenizer_t5", OUT / "tokenizer_t5_json", OUT / "tokenizer_umt5"
    rules = OUT / "rules.tsv"
    rules.write_text(normalisation_rules())
    train(t5, vocab_size=800, unk_id=2, bos_id=-1, character_coverage=0.99, normalization_rule_tsv=str(rules))
    rules.unlink()
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, **SPECIAL}
    write(t5 / "tokenizer_config.json", config)
    shutil.rmtree(t5_json, ignore_errors=True)
    t5_json.mkdir()
    transformers.AutoTokenizer.from_pretrained(t5)._tokenizer.save(str(t5_json / "tokenizer.json"), pretty=False)
    write(t5_json / "tokenizer_config.json", config)

    train(umt5, vocab_size=1000, bos_id=2, unk_id=3, byte_fallback=True, user_defined_symbols=TAGS, split_digits=True,
          character_coverage=0.985, normalization_rule_name="identity")
    write(umt5 / "tokenizer_config.json", {**config, "extra_ids": 300})
    expected = {"strings": strings(), "t5": ids(t5, 2), "umt5_spiece": ids(umt5, 3)}
    assert expected["t5"] == ids(t5_json, 2)
    write(umt5 / "tokenizer.json", umt5_json(umt5))
    names = [f"<extra_id_{n}>" for n in range(300)]
    write(umt5 / "tokenizer_config.json", {**config, "extra_ids": 300, "additional_special_tokens": names})
    expected["umt5"] = ids(umt5, 3)
    write(OUT / "tokenizer_ids.json", expected)


def encode(model: UMT5EncoderModel, tokens: torch.Tensor) -> torch.Tensor:
    """As the Wan pipelines do: padded to 512 and masked, cut to the real length."""
    padded = torch.zeros(1, 512, dtype=torch.long)
    padded[0, : len(tokens)] = tokens
    mask = (torch.arange(512) < len(tokens)).long()[None]
    with torch.no_grad():
        return model(padded, attention_mask=mask).last_hidden_state[:, : len(tokens)].contiguous()


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def write_encoder(name: str, table: str, down_scale: float, **settings) -> None:
    torch.manual_seed(11)
    config = UMT5Config(**settings, dropout_rate=0.0)
    model = UMT5EncoderModel(config).eval()
    for key, parameter in model.named_parameters():
        if "layer_norm" in key:
            parameter.data = 1 + 0.2 * torch.randn_like(parameter)
        elif "relative_attention_bias" in key or "embed" in key or "shared" in key:
            parameter.data = torch.randn_like(parameter)
        else:
            parameter.data = torch.randn_like(parameter) / parameter.shape[1] ** 0.5
    model.encoder.block[1].layer[1].DenseReluDense.wo.weight.data *= down_scale
    folder = OUT / name
    folder.mkdir(exist_ok=True)
    weights = {key: value.contiguous() for key, value in model.state_dict().items() if "embed" not in key and "shared" not in key}
    weights[table] = model.shared.weight.data.clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)

    halves = {kind: UMT5EncoderModel.from_pretrained(folder, dtype=dtype).eval()
              for kind, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16))}
    exact = UMT5EncoderModel.from_pretrained(folder, dtype=torch.float64).eval()
    expected = {}
    for length in (1, 7, 200):
        tokens = torch.randint(2, config.vocab_size, (length,))
        tokens[-1] = 1
        out = encode(model, tokens)
        expected |= {f"ids_{length}": tokens, f"out_{length}": out}
        for kind, half in halves.items():
            expected[f"{kind}_distance_{length}"] = torch.tensor([distance(encode(half, tokens), out)])
        print(f"{name}, {length} tokens: Transformers' float32 to float64 {distance(out, encode(exact, tokens)):.1e}, "
              f"bf16 to float32 {float(expected[f'bf16_distance_{length}']):.1e}, "
              f"fp16 {float(expected[f'fp16_distance_{length}']):.1e}")
    save_file(expected, folder / "expected.safetensors")


def write_buckets() -> None:
    tables = []
    for buckets, distance_limit in ((32, 128), (8, 20), (64, 256)):
        attention = UMT5Attention(UMT5Config(relative_attention_num_buckets=buckets, relative_attention_max_distance=distance_limit))
        found = attention._relative_position_bucket(torch.arange(-600, 601))
        tables.append({"buckets": buckets, "max_distance": distance_limit, "expected": found.tolist()})
    write(OUT / "position_buckets.json", tables)


def main() -> None:
    transformers.logging.set_verbosity_error()
    OUT.mkdir(parents=True, exist_ok=True)
    write_tokenizers()
    write_buckets()
    write_encoder("umt5_gated", "shared.weight", 1.0, vocab_size=100, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=3)
    write_encoder("umt5_relu", "encoder.embed_tokens.weight", 2e4, vocab_size=64, d_model=16, d_kv=16, d_ff=40, num_layers=3,
                  num_heads=4, feed_forward_proj="relu", relative_attention_num_buckets=16, relative_attention_max_distance=50)


if __name__ == "__main__":
    main()
