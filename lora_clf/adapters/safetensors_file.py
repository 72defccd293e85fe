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
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, BinaryIO, Final

from lora_clf.adapters.canonical import parse
from lora_clf.adapters.header import Header, TensorEntry, read_text
from lora_clf.adapters.manifest import DTYPES, METADATA, MODEL, TABLE, manifest_of, manifest_text, read_manifest
from lora_clf.adapters.wording import few
from lora_clf.errors import AdapterFormatError

if TYPE_CHECKING:
    from torch import Tensor

KEY: Final = "lora_clf"
HEADER_CAP: Final = 1 << 20  # bytes of the table, our header included
_STRIDE: Final = 1 << 20  # bytes of a file that is only looked through
_NAMES: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_DTYPES: Final = {name: dtype for dtype, name in _NAMES.items()}
_BEGINNING: Final = f'{{"{METADATA}":{{"{KEY}":"'


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

    header = replace(header, tensors=_manifest(tensors), digest="")
    flat = (tensors[entry.name].detach().cpu().contiguous().reshape(-1) for entry in header.tensors)
    data = b"".join(each.view(torch.uint8).numpy().tobytes() for each in flat)
    header = replace(header, digest=digest_of(header, data))
    top = _top(header, tensors)
    return header, len(top).to_bytes(8, "little") + top + data


def check_packs(header: Header, tensors: Mapping[str, Tensor]) -> None:
    """Refuse before any work what `pack` would refuse after it; of the header scores and canaries may be missing.

    Raises:
        AdapterFormatError: the header has fields that are wrong, or is too large.
    """
    from lora_clf.adapters.canary import placeholders

    _top(replace(header, tensors=_manifest(tensors), canaries=placeholders(header), digest="0" * 64), tensors)


def _manifest(tensors: Mapping[str, Tensor]) -> tuple[TensorEntry, ...]:
    """Name, type and shape of each tensor, in the order of the file."""
    return tuple(
        TensorEntry(name, _NAMES[str(tensors[name].dtype).removeprefix("torch.")], tuple(tensors[name].shape))
        for name in sorted(tensors)
    )


def _top(header: Header, tensors: Mapping[str, Tensor]) -> bytes:
    """The table of the file: a whole header, and where each tensor lies."""
    read_text(header.text())  # What is written can be read.
    table, place = {}, 0
    for entry in header.tensors:
        end = place + tensors[entry.name].nbytes
        table[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [place, end]}
        place = end
    top = json.dumps({"__metadata__": {KEY: header.text()}, **table}, separators=(",", ":")).encode()
    top += b" " * (-len(top) % 8)  # The tensors begin at a multiple of eight.
    if len(top) > HEADER_CAP:
        raise _too_large(len(top))
    return top


def digest_of(header: Header, *parts: bytes | memoryview) -> str:
    """SHA-256 over the header (its own digest left empty), the manifest and the tensors' bytes."""
    return _digest(header, parts)


def _digest(header: Header, parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256(header.text(digest="").encode())
    digest.update(b"\n" + manifest_text(header.tensors) + b"\n")
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def check_in_passing(file: BinaryIO, table: Table) -> None:
    """Hold an opened file to its digest a little at a time, before memory is taken for all of it.

    Raises:
        AdapterFormatError: the digest differs.
    """
    file.seek(table.start)
    _check_digest(table.header, iter(lambda: file.read(_STRIDE), b""))


def _check_digest(header: Header, parts: Iterable[bytes | memoryview]) -> None:
    if (digest := _digest(header, parts)) != header.digest:
        raise AdapterFormatError(
            f"The digest of {MODEL} is {digest[:12]}, its header says {header.digest[:12]}: the file "
            "was changed or damaged after it was saved. Copy it again, or train it again."
        )


def read_table(top: bytes | bytearray, size: int) -> Table:
    """Examine the first part of a file of ``size`` bytes; ``top`` holds at least that part.

    Raises:
        AdapterFormatError: it is not exactly what `pack` writes.
    """
    length = table_length(top, size)
    table = bytes(top[8 : 8 + length]).rstrip(b" ")
    taken = size - 8 - length
    if (parted := _parted(table)) is not None:
        header = read_text(parted[0])
        return Table(replace(header, tensors=read_manifest(parted[1], taken)), 8 + length)
    values = parse(table, TABLE)
    if not isinstance(values, dict):
        raise AdapterFormatError(f"{TABLE} is no JSON object.")
    metadata = values.pop(METADATA, {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise AdapterFormatError(
            f"{MODEL} has no {KEY} header: it was not saved by lora_clf, or was saved again by a program "
            "that dropped the header. What PEFT saved comes in with its labels: `lora-clf adapters convert FOLDER "
            "--labels ham,spam --out NEW`, or load_adapter(folder, base, labels=[...])."
        )
    # The version first: a later one may have other keys and dtypes, and has to be refused by its number.
    header = read_text(metadata[KEY])
    if more := sorted(set(metadata) - {KEY}):
        raise AdapterFormatError(f"The metadata of {MODEL} holds more than {KEY}: {few(map(repr, more))}.")
    return Table(replace(header, tensors=manifest_of(values, taken)), 8 + length)


def _parted(table: bytes) -> tuple[str, str] | None:
    """The header and the table without it, which adapters of one kind share; None of a table that we do not write."""
    with suppress(ValueError):  # for whoever reads the whole to say
        text = table.decode("utf-8")
        if text.startswith(_BEGINNING):
            header, end = json.JSONDecoder().raw_decode(text, len(_BEGINNING) - 1)
            if text.startswith('},"', end) and METADATA not in text[end:]:
                return str(header), "{" + text[end + 2 :]
    return None


def table_length(top: bytes | bytearray, size: int) -> int:
    """The length of the table of a file of ``size`` bytes that begins with ``top``.

    Raises:
        AdapterFormatError: the file is too short, or the table too large.
    """
    length = int.from_bytes(top[:8], "little")
    if size < 8 or length > size - 8 or length < 2:
        raise AdapterFormatError(f"{MODEL} ({size:,} bytes) is cut off or no safetensors file.")
    if length > HEADER_CAP:
        raise _too_large(length)
    return length


def _too_large(length: int) -> AdapterFormatError:
    return AdapterFormatError(f"The header of {MODEL} takes {length:,} bytes, of at most {HEADER_CAP:,}.")


def tensors_of(data: bytearray, table: Table) -> dict[str, Tensor]:
    """The tensors of the file ``data``, digest checked, all of them finite: views of ``data``, which nothing copies.

    Raises:
        AdapterFormatError: the digest differs, or a tensor holds NaN or an infinity.
    """
    import torch

    _check_digest(table.header, [memoryview(data)[table.start :]])
    if sys.byteorder != "little":
        raise AdapterFormatError(f"{MODEL} holds little-endian numbers, which this machine cannot read.")
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
            raise AdapterFormatError(f"Tensors of {MODEL} hold NaN or infinity: {few(bad)}.")
        tensors |= found
        place += count * size
    return tensors
