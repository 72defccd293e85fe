"""Whatever is wrong with a folder is refused, by a sentence that says what it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lora_clf.adapters import disk
from lora_clf.adapters.adapter import Adapter, list_adapters, load_adapter, read_header
from lora_clf.adapters.canonical import canonical, parse, plain
from lora_clf.adapters.classifier import whole_numbers
from lora_clf.adapters.file import CONFIG, MODEL
from lora_clf.adapters.header import Header, read_text
from lora_clf.adapters.layout import config_of
from lora_clf.adapters.pool import AdapterPool
from lora_clf.adapters.rules import KNOWN
from lora_clf.adapters.safetensors_file import digest_of, pack, read_table
from lora_clf.errors import AdapterFormatError, AdapterNotFoundError, WrongBaseError
from tests.adapters.making import make
from tests.bases import ByteTokenizer, tiny_base

Bytes = tuple[dict[str, Any], bytes]  # the table of a file, and its tensors' bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make("bert", "lora-scratch", "family").save(tmp_path / "a")


def load(folder: Path) -> Adapter:
    return load_adapter(folder, make("bert").base)


def take_apart(folder: Path) -> Bytes:
    data = (folder / MODEL).read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(folder: Path, table: dict[str, Any] | str, data: bytes) -> None:
    top = (table if isinstance(table, str) else json.dumps(table)).encode()
    (folder / MODEL).write_bytes(struct.pack("<Q", len(top)) + top + data)


def forge(folder: Path, change: Callable[[dict[str, Any]], object], *, sign: bool = True) -> None:
    """Change the header's fields and, as someone who knows the format would, digest and config with it."""
    table, data = take_apart(folder)
    header = json.loads(table["__metadata__"]["lora_clf"])
    change(header)
    text = canonical(header)
    if sign:
        whole = (folder / MODEL).read_bytes()
        entries = read_table(whole, len(whole)).header.tensors
        manifest = canonical([[entry.name, entry.dtype, list(entry.shape)] for entry in entries])
        blank = canonical({**header, "digest": ""})
        header["digest"] = hashlib.sha256(f"{blank}\n{manifest}\n".encode() + data).hexdigest()
        text = canonical(header)
        with contextlib.suppress(AdapterFormatError, TypeError):
            (folder / CONFIG).write_text(json.dumps(config_of(replace(read_text(text), tensors=entries))))
    table["__metadata__"]["lora_clf"] = text
    put_together(folder, table, data)


def test_an_untouched_folder_loads(folder: Path) -> None:
    forge(folder, lambda header: None)
    assert load(folder).labels == ("ham", "spam")


