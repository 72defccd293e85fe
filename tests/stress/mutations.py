"""Ten thousand ways to spoil a saved adapter, each drawn from a number so that it can be drawn again.

A folder is a mapping from names to bytes or to what stands in place of a file (`Odd`). A mutation changes one and
says what may come of it: `SPOILT` must be refused or change nothing, `NEUTRAL` must change nothing, `SIGNED` (digest
and config made to fit, as someone who knows the format can) must end in an error of ours or in a whole adapter,
`SIGNED_WEIGHTS` must be refused by the canaries.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from lora_clf.adapters.canonical import canonical
from lora_clf.adapters.file import CARD, CONFIG, MODEL
from lora_clf.adapters.header import TensorEntry, read_text
from lora_clf.adapters.layout import config_of
from lora_clf.adapters.safetensors_file import digest_of
from lora_clf.errors import LoraClfError

SPOILT, NEUTRAL, SIGNED, SIGNED_WEIGHTS = "spoilt", "neutral", "signed", "signed weights"
MB: Final = 1 << 20


@dataclass(frozen=True)
class Odd:
    """What stands in place of a file: a "link" to a path, a "folder", a "pipe", or a "sparse" file of so many bytes,
    the first of which are `begin`."""

    kind: str
    target: str = ""
    size: int = 0
    begin: bytes = b""


Files = dict[str, bytes | Odd]
Table = dict[str, Any]  # of a safetensors file
Part = tuple[str, list[int], bytes]  # dtype, shape and bytes of a tensor
Draw = random.Random


@dataclass(frozen=True)
class Mutant:
    """A spoilt folder: how it was spoilt, what may come of it, and its files."""

    kind: str
    fate: str
    files: Files


def write(folder: Path, files: Mapping[str, bytes | Odd]) -> None:
    """Make ``folder`` hold exactly ``files``."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content.kind == "link":
            path.symlink_to(content.target)
        elif content.kind == "folder":
            path.mkdir()
            (path / "inside").write_bytes(b"x")
        elif content.kind == "pipe":
            os.mkfifo(path)
        else:
            with path.open("wb") as file:
                file.write(content.begin)
                file.truncate(content.size)


# The model file, taken apart and put together


