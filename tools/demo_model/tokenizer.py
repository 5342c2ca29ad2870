"""Makes the tokenizer: a SentencePiece unigram model in T5's layout (pad 0, eos 1, unk 2).

    python tokenizer.py --output MODEL/tokenizer

Every word of the captions is one piece; any other printable ASCII is spelled in smaller pieces.
"""

from __future__ import annotations

import argparse
import io
import json
import string
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

import data

FILE_NAME = "spiece.model"
WORD_SCORE, LETTER_SCORE = -5.0, -10.0


def build(path: Path) -> None:
    """Writes the SentencePiece file. Training is run for its normaliser and settings only: it would
    merge and split words as their letters happen to be spread, so the pieces are set by hand."""
    characters = string.ascii_letters + string.digits + string.punctuation
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(data.vocabulary()), model_writer=trained, model_type="unigram", vocab_size=1000,
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=False,
        normalization_rule_name="nmt_nfkc", required_chars=characters, num_threads=1, minloglevel=2)
    model = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    del model.pieces[3:]
    words = data.vocabulary()
    for word in words + [word.capitalize() for word in words if len(word) > 1]:
        model.pieces.add(piece="\u2581" + word, score=WORD_SCORE)
    for letter in "\u2581" + characters:
        model.pieces.add(piece=letter, score=LETTER_SCORE)
    model.pieces.add(piece="\u2581A", score=WORD_SCORE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def load(folder: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / FILE_NAME))


def write_transformers_files(folder: Path) -> None:
    """What AutoTokenizer needs beside the SentencePiece file."""
    from transformers import T5Tokenizer

    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": [], "legacy": False,
                "model_max_length": 512, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    (folder / "tokenizer.json").unlink(missing_ok=True)
    T5Tokenizer.from_pretrained(folder)._tokenizer.save(str(folder / "tokenizer.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    folder = parser.parse_args().output
    build(folder / FILE_NAME)
    write_transformers_files(folder)


if __name__ == "__main__":
    main()