# What is done to a field of the header, digest made to fit, and what the error must say.
FIELDS: tuple[tuple[str, Any, str], ...] = (
    ("schema", 2, "schema version 2; this version of lora_clf reads up to 1. Upgrade"),
    ("schema", "1", "schema is '1', expected 1"),
    ("schema", 0, "schema is 0"),
    ("requires", ["rotary"], "does not know: rotary"),
    ("requires", "rotary", "requires is 'rotary'"),
    ("strategy", "lora-2", "'lora-2'.*It knows: head-only"),
    ("strategy", "", "strategy is ''"),
    ("strategy", "full", "do not fit strategy and base"),
    ("settings", [], "settings is"),
    ("settings", {"alpha": 7.0}, "settings of a low-rank adapter do not fit"),
    ("settings", {"rank": 3, "alpha": 1e31}, "settings of a low-rank adapter do not fit"),
    ("settings", {"rank": 3, "alpha": 10**400}, "header is not JSON .*100.*000 is a whole number of more than 64 bits"),
    ("settings", {"rank": 3, "alpha": 7.0, "colour": "red"}, "--colour does not apply to lora-scratch"),
    ("settings", {"rank": "three", "alpha": 7.0}, "do not fit"),
    ("settings", {"rank": 3, "alpha": 9.0}, "scaling is 2.3.*give 3.0"),
    ("settings", {"rank": 6, "alpha": 14.0}, r"rank is 6, but .*lora_A\.weight has rank 3"),
    ("settings", {"rank": 3_000_000_000, "alpha": 7e9}, "rank is 3000000000, but"),  # nothing of that size is made
    ("settings", {"rank": 2**63, "alpha": 7e9}, "rank is 9223372036854775808, but"),
    ("settings", {"rank": 3, "alpha": 7.0, "targets": "attention"}, r"unexpected: .*attention\.output\.dense"),
    ("task", "ranking", "task is 'ranking', expected one of binary, multiclass, multilabel, regression, ordinal"),
    ("task", "regression", "regression with one"),
    ("task", "multiclass", "a task is binary with two labels"),
    ("labels", ["ham"], "labels is"),
    ("labels", ["ham", "ham"], "labels is"),
    ("labels", ["ham", "spam", "eggs"], "a task is binary with two labels"),
    ("labels", ["ham", 1], "labels is"),
    ("labels", ["ham", "spam\x1b[2J"], r"labels is \['ham', 'spam\\x1b\[2J'\], expected .* control char"),
    ("labels", ["ham\r", "spam"], "labels is"),
    ("positive_label", "eggs", "only a binary task has a positive label"),
    ("positive_label", 1, "positive_label is 1"),
    ("head", "free", "the head is free or a verbalizer, or the pooling is family"),
    ("pooling", "max", "pooling is 'max'"),
    ("max_length", 0, "max_length is 0"),
    ("max_length", True, "max_length is True"),
    ("max_length", 5_000, "texts of up to 5000 tokens.*takes 1 to 96 tokens"),
    ("truncation", "middle", "truncation is 'middle', expected one of right, left"),
    ("base_name", "/home/ann/base", "base_name is '/home/ann/base', expected a name, not a path"),
    ("base_name", "mini\u202elm", "base_name is .*, expected a name, not a path, on one line"),
    ("base_name", "x" * 1000, "base_name is 'xxx"),
    ("base_digest", "abc", "base_digest is 'abc'"),
    ("architecture", "mamba", "'mamba' base, an architecture"),
    ("architecture", "gpt2", "unexpected: head.bert.encoder"),
    ("tokenizer_digest", None, "tokenizer_digest is None"),
    ("tokenizer_digest", "\x1b[2J", r"tokenizer_digest is '\\x1b\[2J', expected a text that is not empty, on one line"),
    ("scaling", 7.0, "scaling is 7.0, but its settings"),
    ("scaling", -1, "scaling is -1, expected a number above 0"),
    ("scaling", None, "has scaling and fan_in_fan_out, or neither"),
    ("fan_in_fan_out", 1, "fan_in_fan_out is 1"),
    ("fan_in_fan_out", True, "fan_in_fan_out"),
    ("threshold", 1.5, "threshold is 1.5"),
    ("temperature", 0, "temperature is 0"),
    ("temperature", 10**400, "a whole number of more than 64 bits"),
    ("seed", 1.5, "seed is 1.5"),
    ("seed", 2**64, "18446744073709551616 is a whole number of more than 64 bits"),
    ("data_name", "C:\\data.csv", "data_name is"),
    ("data_name", "a\rb.csv", "data_name is"),
    ("data_digest", 5, "data_digest is 5"),
    ("licence", "", "licence is ''"),
    ("training", None, "training is None"),
    ("metrics", {"test": 0.9}, "metrics is"),
    ("versions", {"torch": 2}, "versions is"),
    ("versions", {"torch": "2\n"}, "versions is"),
    ("precision", 32, "precision is 32"),
    ("kernels", "", "kernels is ''"),
    ("instruction_set", None, "instruction_set is None"),
    ("threads", 0, "threads is 0"),
    ("canaries", {"set": 1}, "canaries is"),
    ("canaries", {"set": 1, "logits": {"plain": [1.0]}}, "each canary has one logit an output"),
    ("canaries", None, "canaries is None"),
)


@pytest.mark.parametrize(("name", "value", "says"), FIELDS, ids=lambda value: str(value)[:20])
def test_a_wrong_field_is_refused(name: str, value: Any, says: str, folder: Path) -> None:
    forge(folder, lambda header: header.__setitem__(name, value))
    with pytest.raises(AdapterFormatError, match=f"(?s){says}"):
        load(folder)


@pytest.mark.parametrize("strategy", ["head-only", "lora-scratch", "last-block"])
def test_a_pool_refuses_longer_texts_than_the_base_takes(strategy: str, tmp_path: Path) -> None:
    folder = make("bert", strategy).save(tmp_path / "a")
    pool = AdapterPool(make("bert").base)
    pool.add("whole", folder)
    forge(folder, lambda header: header.__setitem__("max_length", 97))
    with pytest.raises(AdapterFormatError, match="texts of up to 97 tokens"):
        pool.add("forged", folder)
    assert pool.names == ("whole",)


