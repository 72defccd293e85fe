"""Files made to cost time, memory or a terminal are refused at once, in a line that a person can read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lora_clf.adapters import disk, file
from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.canonical import parse
from lora_clf.adapters.file import CARD, CONFIG, MODEL
from lora_clf.adapters.header import Header
from lora_clf.adapters.pool import AdapterPool
from lora_clf.adapters.verification import verify_folder
from lora_clf.adapters.wording import brief, few
from lora_clf.base.base import Base
from lora_clf.errors import AdapterFormatError, BaseNotFoundError
from lora_clf.tuners import strategies
from tests.adapters.making import make
from tests.stress.mutations import Files, header_of, sign, take_apart, true_giant, write
from tests.stress.test_corrupt_adapters import bounded


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
    assert time.process_time() - start < 10  # of the processor; 30 when every key was counted


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


def _table(data: bytes) -> str:
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length].rstrip(b" ").decode()


# Each is a text that is not what we write, though a reader who takes the header out of it might not notice.
SPELLINGS: tuple[tuple[str, Callable[[str], str], str], ...] = (
    ("a comma before nothing", lambda text: text[: text.index('},"') + 2] + "}", "is not JSON"),
    ("a comma too many", lambda text: text.replace('},"', '},,"', 1), "is not JSON"),
    ("no comma", lambda text: text.replace('},"', '} "', 1), "is not JSON"),
    ("more behind", lambda text: text + "}", "is not JSON"),
    ("metadata twice", lambda text: text[:-1] + ',"__metadata__":{}}', "'__metadata__' is there twice"),
    ("escaped", lambda text: text[:-1] + ',"__metad\\u0061ta__":{}}', "'__metadata__' is there twice"),
    ("more metadata", lambda text: text.replace('},"', ',"format":"pt"},"', 1), "more than lora_clf: 'format'"),
    ("a tensor twice", lambda text: text[:-1] + "," + text[text.index('},"') + 2 :], "is there twice"),
    ("a lone surrogate", lambda text: text.replace('"a\\"', '"\\ud800\\"', 1).replace("{\\", "\\ud800", 1), "JSON"),
    ("too deep", lambda text: text[:-1] + ',"x":' + "[" * 30 + "]" * 30 + "}", "more than 20 deep"),
    ("a number too large", lambda text: text[:-1] + ',"x":1e999}', "1e999 is too large"),
    ("not a number", lambda text: text[:-1] + ',"x":NaN}', "NaN is not a number"),
)


@pytest.mark.parametrize(
    ("what", "change", "says"), SPELLINGS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_table_in_another_spelling_is_no_way_around_its_checks(
    what: str, change: Callable[[str], str], says: str, folder: Path
) -> None:
    data = (folder / MODEL).read_bytes()
    text = _table(data)
    changed = change(text)
    assert changed != text
    tensors = data[8 + int.from_bytes(data[:8], "little") :]
    load_adapter(folder, make("bert").base)  # its list of tensors is known now
    (folder / MODEL).write_bytes(len(changed).to_bytes(8, "little") + changed.encode() + tensors)
    with pytest.raises(AdapterFormatError, match=says):
        load_adapter(folder, make("bert").base)


def test_a_table_with_spaces_or_its_header_last_reads_the_same(folder: Path) -> None:
    data = (folder / MODEL).read_bytes()
    tensors = data[8 + int.from_bytes(data[:8], "little") :]
    values = json.loads(_table(data))
    whole = load_adapter(folder, make("bert").base)
    last = dict([*list(values.items())[1:], ("__metadata__", values["__metadata__"])])
    for text in (json.dumps(values), json.dumps(last, separators=(",", ":")), json.dumps(values, indent=1)):
        (folder / MODEL).write_bytes(len(text).to_bytes(8, "little") + text.encode() + tensors)
        again = load_adapter(folder, make("bert").base)
        assert again.header == whole.header and len(again.header.tensors) == len(values) - 1 > 0


def test_equal_lists_with_other_bytes_behind_are_not_taken_for_each_other(folder: Path, tmp_path: Path) -> None:
    other = make("bert", "head-only", seed=1).save(tmp_path / "b")
    one, two = (_table((place / MODEL).read_bytes()) for place in (folder, other))
    assert one != two and one[one.index('},"') :] == two[two.index('},"') :]
    load_adapter(folder, make("bert").base)
    with (other / MODEL).open("ab") as file:
        file.write(b"\0\0\0\0")
    with pytest.raises(AdapterFormatError, match="are there"):
        load_adapter(other, make("bert").base)


INTEGERS = {
    name: sorted(field.name for field in fields(kind) if str(field.type).startswith("int"))
    for name, kind in strategies().items()
}
SIZES = [(name, size) for name, names in INTEGERS.items() for size in names if size != "projection_seed"]


def test_no_memory_is_taken_for_what_a_header_claims(tmp_path: Path, value: int = 2**31) -> None:
    """Signed headers whose settings name sizes that no tensor of the file has; of every strategy."""
    adapters: dict[str, Files] = {}
    for name in strategies():
        folder = make("bert", name).save(tmp_path / name)
        adapters[name] = {path.name: path.read_bytes() for path in folder.iterdir()}
    claims = [*SIZES, ("peft", "set")]
    for number, (name, size) in enumerate(claims):
        files = adapters[name]
        table, data = take_apart(bytes_of(files))
        header = header_of(table)
        settings = {**header["settings"], size: f"r={value}" if size == "set" else value}
        write(tmp_path / f"{number}", sign(files, {**header, "settings": settings}, table, data))
        with (
            pytest.raises(AdapterFormatError, match=r"none of its tensors|blocks|rank|fit"),
            bounded(f"{name}, {size}"),
        ):
            load_adapter(tmp_path / f"{number}", make("bert").base)
    assert len(claims) >= 20 and {name for name, _ in claims} >= set(strategies()) - {"full", "head-only"}


@pytest.mark.parametrize(
    "value", ['rank_pattern={"query":2147483647}', 'alpha_pattern={"(.*)*x":1}', "exclude_modules=(.*)*x"]
)
def test_no_patterns_of_a_header_reach_peft(value: str, tmp_path: Path) -> None:
    files: Files = {path.name: path.read_bytes() for path in make("bert", "peft").save(tmp_path / "a").iterdir()}
    table, data = take_apart(bytes_of(files))
    settings = {**header_of(table)["settings"], "set": f"r=8,{value}"}
    write(tmp_path / "b", sign(files, {**header_of(table), "settings": settings}, table, data))
    base = make("bert").base
    for load in (lambda: load_adapter(tmp_path / "b", base), lambda: AdapterPool(base).add("one", tmp_path / "b")):
        with pytest.raises(AdapterFormatError, match=f"--set {value.partition('=')[0]}"), bounded(value):
            load()


GIANT = 10**400


@pytest.mark.parametrize(
    ("strategy", "change"),
    [
        *[(name, {"settings": {"rank": 3, "alpha": GIANT}}) for name in ("lora", "lora-scratch", "dora", "adalora")],
        ("head-only", {"metrics": {"test": {"accuracy": -GIANT}}}),
        ("head-only", {"training": {"epochs": [1, GIANT]}}),
        ("head-only", {"note": 2**64}),
    ],
)
def test_a_whole_number_without_end_hides_no_other_adapter(
    strategy: str, change: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    files: Files = {path.name: path.read_bytes() for path in make("bert", strategy).save(tmp_path / "b").iterdir()}
    table, data = take_apart(bytes_of(files))
    write(tmp_path / "b", sign(files, {**header_of(table), **change}, table, data))
    with pytest.raises(AdapterFormatError, match=r"header is not JSON .* is a whole number of more than 64 bits"):
        load_adapter(tmp_path / "b", make("bert").base)
    (_, fine), (_, error) = file.list_adapters(tmp_path)
    assert fine == file.read_header(folder) and isinstance(error, AdapterFormatError) and len(str(error)) < 300


def bytes_of(files: Files) -> bytes:
    model = files[MODEL]
    assert isinstance(model, bytes)
    return model


def test_many_outputs_need_a_head_that_has_them(folder: Path, tmp_path: Path) -> None:
    files: Files = {path.name: path.read_bytes() for path in folder.iterdir()}
    table, data = take_apart(bytes_of(files))
    labels = [f"{number:x}" for number in range(60_000)]
    changed = {**header_of(table), "labels": labels, "task": "multiclass", "positive_label": None, "canaries": None}
    write(tmp_path / "many", sign(files, changed, table, data))
    with pytest.raises(AdapterFormatError, match=r"outputs is 60000, but none of its tensors|canaries"):
        load_adapter(tmp_path / "many", make("bert").base)


@pytest.mark.parametrize("size", [40 << 20, 200 << 20])
def test_a_giant_that_is_truly_described_is_not_read_into_memory(size: int, folder: Path) -> None:
    """Too large for its base, or looked through first: its digest is wrong, and no memory was taken to find that."""
    base = make("bert").base
    load_adapter(folder, base)  # what is imported the first time is not the giant's
    files: Files = {path.name: path.read_bytes() for path in folder.iterdir()}
    write(folder, true_giant(files, "head.linear.weight", size).files)
    for load in (
        lambda: load_adapter(folder, base),
        lambda: AdapterPool(base).add("one", folder),
        lambda: file.read_folder(folder),
    ):
        with (
            pytest.raises(AdapterFormatError, match=r"The digest of|No strategy has more"),
            bounded("a giant", times=4),
        ):
            load()
    first, *others = verify_folder(folder, lambda header: base)
    assert not first.passed and re.search(r"The digest of|No strategy has more", first.found) and len(others) == 6
    # With no base at hand it is looked through.
    assert "The digest of" in verify_folder(folder, no_base)[0].found


def no_base(header: Header) -> Base:
    raise BaseNotFoundError(f"There is no {header.base_name}.")


def test_a_strategy_that_nobody_knows_is_refused_by_every_way_in(folder: Path, tmp_path: Path) -> None:
    files = {name: (folder / name).read_bytes() for name in (MODEL, CONFIG, CARD)}
    table, data = take_apart(files[MODEL])
    write(tmp_path / "signed", sign(files, {**header_of(table), "strategy": "ham"}, table, data))
    base = make("bert").base
    pool = AdapterPool(base)
    for load in (lambda: load_adapter(tmp_path / "signed", base), lambda: pool.add("one", tmp_path / "signed")):
        with pytest.raises(
            AdapterFormatError, match="the strategy 'ham', which this version of lora_clf does not know"
        ):
            load()
    assert len(pool) == 0
