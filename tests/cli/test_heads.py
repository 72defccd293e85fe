"""`train --head verbalizer`: words from the command line, and an adapter that predicts without any of these flags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_clf.adapters.file import read_header
from lora_clf.cli.heads import words_of
from lora_clf.errors import UsageError
from tests.base.test_verbalizer import decoder
from tests.cli.conftest import Ran

Cli = Callable[..., Ran]


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder(tmp_path_factory.mktemp("bases") / "speaker", "gpt2", tied=True)


def test_words_for_labels(cli: Cli, speaker: Path, table: Path, tmp_path: Path) -> None:
    args = ("train", table, "--base", speaker, "--strategy", "head-only", "--epochs", 0, "--head", "verbalizer")
    words = ("--template", r"Text: {text}\nSpam?", "--verbalizer", "spam=yes, ham=no")
    ran = cli(*args, *words, "--out", tmp_path / "asked", "--json").ok().json()
    assert ran["trainable_parameters"] == 2 and ran["history"] == [] and ran["best_epoch"] == 0
    header = read_header(tmp_path / "asked")
    assert header.verbalizer is not None and header.verbalizer["template"] == "Text: {text}\nSpam?"
    assert header.labels == ("ham", "spam") and header.verbalizer["words"] == ["no", "yes"]
    answer = cli("predict", tmp_path / "asked", "win a prize", "--base", speaker, "--json").ok()
    assert '"label"' in answer.out
    shown = cli(*args, "--out", tmp_path / "named").ok()
    assert "Trainable parameters: 2 of" in shown.out
    assert read_header(tmp_path / "named").verbalizer["words"] == ["ham", "spam"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--template", "{text}:"), "--template: this is about --head verbalizer"),
        (("--head", "verbaliser"), "Did you mean 'verbalizer'"),
        (("--head", "verbalizer", "--verbalizer", "spam"), "expected LABEL=WORD once for each label"),
        (("--head", "verbalizer", "--verbalizer", "spam=yes"), "no word for ham"),
        (("--head", "verbalizer", "--pooling", "mean"), "--pooling mean does not apply"),
    ],
)
def test_flags_that_make_no_sense(cli: Cli, speaker: Path, table: Path, flags: tuple[str, ...], message: str) -> None:
    ran = cli("train", table, "--base", speaker, "--out", table.parent / "never", *flags)
    assert ran.code == 2 and message in ran.err and not (table.parent / "never").exists()


def test_words_may_be_json() -> None:
    assert words_of('{"a,b": "one", "c=d": "two"}') == {"a,b": "one", "c=d": "two"}
    for wrong in ("{", '{"a": 1}', "", "a=1,a=2", "a=,b=1"):
        with pytest.raises(UsageError, match="--verbalizer"):
            words_of(wrong)