def test_every_field_was_tried_and_none_may_be_missing(folder: Path) -> None:
    assert {name for name, _, _ in FIELDS} == set(KNOWN) - {"digest"}
    table, _ = take_apart(folder)
    header = json.loads(table["__metadata__"]["lora_clf"])
    assert set(header) == set(KNOWN) and len(KNOWN) == 32
    for name in KNOWN:
        with pytest.raises(AdapterFormatError, match=f"{name} is missing"):
            read_text(canonical({key: value for key, value in header.items() if key != name}))


@pytest.mark.parametrize("name", KNOWN)
def test_every_changed_field_breaks_the_digest(name: str, folder: Path) -> None:
    """Also where the value alone is fine: nobody can edit a header without being noticed."""
    fine = {"labels": ["spam", "ham"], "task": "multiclass", "seed": 99, "threads": 9, "threshold": 0.25}
    forge(folder, lambda h: h.__setitem__(name, fine.get(name, _other(h[name]))), sign=False)
    with pytest.raises(AdapterFormatError):
        load(folder)


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    if isinstance(value, list):
        return [*value, "more"]
    return {**value, "more": {"a": 1}} if isinstance(value, dict) else "x"


def test_all_problems_of_a_header_come_at_once(folder: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        header.update(seed="x", labels=[], threads=-1)
        del header["task"], header["versions"]

    forge(folder, change)
    with pytest.raises(AdapterFormatError) as caught:
        load(folder)
    for part in ("5 problem", "task is missing", "versions is missing", "seed is", "labels is", "threads is"):
        assert part in str(caught.value)


def test_optional_fields_of_later_programs_are_let_through(folder: Path) -> None:
    forge(folder, lambda header: header.update(note={"by": "another program"}))
    assert load(folder).header.extra == {"note": {"by": "another program"}}
    forge(folder, lambda header: header.update(requires=["labels"]))
    assert load(folder).header.requires == ("labels",)
    forge(folder, lambda header: header.update(requires=["note"]))
    with pytest.raises(AdapterFormatError, match="does not know: note"):
        load(folder)


def test_a_newer_version_is_refused_by_its_number_whatever_else_it_has(folder: Path) -> None:
    table, data = take_apart(folder)
    header = json.loads(table["__metadata__"]["lora_clf"])
    text = canonical({**header, "schema": 7, "labels": "elsewhere"})
    table["__metadata__"] = {"lora_clf": text, "another": "key"}
    table["new"] = {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [len(data), len(data) + 1]}
    put_together(folder, table, data + b"x")
    for read in (load, read_header):
        with pytest.raises(AdapterFormatError, match="schema version 7; this version of lora_clf reads up to 1"):
            read(folder)


# What is done to the table or the tensors of the file.
def _first(table: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = table[sorted(name for name in table if name != "__metadata__")[0]]
    return entry


def _shift(table: dict[str, Any], data: bytes, by: int) -> Bytes:
    for name, entry in table.items():
        if name != "__metadata__":
            entry["data_offsets"] = [place + by for place in entry["data_offsets"]]
    return table, data


def _set(entry: dict[str, Any], **values: Any) -> None:
    entry.update(values)


TABLES: tuple[tuple[str, Callable[[dict[str, Any], bytes], Bytes | None], str], ...] = (
    ("hole in front", lambda t, d: _shift(t, b"\0" * 8 + d, 8), "a hole before"),
    ("bytes behind", lambda t, d: (t, d + b"\0"), "bytes, .* are there"),
    ("bytes missing", lambda t, d: (t, d[:-4]), "bytes, .* are there"),
    ("overlap", lambda t, d: _set(_first(t), data_offsets=[0, 4], shape=[1]), "a hole before|overlap"),
    ("same place", lambda t, d: t.update(copy=dict(_first(t))), "an overlap at"),
    ("negative", lambda t, d: _set(_first(t), data_offsets=[-4, 0]), "not described by"),
    ("huge shape", lambda t, d: _set(_first(t), shape=[2**62, 2**62]), "not described by"),
    ("zero size", lambda t, d: t.update(none={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}), "not described"),
    ("dtype", lambda t, d: _set(_first(t), dtype="I32"), "not described by a dtype of F32, F16, BF16"),
    ("dtype list", lambda t, d: _set(_first(t), dtype=["F32"]), "not described by"),
    ("true size", lambda t, d: _set(_first(t), shape=[True, 96]), "not described by"),
    ("float size", lambda t, d: _set(_first(t), shape=[3.0, 32]), "not described by"),
    ("transposed", lambda t, d: _first(t)["shape"].reverse(), "digest"),
    ("more keys", lambda t, d: _set(_first(t), more=1), "not described by"),
    ("no entry", lambda t, d: t.update(x=5), "not described by"),
    ("five dimensions", lambda t, d: _set(_first(t), shape=[1, 1, 1, 3, 32]), "not described by"),
    ("metadata", lambda t, d: t["__metadata__"].update(format="pt"), "more than lora_clf: 'format'"),
    ("no metadata", lambda t, d: t.pop("__metadata__") and None, "has no lora_clf header"),
    ("header no text", lambda t, d: t.update(__metadata__={"lora_clf": {}}), "has no lora_clf header"),
    ("header no JSON", lambda t, d: t.update(__metadata__={"lora_clf": "hello"}), "is not JSON"),
    ("header a list", lambda t, d: t.update(__metadata__={"lora_clf": "[]"}), "is a JSON list"),
    ("a changed byte", lambda t, d: (t, d[:5] + bytes([d[5] ^ 1]) + d[6:]), "changed or damaged"),
    ("the last byte", lambda t, d: (t, d[:-1] + bytes([d[-1] ^ 128])), "changed or damaged"),
    (
        "renamed",
        lambda t, d: t.update({"base_model.model.classifier.bia": t.pop("base_model.model.classifier.bias")}),
        "changed or damaged",
    ),
)


@pytest.mark.parametrize(("what", "change", "says"), TABLES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_table_is_refused(
    what: str, change: Callable[[dict[str, Any], bytes], Bytes | None], says: str, folder: Path
) -> None:
    table, data = take_apart(folder)
    put_together(folder, *(change(table, data) or (table, data)))
    with pytest.raises(AdapterFormatError, match=says):
        load(folder)


def test_enough_was_tried() -> None:
    assert len(FIELDS) + len(TABLES) > 70


def resign(folder: Path, tensors: dict[str, torch.Tensor], **changes: Any) -> None:
    """Write other tensors with a digest that fits them."""
    header = replace(read_header(folder), **changes)
    header, data = pack(header, tensors)
    (folder / MODEL).write_bytes(data)
    (folder / CONFIG).write_text(json.dumps(config_of(header)))


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / MODEL)


def test_tensors_that_do_not_belong_are_named(folder: Path) -> None:
    good = tensors_in(folder)
    head = {name: tensor for name, tensor in good.items() if "classifier" not in name}
    resign(folder, head)
    with pytest.raises(AdapterFormatError, match="no classification head"):
        load(folder)
    resign(folder, {**good, "lora.weight": torch.ones(2)})
    with pytest.raises(AdapterFormatError, match=r"belong nowhere: lora\.weight"):
        load(folder)
    name = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
    rest = {key: tensor for key, tensor in good.items() if key != name}
    resign(folder, {**rest, "base_model.model.bert.more.lora_B.weight": torch.ones(2, 3)})
    with pytest.raises(AdapterFormatError, match=r"missing: encoder\.layer\.0.*unexpected: more\.lora_B"):
        load(folder)
    resign(folder, {**good, name: torch.ones(3, 31)})
    with pytest.raises(AdapterFormatError, match=r"query\.lora_A\.weight is \(3, 31\), expected \(3, 32\)"):
        load(folder)


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("lora", "rank is 3, but .* has rank none"),
        ("head-only", r"is \(\), expected \(2, 32\)"),
        ("ia3", r"is \(\), exp"),
    ],
)
def test_single_numbers_in_place_of_matrices_are_refused(strategy: str, says: str, tmp_path: Path) -> None:
    folder = make("bert", strategy, "family").save(tmp_path / "a")
    resign(folder, {name: torch.tensor(1.0) for name in tensors_in(folder)})
    for read in (load, lambda folder: AdapterPool(make("bert").base).add("one", folder)):
        with pytest.raises(AdapterFormatError, match=says):
            read(folder)
    assert [path for path, _ in list_adapters(tmp_path)] == [folder]


