"""The bytes of ``adapter_model.safetensors``: written the same every time, read with nothing taken on trust.

The format: eight bytes with the length of a JSON table, the table, the tensors' bytes. The table names each
tensor with dtype, shape and place, and holds one key of ours, ``lora_clf``: the header. The library that
reads the format is lenient here and there, so the table is examined before it sees the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from lora_clf.adapters.canonical import canonical, parse
from lora_clf.adapters.header import Header, TensorEntry, read_text
from lora_clf.adapters.wording import brief, few
from lora_clf.errors import AdapterFormatError

if TYPE_CHECKING:
    from torch import Tensor

KEY: Final = "lora_clf"
HEADER_CAP: Final = 1 << 20  # bytes of the table, our header included
DTYPES: Final = {"F32": 4, "F16": 2, "BF16": 2}  # what a tensor may be stored as, and its bytes a number
_NAMES: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_DTYPES: Final = {name: dtype for dtype, name in _NAMES.items()}
_DIMENSIONS: Final = 4
_ENTRY: Final = {"dtype", "shape", "data_offsets"}
_MODEL: Final = "adapter_model.safetensors"


@dataclass(frozen=True)
class Table:
    """The examined first part of a file: the header with its manifest, and where the tensors' bytes begin."""

    header: Header
    start: int