def take_apart(model: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(model[:8], "little")
    return json.loads(model[8 : 8 + length]), model[8 + length :]


def put_together(table: Mapping[str, Any] | bytes, data: bytes) -> bytes:
    top = table if isinstance(table, bytes) else json.dumps(table, separators=(",", ":")).encode()
    return struct.pack("<Q", len(top)) + top + data


def header_of(table: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(table["__metadata__"]["lora_clf"])
    return found


def tensors_in(table: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in table if name != "__metadata__")


def sign(files: Files, header: dict[str, Any], table: dict[str, Any], data: bytes) -> Files:
    """The folder with that header, digest and config made to fit where that can be done."""
    ordered = sorted(tensors_in(table), key=lambda name: table[name]["data_offsets"])
    entries = tuple(TensorEntry(name, table[name]["dtype"], tuple(table[name]["shape"])) for name in ordered)
    config = files[CONFIG]
    try:
        made = replace(read_text(canonical(header)), tensors=entries)
        header = {**header, "digest": digest_of(made, data)}
        config = json.dumps(config_of(replace(made, digest=header["digest"]))).encode()
    except (LoraClfError, ValueError, TypeError, KeyError):
        pass  # as far as it goes
    table = {**table, "__metadata__": {"lora_clf": json.dumps(header, sort_keys=True, separators=(",", ":"))}}
    return {**files, MODEL: put_together(table, data), CONFIG: config}


# Bytes


def _flip(draw: Draw, content: bytes, first: int = 0, last: int | None = None) -> bytes:
    last = len(content) if last is None else last
    spoilt = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        spoilt[draw.randrange(first, last)] ^= 1 << draw.randrange(8)
    return bytes(spoilt)


def _overwrite(draw: Draw, content: bytes) -> bytes:
    begin = draw.randrange(len(content))
    count = min(draw.choice((1, 2, 8, 64, 4096)), len(content) - begin)
    run = draw.choice((bytes(count), b"\xff" * count, b" " * count, draw.randbytes(count)))
    return content[:begin] + run + content[begin + count :]


def _cut(draw: Draw, content: bytes) -> bytes:
    return content[: draw.choice((0, 1, 7, 8, 9, len(content) - 1, draw.randrange(len(content))))]


def _insert(draw: Draw, content: bytes) -> bytes:
    place = draw.choice((0, len(content), draw.randrange(len(content))))
    more = draw.choice((b"\0", b"\n{}", b"\xef\xbb\xbf", draw.randbytes(16), bytes(4096), content))
    return content[:place] + more + content[place:]


def _remove(draw: Draw, content: bytes) -> bytes:
    begin = draw.randrange(len(content))
    return content[:begin] + content[begin + draw.choice((1, 4, 100)) :]


def _anything(draw: Draw, content: bytes) -> bytes:
    zipped = b"PK\x03\x04" + draw.randbytes(50)
    return draw.choice((b"", b"\0" * 64, draw.randbytes(500), zipped, b"null", content[::-1]))


def _bytes(draw: Draw, files: Files, name: str) -> Mutant:
    content = files[name]
    assert isinstance(content, bytes)
    ways: dict[str, Callable[[Draw, bytes], bytes]] = {
        "bits": _flip,
        "run": _overwrite,
        "cut": _cut,
        "insert": _insert,
        "remove": _remove,
        "anything": _anything,
    }
    way = draw.choice(list(ways))
    return Mutant(f"{name}: {way}", NEUTRAL if name == CARD else SPOILT, {**files, name: ways[way](draw, content)})


def _model_region(draw: Draw, files: Files) -> Mutant:
    """Bits of the length, of the table or of the numbers alone."""
    model = files[MODEL]
    assert isinstance(model, bytes)
    start = 8 + int.from_bytes(model[:8], "little")
    region, first, last = draw.choice((("length", 0, 8), ("table", 8, start), ("numbers", start, len(model))))
    return Mutant(f"{MODEL}: bits of {region}", SPOILT, {**files, MODEL: _flip(draw, model, first, last)})


def _length(draw: Draw, files: Files) -> Mutant:
    model = files[MODEL]
    assert isinstance(model, bytes)
    right = int.from_bytes(model[:8], "little")
    near = (right - 1, right + 1, right - 8, right + 8, len(model))
    lie = draw.choice((*near, 0, 1, 2, 1 << 20, 1 << 31, 2**63, 2**64 - 1))
    return Mutant(f"{MODEL}: length", SPOILT, {**files, MODEL: struct.pack("<Q", lie) + model[8:]})


# Tensors

TENSOR_WAYS: Final = (
    *("missing", "extra", "renamed", "swapped", "twice", "dtype", "shape", "rank", "place", "entry", "giant"),
    "true giant",
)


def _renamed(draw: Draw, name: str) -> str:
    return draw.choice((
        name.upper(), f"{name}.", f"x.{name}", name.replace("weight", "bias"), name.replace(".0.", ".9."),
        name.removeprefix("base_model.model."), f"../{name}", "", "head.linear.weight", "classifier.weight",
    ))  # fmt: skip


def _packed(table: Table, data: bytes, changed: Mapping[str, Part]) -> tuple[Table, bytes]:
    """Table and bytes with tensors changed or added (name: dtype, shape, bytes), places made to fit."""
    parts: dict[str, Part] = {}
    for name in sorted(tensors_in(table), key=lambda name: table[name]["data_offsets"]):
        begin, end = table[name]["data_offsets"]
        parts[name] = table[name]["dtype"], table[name]["shape"], data[begin:end]
    parts |= changed
    made, place = {"__metadata__": table["__metadata__"]}, 0
    for name, (dtype, shape, part) in parts.items():
        made[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + len(part)]}
        place += len(part)
    return made, b"".join(part for _, _, part in parts.values())


def true_giant(files: Files, name: str, size: int) -> Mutant:
    """A tensor of so many bytes, as the table truthfully says and the file has; they are zeros that no disk holds."""
    model = files[MODEL]
    assert isinstance(model, bytes)
    table, _ = take_apart(model)
    changed, place = {"__metadata__": table["__metadata__"]}, 0
    for each in sorted(tensors_in(table)):
        dtype, shape = table[each]["dtype"], table[each]["shape"]
        width = 4 if dtype == "F32" else 2
        shape = [size // (width * int(np.prod(shape[1:]))), *shape[1:]] if each == name else shape
        taken = width * int(np.prod(shape))
        changed[each] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + taken]}
        place += taken
    top = put_together(changed, b"")
    return Mutant("tensors: true giant", SPOILT, {**files, MODEL: Odd("sparse", size=len(top) + place, begin=top)})