@pytest.mark.parametrize("number", ["\u00b2", "9" * 5000], ids=["a power", "no end"])
def test_a_block_of_no_number_is_refused(number: str, folder: Path) -> None:
    name = f"base_model.model.bert.encoder.layer.{number}.query.lora_A.weight"
    with pytest.raises(AdapterFormatError, match=r"unexpected: encoder\.layer"):
        resign(folder, {**tensors_in(folder), name: torch.ones(3, 32)})
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused(value: float, folder: Path) -> None:
    tensors = tensors_in(folder)
    tensors["base_model.model.classifier.bias"][0] = value
    resign(folder, tensors)
    with pytest.raises(AdapterFormatError, match=r"NaN or infinity: base_model\.model\.classifier\.bias"):
        load(folder)


def test_files_that_are_no_safetensors_files(folder: Path) -> None:
    whole = (folder / MODEL).read_bytes()
    length = int.from_bytes(whole[:8], "little")
    table = whole[8 : 8 + length].decode()
    twice = table.replace('{"__metadata__"', '{"__metadata__":{"lora_clf":"x"},"__metadata__"', 1)
    deep = table.rstrip()[:-1] + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}"
    cases: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "cut off"),
        "short": (b"\1\0\0", "cut off"),
        "cut": (whole[: length // 2], "cut off"),
        "long table": (struct.pack("<Q", 2**63) + whole[8:], "cut off"),
        "large table": (struct.pack("<Q", 2 << 20) + b" " * (2 << 20), "1,048,576"),
        "no JSON": (struct.pack("<Q", 8) + b"notjson!" + whole, "is not JSON"),
        "a list": (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        "not UTF-8": (struct.pack("<Q", 4) + b"{\xff\xfe}", "is not JSON"),
        "a pickle": (b"\x80\x04\x95" + whole, "cut off"),
    }
    for what, (data, says) in cases.items():
        (folder / MODEL).write_bytes(data)
        for read in (load, read_header):
            with pytest.raises(AdapterFormatError, match=says):
                read(folder)
                pytest.fail(what)
    for text, says in ((twice, "'__metadata__' is there twice"), (deep, "nested more than")):
        put_together(folder, text, whole[8 + length :])
        with pytest.raises(AdapterFormatError, match=says):
            load(folder)


def test_a_header_in_another_spelling_is_refused(folder: Path) -> None:
    table, data = take_apart(folder)
    text = table["__metadata__"]["lora_clf"]
    for other, says in (
        (text.replace(":", ": ", 1), "not canonical"),
        (json.dumps(json.loads(text)), "not canonical"),
        (text.replace('{"architecture"', '{"a":1,"architecture"').replace('"a":1', '"a":1.50'), "not canonical"),
        (text[:-1] + ',"seed":3}', "'seed' is there twice"),
        (text.replace('"seed":3', '"seed":NaN'), "NaN is not a number"),
        (text.replace('"temperature":null', '"temperature":1e999'), "not JSON"),
        (text.replace('"ham"', '"\\ud800"'), "not JSON"),
        (text.replace('"seed":3', '"seed":' + "9" * 5000), "not JSON"),
    ):
        assert other != text
        table["__metadata__"]["lora_clf"] = other
        put_together(folder, table, data)
        with pytest.raises(AdapterFormatError, match=says):
            load(folder)


CONFIGS: tuple[tuple[str, Any, str], ...] = (
    ("r", 4, "r is 4, expected 3"),
    ("lora_alpha", 3, "lora_alpha is 3, expected 7"),
    ("target_modules", ["query"], "target_modules is"),
    ("modules_to_save", None, "modules_to_save is null"),
    ("use_dora", True, "use_dora is true, expected false"),
    ("use_rslora", True, "use_rslora is true"),
    ("base_model_name_or_path", "gpt2", 'base_model_name_or_path is "gpt2"'),
    ("init_lora_weights", "pissa", "init_lora_weights"),
    ("fan_in_fan_out", 0, "fan_in_fan_out is 0, expected false"),
    ("corda_config", {}, "corda_config is not known"),
)


@pytest.mark.parametrize(("name", "value", "says"), CONFIGS)
def test_the_config_must_agree(name: str, value: Any, says: str, folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, name: value}))
    for read in (load, read_header):
        with pytest.raises(AdapterFormatError, match=says):
            read(folder)
    config.pop(name, None)
    (folder / CONFIG).write_text(json.dumps(config))
    if "not known" not in says:
        with pytest.raises(AdapterFormatError, match=f"{name} is missing"):
            load(folder)


