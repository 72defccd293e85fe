"""The list of an adapter's tensors, as the table of its file holds it: names, dtypes, shapes and places.

Adapters of one kind have the very same list, and examining it is a good part of the time that loading a small one
takes. So the last few that were examined are kept, under every character of their text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, Final

from lora_clf.adapters.canonical import canonical, parse
from lora_clf.adapters.header import TensorEntry
from lora_clf.adapters.wording import brief, few
from lora_clf.errors import AdapterFormatError

MODEL: Final = "adapter_model.safetensors"
TABLE: Final = f"The table of {MODEL}"
METADATA: Final = "__metadata__"
DTYPES: Final = {"F32": 4, "F16": 2, "BF16": 2}  # what a tensor may be stored as, and its bytes a number
KEPT: Final = 16  # lists, of at most 1 MiB of text each
_DIMENSIONS: Final = 4
_ENTRY: Final = {"dtype", "shape", "data_offsets"}


class Manifest(tuple[TensorEntry, ...]):
    """The tensors in the order of their places; what follows from them alone is computed once."""

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@lru_cache(KEPT)
def manifest_text(tensors: tuple[TensorEntry, ...]) -> bytes:
    """The canonical JSON of a list of tensors, as the digest takes it."""
    return canonical([[entry.name, entry.dtype, list(entry.shape)] for entry in tensors]).encode()


@lru_cache(KEPT)
def read_manifest(text: str, size: int) -> Manifest:
    """The tensors of a table without its metadata, which must fill ``size`` bytes exactly.

    Raises:
        AdapterFormatError: it is not exactly what we write.
    """
    values = parse(text, TABLE)
    if METADATA in values:
        raise AdapterFormatError(f"{TABLE} is not JSON that can be trusted: the key '{METADATA}' is there twice.")
    return manifest_of(values, size)


def manifest_of(values: Mapping[str, Any], size: int) -> Manifest:
    """The tensors of the parsed table in the order of their places, which must fill ``size`` bytes exactly.

    Raises:
        AdapterFormatError: one is not described as it should be, or there are holes or overlaps.
    """
    wrong = [name for name, value in values.items() if not _is_entry(value)]
    if wrong:
        raise AdapterFormatError(
            f"Tensors in the table of {MODEL} are not described by a dtype of {', '.join(DTYPES)}, a shape "
            f"of up to {_DIMENSIONS} sizes and a place of that many bytes: {few(sorted(wrong))}."
        )
    ordered = sorted(values.items(), key=lambda item: item[1]["data_offsets"])
    place = 0
    for name, value in ordered:
        begin, end = value["data_offsets"]
        if begin != place:
            kind = "a hole before" if begin > place else "an overlap at"
            raise AdapterFormatError(f"The tensors of {MODEL} do not follow one another: {kind} {brief(name)}.")
        place = end
    if place != size:
        raise AdapterFormatError(f"The tensors of {MODEL} take {place:,} bytes, {size:,} are there.")
    return Manifest(TensorEntry(name, value["dtype"], tuple(value["shape"])) for name, value in ordered)


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