def pack(header: Header, tensors: Mapping[str, Tensor]) -> tuple[Header, bytes]:
    """The header completed with manifest and digest, and the file's bytes.

    Raises:
        AdapterFormatError: the header has fields that are wrong, or is too large.
    """
    import torch

    entries, parts, table, place = [], [], {}, 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        entry = TensorEntry(name, _NAMES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape))
        part = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        offsets = [place, place + len(part)]
        table[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
        entries.append(entry)
        parts.append(part)
        place += len(part)
    data = b"".join(parts)
    header = replace(header, tensors=tuple(entries), digest="")
    header = replace(header, digest=digest_of(header, data))
    read_text(header.text())  # What is written can be read.
    top = json.dumps({"__metadata__": {KEY: header.text()}, **table}, separators=(",", ":")).encode()
    top += b" " * (-len(top) % 8)  # The tensors begin at a multiple of eight.
    if len(top) > HEADER_CAP:
        raise _too_large(len(top))
    return header, len(top).to_bytes(8, "little") + top + data


def digest_of(header: Header, data: bytes | memoryview) -> str:
    """SHA-256 over the header (its own digest left empty), the manifest and the tensors' bytes."""
    digest = hashlib.sha256(header.text(digest="").encode())
    manifest = [[entry.name, entry.dtype, list(entry.shape)] for entry in header.tensors]
    digest.update(b"\n" + canonical(manifest).encode() + b"\n")
    digest.update(data)
    return digest.hexdigest()


def read_table(top: bytes | bytearray, size: int) -> Table:
    """Examine the first part of a file of ``size`` bytes; ``top`` holds at least that part.

    Raises:
        AdapterFormatError: it is not exactly what `pack` writes.
    """
    length = table_length(top, size)
    values = parse(bytes(top[8 : 8 + length]).rstrip(b" "), f"The table of {_MODEL}")
    if not isinstance(values, dict):
        raise AdapterFormatError(f"The table of {_MODEL} is no JSON object.")
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise AdapterFormatError(
            f"{_MODEL} has no {KEY} header: it was not saved by lora_clf, or was saved again by a program "
            "that dropped the header. What PEFT saved comes in with its labels: `lora-clf adapters convert FOLDER "
            "--labels ham,spam --out NEW`, or load_adapter(folder, base, labels=[...])."
        )
    # The version first: a later one may have other keys and dtypes, and has to be refused by its number.
    header = read_text(metadata[KEY])
    if more := sorted(set(metadata) - {KEY}):
        raise AdapterFormatError(f"The metadata of {_MODEL} holds more than {KEY}: {few(map(repr, more))}.")
    return Table(replace(header, tensors=_manifest(values, size - 8 - length)), 8 + length)


def table_length(top: bytes | bytearray, size: int) -> int:
    """The length of the table of a file of ``size`` bytes that begins with ``top``.

    Raises:
        AdapterFormatError: the file is too short, or the table too large.
    """
    length = int.from_bytes(top[:8], "little")
    if size < 8 or length > size - 8 or length < 2:
        raise AdapterFormatError(f"{_MODEL} ({size:,} bytes) is cut off or no safetensors file.")
    if length > HEADER_CAP:
        raise _too_large(length)
    return length


def _too_large(length: int) -> AdapterFormatError:
    return AdapterFormatError(f"The header of {_MODEL} takes {length:,} bytes, of at most {HEADER_CAP:,}.")


def tensors_of(data: bytearray, table: Table) -> dict[str, Tensor]:
    """The tensors of the file ``data``, digest checked, all of them finite: views of ``data``, which nothing copies.

    Raises:
        AdapterFormatError: the digest differs, or a tensor holds NaN or an infinity.
    """
    import torch

    digest = digest_of(table.header, memoryview(data)[table.start :])
    if digest != table.header.digest:
        raise AdapterFormatError(
            f"The digest of {_MODEL} is {digest[:12]}, its header says {table.header.digest[:12]}: the file "
            "was changed or damaged after it was saved. Copy it again, or train it again."
        )
    if sys.byteorder != "little":
        raise AdapterFormatError(f"{_MODEL} holds little-endian numbers, which this machine cannot read.")
    tensors: dict[str, Tensor] = {}
    place = table.start
    # Neighbours of one type in one go: an adapter has many small tensors, and the calls are what takes the time.
    for name, group in groupby(table.header.tensors, key=lambda entry: entry.dtype):
        entries, size = list(group), DTYPES[name]
        count = sum(entry.numbers for entry in entries)
        aligned = place % size == 0  # another program need not align
        source = data if aligned else data[place : place + count * size]
        run = torch.frombuffer(source, dtype=getattr(torch, _DTYPES[name]), count=count, offset=place * aligned)
        parts = run.split([entry.numbers for entry in entries])
        found = {entry.name: part.view(entry.shape) for entry, part in zip(entries, parts, strict=True)}
        # A sum is finite only where every number is; it may overflow where they are, so it is not the last word.
        if not math.isfinite(float(run.sum(dtype=torch.float32))) and (
            bad := sorted(name for name, tensor in found.items() if not bool(torch.isfinite(tensor).all()))
        ):
            raise AdapterFormatError(f"Tensors of {_MODEL} hold NaN or infinity: {few(bad)}.")
        tensors |= found
        place += count * size
    return tensors


def _manifest(values: Mapping[str, Any], size: int) -> tuple[TensorEntry, ...]:
    """The tensors of the table in the order of their places, which must fill ``size`` bytes exactly."""
    wrong = [name for name, value in values.items() if not _is_entry(value)]
    if wrong:
        raise AdapterFormatError(
            f"Tensors in the table of {_MODEL} are not described by a dtype of {', '.join(DTYPES)}, a shape "
            f"of up to {_DIMENSIONS} sizes and a place of that many bytes: {few(sorted(wrong))}."
        )
    ordered = sorted(values.items(), key=lambda item: item[1]["data_offsets"])
    place = 0
    for name, value in ordered:
        begin, end = value["data_offsets"]
        if begin != place:
            kind = "a hole before" if begin > place else "an overlap at"
            raise AdapterFormatError(f"The tensors of {_MODEL} do not follow one another: {kind} {brief(name)}.")
        place = end
    if place != size:
        raise AdapterFormatError(f"The tensors of {_MODEL} take {place:,} bytes, {size:,} are there.")
    return tuple(TensorEntry(name, value["dtype"], tuple(value["shape"])) for name, value in ordered)


def _is_entry(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != _ENTRY:
        return False
    dtype, shape, place = value["dtype"], value["shape"], value["data_offsets"]
    if not (isinstance(dtype, str) and dtype in DTYPES and isinstance(shape, list) and isinstance(place, list)):
        return False
    if len(shape) > _DIMENSIONS or len(place) != 2 or {*map(type, shape), *map(type, place)} != {int}:
        return False
    fits = place[1] - place[0] == DTYPES[dtype] * math.prod(shape)
    return bool(fits and place[0] >= 0 and min(shape, default=1) >= 1)