def test_our_own_config_must_agree_too(tmp_path: Path) -> None:
    folder = make("bert", "full").save(tmp_path / "a")
    config = json.loads((folder / CONFIG).read_text())
    assert config["strategy"] == "full" and "peft_type" not in config and len(config) == 18
    for name in config:
        (folder / CONFIG).write_text(json.dumps({**config, name: "other"}))
        with pytest.raises(AdapterFormatError, match=f'{name} is "other"'):
            load(folder)


def test_files_that_are_not_there_or_no_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterNotFoundError, match="does not exist"):
        load(tmp_path / "no")
    (tmp_path / "file").write_text("")
    with pytest.raises(AdapterNotFoundError, match="is no folder"):
        load(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterNotFoundError, match=f"{MODEL} is missing"):
        load(tmp_path / "empty")
    for name in (MODEL, CONFIG):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(AdapterNotFoundError, match=f"{name} is missing"):
            load(folder)
        (folder / name).mkdir()
        with pytest.raises(AdapterFormatError, match="plain file"):
            load(folder)
        (folder / name).rmdir()
        os.mkfifo(folder / name)
        with pytest.raises(AdapterFormatError, match="plain file"):
            load(folder)
        (folder / name).unlink()
        (tmp_path / name).write_bytes(content)
        (folder / name).symlink_to(tmp_path / name)
        with pytest.raises(AdapterFormatError, match="is a link"):
            load(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    assert load(folder)


def test_large_files_are_read_only_when_asked(folder: Path) -> None:
    size = (folder / MODEL).stat().st_size
    with pytest.raises(AdapterFormatError, match=f"has {size:,} bytes; at most 1,000 are read"):
        load_adapter(folder, make("bert").base, file_cap=1000)
    assert load_adapter(folder, make("bert").base, file_cap=size)


def test_a_file_that_others_wrote(folder: Path) -> None:
    """PEFT's own files, and ours after a program that keeps tensors alone."""
    save_file(tensors_in(folder), folder / MODEL, metadata={"format": "pt"})
    with pytest.raises(AdapterFormatError, match="has no lora_clf header"):
        load(folder)


def test_another_base_is_refused_by_both_names(folder: Path) -> None:
    for base in (tiny_base("bert", seed=1), tiny_base("gpt2")):
        with pytest.raises(WrongBaseError) as caught:
            load_adapter(folder, base)
        header = read_header(folder)
        for part in ("tiny-bert", header.base_digest[:12], base.name, base.digest[:12], "--base tiny-bert"):
            assert part in str(caught.value)
    with pytest.raises(WrongBaseError, match="names are equal"):
        load_adapter(folder, tiny_base("bert", seed=1))


def test_another_tokenizer_is_refused(folder: Path) -> None:
    base = make("bert").base
    stranger = ByteTokenizer()
    stranger.__dict__["digest"] = "f" * 64  # where the cached property keeps it
    other = replace(base, tokenizer=stranger)
    with pytest.raises(WrongBaseError, match=r"another tokenizer.*tiny-bert.*bytes.*ffffffffffff"):
        load_adapter(folder, other)


def test_what_json_cannot_hold() -> None:
    assert plain({1: (True, None, 1.5)}) == {"1": [True, None, 1.5]}
    with pytest.raises(TypeError, match="PosixPath"):
        plain({"a": Path("/")})
    assert parse('{"a":"[[[["}', "it") == {"a": "[[[["}


def test_a_header_that_cannot_be_read_back_is_not_written(tmp_path: Path) -> None:
    adapter = make()
    for change in ({"labels": ("a", "\ud800")}, {"threshold": 2.0}, {"metrics": {"test": {"x": float("nan")}}}):
        bad: Header = replace(adapter.header, **change)
        with pytest.raises((AdapterFormatError, ValueError)):
            Adapter(adapter.base, adapter.tuned, bad).save(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    large = replace(adapter.header, extra={"notes": "x" * (1 << 20)})
    with pytest.raises(AdapterFormatError, match="1,048,576"):
        Adapter(adapter.base, adapter.tuned, large).save(tmp_path / "a")


def test_the_exchange_is_there_on_linux(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert not disk._exchange(tmp_path / "a", tmp_path / "no")
    if not disk._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system exchanges no folders")
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()


def test_the_digest_is_of_the_numbers_too() -> None:
    assert digest_of(make().header, b"") != digest_of(make().header, b"x")


def test_factors_of_a_method_are_no_sizes() -> None:
    """They take no memory, so an adapter that was trained with a large one opens."""
    assert whole_numbers("r=4,lokr_alpha=2048,scaling=3000,random_seed=7000,n_frequency=2000") == {
        "r": 4,
        "n_frequency": 2000,
    }
