"""Files made to cost time, memory or a terminal are refused at once, in a line that a person can read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from lora_clf.adapters import disk, file
from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.canonical import parse
from lora_clf.adapters.file import CARD, CONFIG, MODEL
from lora_clf.adapters.verification import verify_folder
from lora_clf.adapters.wording import brief, few
from lora_clf.errors import AdapterFormatError
from tests.adapters.making import make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make("bert", "head-only").save(tmp_path / "a")


def test_a_file_larger_than_its_table_says_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / MODEL).open("ab") as model:
        model.truncate(1 << 30)
    read: list[int] = []

    def counted(opened: Any, size: int) -> bytearray:
        read.append(size)
        return disk.contents(opened, size)

    monkeypatch.setattr(file, "contents", counted)
    with pytest.raises(AdapterFormatError, match=r"1,073,\d+,\d+ are there"):
        load_adapter(folder, make("bert").base)
    steps = verify_folder(folder, lambda header: make("bert").base)
    assert steps[0].passed is False and "are there" in steps[0].found
    assert read == []


def test_a_key_that_is_there_twice_is_found_at_once() -> None:
    keys = [f'"k{number}":0' for number in range(60_000)]
    start = time.process_time()
    with pytest.raises(AdapterFormatError, match="the key 'k59999' is there twice"):
        parse("{" + ",".join([*keys, '"k59999":1']) + "}", "It")
    assert time.process_time() - start < 1  # 30 s when every key was counted


def test_messages_stay_short_and_printable(folder: Path) -> None:
    keys = [f'"\\u001b[2Jk{number}":0' for number in range(5_000)]
    (folder / CONFIG).write_text("{" + ",".join([*keys, f'"{"x" * 5_000}":1']) + "}")
    with pytest.raises(AdapterFormatError) as caught:
        load_adapter(folder, make("bert").base)
    said = str(caught.value)
    assert len(said) < 1_000 and said.isprintable()
    assert "and 50" in said and " more" in said


def test_a_card_that_is_no_file_is_no_fault_of_the_adapter(folder: Path) -> None:
    (folder / CARD).unlink()
    (folder / CARD).symlink_to("/dev/zero")
    assert load_adapter(folder, make("bert").base).labels == ("ham", "spam")
    steps = verify_folder(folder, lambda header: make("bert").base)
    assert len(steps) == 7 and all(step.passed for step in steps)
    assert "no file that can be read" in steps[1].found


def test_brief_and_few() -> None:
    assert brief("head.weight") == "head.weight" and brief("Grüße") == "Grüße"
    assert brief("a\x1b[2J\n") == r"a\x1b[2J\n" and brief("\u202efo") == r"\u202efo"
    assert len(brief("x" * 5_000)) == 80 and brief("x" * 80) == "x" * 80
    assert few("abc") == "a, b, c" and few("abcdefg", "; ") == "a; b; c; d; e; and 2 more"
