"""What the command tests share: a tiny base and a small table on disk, an adapter trained on them, a runner."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lora_clf.cli.app import app

WORDS = {
    "spam": ["win", "prize", "free", "cash", "call", "now", "claim", "offer", "click", "urgent", "bonus", "deal"],
    "ham": ["lunch", "home", "later", "mum", "train", "sofa", "tea", "school", "walk", "dinner", "sleep", "book"],
}


class Ran:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        return json.loads(self.out)

    def ok(self) -> Ran:
        assert self.code == 0, self.err
        return self


def run_cli(*args: object, stdin: str | bytes | None = None) -> Ran:
    result = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def cli() -> Callable[..., Ran]:
    return run_cli


def rows(count: int, start: int = 0) -> list[tuple[str, str]]:
    """Texts of four words in a label's own vocabulary; no two alike."""
    made = []
    for number in range(start, start + count):
        label = "spam" if number % 3 == 0 else "ham"
        words = WORDS[label]
        places = [number % 12, (number // 12 + 3) % 12, (number * 5 + 7) % 12, (number * 7 + number // 5) % 12]
        made.append((" ".join(words[place] for place in places), label))
    return made


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "Messages.csv"
    lines = [f"{text} {number},{label}" for number, (text, label) in enumerate(rows(180))]
    file.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two blocks with a WordPiece tokenizer, in transformers' format."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127)]
    names = [*special, *letters, *(f"##{letter}" for letter in letters), *WORDS["spam"], *WORDS["ham"]]
    names = [name for name in dict.fromkeys(names)]
    vocabulary = {name: number for number, name in enumerate(names)}
    fast = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("bases") / "tiny-bert"
    PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(base: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An adapter's folder and what `train --json` said of it."""
    folder = tmp_path_factory.mktemp("adapters") / "spam"
    ran = run_cli(
        "train", table, "--base", base, "--strategy", "lora", "--rank", 4, "--epochs", 6, "--lr", 0.02,
        "--precision", "fp32", "--device", "cpu", "--out", folder, "--json",
    )  # fmt: skip
    return folder, ran.ok().json()


@pytest.fixture
def adapter(trained: tuple[Path, Any]) -> Path:
    return trained[0]