def _tensors(draw: Draw, files: Files) -> Mutant:
    """Missing, extra, renamed, swapped and duplicated tensors; other dtypes, shapes and ranks; places that lie."""
    model = files[MODEL]
    assert isinstance(model, bytes)
    table, data = take_apart(model)
    names = tensors_in(table)
    name, other = draw.choice(names), draw.choice(names)
    entry = table[name]
    part = data[slice(*entry["data_offsets"])]
    way = draw.choice(TENSOR_WAYS)
    if way == "missing":
        del table[name]
        begin, end = entry["data_offsets"]
        if draw.random() < 0.5:  # its bytes too
            table, data = _packed({k: v for k, v in table.items()}, data, {})
            data = data if draw.random() < 0.5 else data[:begin]
    elif way == "extra":
        table, data = _packed(table, data, {_renamed(draw, name): (entry["dtype"], entry["shape"], part)})
    elif way == "renamed":
        table = {(_renamed(draw, name) if key == name else key): value for key, value in table.items()}
    elif way == "swapped":
        if name == other:
            other = names[(names.index(name) + 1) % len(names)]
        table[name], table[other] = table[other], table[name]
    elif way == "twice":
        text = json.dumps(table, separators=(",", ":"))
        text = text[:-1] + f",{json.dumps(name)}:{json.dumps(table[other])}}}"
        return Mutant("tensors: twice", SPOILT, {**files, MODEL: put_together(text.encode(), data)})
    elif way == "dtype":
        entry["dtype"] = draw.choice(("F16", "BF16", "F64", "I32", "U8", "f32", "", None, 7, ["F32"], "F8_E4M3"))
        if entry["dtype"] in ("F16", "BF16") and draw.random() < 0.5:
            table, data = _packed(table, data, {name: (entry["dtype"], entry["shape"], part[::2][: len(part) // 2])})
    elif way == "shape":
        shape = entry["shape"]
        entry["shape"] = draw.choice((
            shape[::-1], [*shape, 1], [1, *shape], [int(np.prod(shape))], [], [0], [-1, *shape], [2**62, 2**62],
            [True, *shape], [float(n) for n in shape], [[n] for n in shape], None, "3", [n + 1 for n in shape],
            [1] * 1000 + shape, {"0": 1},
        ))  # fmt: skip
    elif way == "rank":
        rank = draw.choice((1, 2, 4, 5, 64))
        changed = {
            each: (table[each]["dtype"], [rank, table[each]["shape"][1]], bytes(4 * rank * table[each]["shape"][1]))
            for each in names
            if each.endswith("lora_A.weight")
        }
        changed |= {
            each: (table[each]["dtype"], [table[each]["shape"][0], rank], bytes(4 * rank * table[each]["shape"][0]))
            for each in names
            if each.endswith("lora_B.weight") and draw.random() < 0.9
        }
        table, data = _packed(table, data, changed or {name: ("F32", [1], bytes(4))})
    elif way == "place":
        begin, end = entry["data_offsets"]
        entry["data_offsets"] = draw.choice((
            [begin + 4, end + 4], [begin, end + 4], [end, begin], [begin - 4, end - 4], [0, 0], [0, len(data)], [begin],
            [begin, end, end], None, [str(begin), end], [float(begin), end], [2**63, 2**63 + end - begin],
            table[other]["data_offsets"] if other != name else [begin + 1, end + 1],
        ))  # fmt: skip
    elif way == "entry":
        table[name] = draw.choice((None, [], "F32", 1, {}, {**entry, "more": 1}, {"dtype": "F32"}))
    elif way == "true giant":
        return true_giant(files, name, draw.choice((80, 200, 800)) * MB)
    else:
        table[name] = {**entry, "shape": [1 << 40], "data_offsets": [entry["data_offsets"][0], 4 << 40]}
    spoilt = put_together(table, data)
    if spoilt == model:  # such as a shape that is its own reverse
        return _tensors(draw, files)
    return Mutant(f"tensors: {way}", SPOILT, {**files, MODEL: spoilt})


def _numbers(draw: Draw, files: Files) -> Mutant:
    """NaN, infinities and other numbers in a tensor; the digest as it was, or made to fit."""
    model = files[MODEL]
    assert isinstance(model, bytes)
    table, data = take_apart(model)
    spoilt = bytearray(data)
    begin, end = table[draw.choice(tensors_in(table))]["data_offsets"]
    value = draw.choice((float("nan"), float("inf"), float("-inf"), 1e38, 3.0, -3.0))
    wide = table[tensors_in(table)[0]]["dtype"] == "F32"
    packed = struct.pack("<f", value) if wide else struct.pack("<f", value)[2:]
    count = draw.choice((1, 8, (end - begin) // len(packed)))
    first = begin + len(packed) * draw.randrange((end - begin) // len(packed))
    for place in range(first, min(first + count * len(packed), end), len(packed)):
        spoilt[place : place + len(packed)] = packed
    if bytes(spoilt) == data:
        return _numbers(draw, files)
    if draw.random() < 0.6:
        return Mutant("numbers: changed", SPOILT, {**files, MODEL: put_together(table, bytes(spoilt))})
    whole = count * len(packed) >= end - begin or abs(value) > 1e30 or value != value
    fate = SIGNED_WEIGHTS if whole else SIGNED
    return Mutant("numbers: changed and signed", fate, sign(files, header_of(table), table, bytes(spoilt)))


# JSON


FAR: Final[tuple[Any, ...]] = (
    *(None, True, 0, -1, 2**31, 2**63, 10**400, 1e308, 0.5, "", " ", "x" * 10_000, [], {}, [[]]),
    *("../../etc", "/", "ham", "\x1b[2J", {"a": {"a": {"a": 1}}}),
)


def value_of(draw: Draw, old: Any = None) -> Any:
    """A value that a field may get: of another kind, too large, too long, or slightly off."""
    near: list[Any] = []
    if isinstance(old, bool):
        near = [not old, int(old)]
    elif isinstance(old, (int, float)):
        near = [old + 1, -old, old * 1_000_000, float(old), str(old), 0]
    elif isinstance(old, str):
        near = [old + " ", old.upper(), old[:-1], old + "\0", "\u202e" + old, [old]]
    elif isinstance(old, list):
        near = [old[::-1], old[:-1], [*old, "more"], [*old, *old], [str(part) + "x" for part in old]]
        near.append(dict.fromkeys(map(str, old)))
    elif isinstance(old, dict):
        near = [{}, {**old, "more": 1}, dict(list(old.items())[:-1]), list(old)]
    return draw.choice(near if near and draw.random() < 0.6 else FAR)


def _field(draw: Draw, values: dict[str, Any]) -> dict[str, Any]:
    """One field changed, added or taken away, on the first level or below it."""
    values = dict(values)
    name = draw.choice(sorted(values))
    way = draw.random()
    if way < 0.1:
        del values[name]
    elif way < 0.2:
        values[draw.choice(("more", "", "Labels", "auto_map", "requires", "peft_type", "é"))] = value_of(draw)
    elif way < 0.4 and isinstance(values[name], dict) and values[name]:
        values[name] = _field(draw, values[name])
    elif way < 0.5 and isinstance(values[name], list) and values[name]:
        place = draw.randrange(len(values[name]))
        values[name] = [value_of(draw, part) if index == place else part for index, part in enumerate(values[name])]
    else:
        values[name] = value_of(draw, values[name])
    return values


LITTLE: Final = (
    *("labels", "threshold", "temperature", "positive_label", "max_length", "pooling", "scaling", "truncation"),
    *("settings", "strategy", "seed", "canaries"),
)


def _header(draw: Draw, files: Files) -> Mutant:
    """A field of the header, with or without a digest that fits."""
    model = files[MODEL]
    assert isinstance(model, bytes)
    table, data = take_apart(model)
    header = header_of(table)
    if draw.random() < 0.5:
        name = draw.choice(LITTLE)
        changed = {**header, name: value_of(draw, header[name])}
    else:
        changed = _field(draw, header)
    if canonical(changed) == canonical(header):
        return _header(draw, files)
    if draw.random() < 0.5:
        return Mutant("header: field, signed", SIGNED, sign(files, changed, table, data))
    table["__metadata__"]["lora_clf"] = json.dumps(changed, sort_keys=True, separators=(",", ":"))
    return Mutant("header: field", SPOILT, {**files, MODEL: put_together(table, data)})


def spelt(draw: Draw, text: str) -> tuple[str, str, bool]:
    """JSON spelt in another way: how, the text, and whether it still says the same."""
    value = json.loads(text)
    key = draw.choice(sorted(value))
    one = json.dumps(value[key])
    ways: dict[str, Callable[[], tuple[str, bool]]] = {
        "spaces": lambda: (json.dumps(value, indent=draw.randrange(9)), True),
        "order": lambda: (json.dumps(dict(draw.sample(sorted(value.items()), len(value)))), True),
        "key twice": lambda: (f'{{{json.dumps(key)}:{one},{text.strip()[1:]}', False),
        "deep": lambda: (f'{{"more":{"[" * 200_000}{"]" * 200_000},{text.strip()[1:]}', False),
        "deep and open": lambda: ('{"more":' * 50_000, False),
        "deep objects": lambda: (f'{{"more":{"{" + chr(34) + "a" + chr(34) + ":" }' * 400 + "1" + "}" * 401, False),
        "long text": lambda: (f'{{"more":"{"x" * draw.choice((100_000, 3 * MB))}",{text.strip()[1:]}', False),
        "many keys": lambda: ("{" + ",".join(f'"k{n}":{n}' for n in range(60_000)) + "," + text.strip()[1:], False),
        "the last key twice": lambda: (
            "{" + ",".join(f'"k{n}":{n}' for n in range(60_000)) + ',"k59999":0,' + text.strip()[1:], False
        ),
        "long key": lambda: (f'{{"{"x" * 100_000}\\u001b[2J":1,{text.strip()[1:]}', False),
        "many numbers": lambda: (f'{{"more":[{"0," * 400_000}0],{text.strip()[1:]}', False),
        "long number": lambda: (f'{{"more":{"9" * draw.choice((400, 5_000, 500_000))},{text.strip()[1:]}', False),
        "NaN": lambda: (f'{{"more":{draw.choice(("NaN", "Infinity", "-Infinity", "1e999"))},{text.strip()[1:]}', False),
        "surrogate": lambda: (f'{{"more":"\\ud800",{text.strip()[1:]}', False),
        "comment": lambda: (text.rstrip() + "// x", False),
        "second value": lambda: (text + "{}", False),
        "list": lambda: (f"[{text}]", False),
        "comma": lambda: (text.rstrip()[:-1] + ",}", False),
        "single quotes": lambda: (text.replace('"', "'"), False),
    }  # fmt: skip
    way = draw.choice(list(ways))
    made, same = ways[way]()
    return way, made, same


def _config(draw: Draw, files: Files) -> Mutant:
    """adapter_config.json: a field, or another spelling."""
    content = files[CONFIG]
    assert isinstance(content, bytes)
    text = content.decode()
    if draw.random() < 0.6:
        value = json.loads(text)
        changed = _field(draw, value)
        if canonical(changed) == canonical(value):
            return _config(draw, files)
        return Mutant("config: field", SPOILT, {**files, CONFIG: json.dumps(changed).encode()})
    if draw.random() < 0.1:
        spoilt = draw.choice((text.encode("utf-16"), b"\xef\xbb\xbf" + content, content + b"\xff"))
        return Mutant("config: encoding", SPOILT, {**files, CONFIG: spoilt})
    way, made, same = spelt(draw, text)
    return Mutant(f"config: {way}", NEUTRAL if same else SPOILT, {**files, CONFIG: made.encode()})


def _header_spelling(draw: Draw, files: Files) -> Mutant:
    """The header or the table around it in another spelling."""
    model = files[MODEL]
    assert isinstance(model, bytes)
    table, data = take_apart(model)
    if draw.random() < 0.5:
        way, made, _ = spelt(draw, table["__metadata__"]["lora_clf"])
        table["__metadata__"]["lora_clf"] = made
        return Mutant(f"header: {way}", SPOILT, {**files, MODEL: put_together(table, data)})
    way, made, same = spelt(draw, json.dumps(table))
    fate = NEUTRAL if same and way != "order" else SPOILT
    return Mutant(f"table: {way}", fate, {**files, MODEL: put_together(made.encode(), data)})


def _metadata(draw: Draw, files: Files) -> Mutant:
    """The metadata of the model file: absent, of another kind, or with more in it."""
    model = files[MODEL]
    assert isinstance(model, bytes)
    table, data = take_apart(model)
    text = table["__metadata__"]["lora_clf"]
    table["__metadata__"] = draw.choice((
        {}, None, [], "x", {"lora_clf": None}, {"lora_clf": json.loads(text)}, {"lora_clf": text, "format": "pt"},
        {"Lora_clf": text}, {"lora_clf": ""}, {"lora_clf": "null"}, {"lora_clf": "[]"}, {"lora_clf": text, "more": 1},
    ))  # fmt: skip
    if draw.random() < 0.1:
        del table["__metadata__"]
    return Mutant("metadata", SPOILT, {**files, MODEL: put_together(table, data)})


# Files and folders


def _places(draw: Draw, files: Files) -> Mutant:
    """A file that is missing, or that is a link, a folder, a pipe or of enormous size."""
    name = draw.choice((MODEL, CONFIG))
    way = draw.choice((
        "missing", "link to itself", "link", "link outside", "device", "folder", "pipe", "sparse", "padded"
    ))  # fmt: skip
    if way == "missing":
        return Mutant(f"{name}: missing", SPOILT, {key: value for key, value in files.items() if key != name})
    if way == "link":  # to the right bytes, in the same folder
        return Mutant(f"{name}: link", SPOILT, {**files, name: Odd("link", "kept"), "kept": files[name]})
    if way == "padded":
        content = files[name]
        assert isinstance(content, bytes)
        return Mutant(f"{name}: padded", SPOILT, {**files, name: content + bytes(draw.choice((1, 4096, 90 * MB)))})
    odd = {
        "link to itself": Odd("link", name),
        "link outside": Odd("link", "/etc/passwd"),
        "device": Odd("link", "/dev/zero"),
        "folder": Odd("folder"),
        "pipe": Odd("pipe"),
        "sparse": Odd("sparse", size=draw.choice((0, 1, 9 * MB, 200 * MB, 1 << 40))),
    }[way]
    return Mutant(f"{name}: {way}", SPOILT, {**files, name: odd})


def _card(draw: Draw, files: Files) -> Mutant:
    """The card in any state, and files beside that nobody reads."""
    card = files[CARD]
    assert isinstance(card, bytes)
    odd = (Odd("link", "/dev/zero"), Odd("folder"), Odd("pipe"), None)
    content = draw.choice((card + b"\nMore.\n", b"", draw.randbytes(1000), *odd))
    rest: Files = {key: value for key, value in files.items() if key != CARD}
    if content is not None:
        rest[CARD] = content
    beside = draw.choice(("adapter_model.bin", "pytorch_model.bin", "modeling.py", "__init__.py", ".hidden", "x" * 200))
    if draw.random() < 0.5:
        rest[beside] = b"\x80\x04cposix\nsystem\n(S'exit 1'\ntR."
    return Mutant("card and files beside", NEUTRAL, rest)


def _mixed(draw: Draw, files: Files, others: list[Files]) -> Mutant:
    """Files of two adapters, or of one adapter under each other's names."""
    other = draw.choice([each for each in others if each[MODEL] != files[MODEL]])
    way = draw.choice(("config", "model", "exchanged", "numbers", "header"))
    if way == "exchanged":
        return Mutant("mixed: exchanged", SPOILT, {**files, MODEL: files[CONFIG], CONFIG: files[MODEL]})
    if way == "config":
        return Mutant("mixed: config", SPOILT, {**files, CONFIG: other[CONFIG]})
    if way == "model":
        return Mutant("mixed: model", SPOILT, {**files, MODEL: other[MODEL]})
    mine, theirs = files[MODEL], other[MODEL]
    assert isinstance(mine, bytes) and isinstance(theirs, bytes)
    table, data = take_apart(mine)
    foreign, numbers = take_apart(theirs)
    if way == "numbers":
        return Mutant("mixed: numbers", SPOILT, {**files, MODEL: put_together(table, numbers)})
    spoilt = put_together({**table, "__metadata__": foreign["__metadata__"]}, data)
    return Mutant("mixed: header", SPOILT, {**files, MODEL: spoilt, CONFIG: other[CONFIG]})


def mutant(seed: int, number: int, folders: list[Files]) -> tuple[int, Mutant]:
    """The mutation of that number: which of ``folders`` it spoils, and what it makes of it."""
    draw = random.Random(f"{seed}/{number}")
    which = draw.randrange(len(folders))
    files = folders[which]
    ways: list[tuple[int, Callable[[], Mutant]]] = [
        (20, lambda: _bytes(draw, files, draw.choice((MODEL, MODEL, CONFIG, CARD)))),
        (12, lambda: _model_region(draw, files)),
        (3, lambda: _length(draw, files)),
        (18, lambda: _tensors(draw, files)),
        (8, lambda: _numbers(draw, files)),
        (14, lambda: _header(draw, files)),
        (6, lambda: _header_spelling(draw, files)),
        (2, lambda: _metadata(draw, files)),
        (12, lambda: _config(draw, files)),
        (5, lambda: _places(draw, files)),
        (2, lambda: _card(draw, files)),
        (4, lambda: _mixed(draw, files, folders)),
    ]
    (made,) = draw.choices([way for _, way in ways], [weight for weight, _ in ways])
    return which, made()
