"""An adapter's folder: written whole or not at all, read without trusting a byte of it.

Three files: ``adapter_model.safetensors`` (header and tensors), ``adapter_config.json`` (for PEFT, or for
people) and ``README.md`` (the card). Files are read as bytes, not mapped: a mapped file that is replaced
kills the process that reads it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from lora_clf.adapters.canonical import canonical, parse
from lora_clf.adapters.card import card
from lora_clf.adapters.disk import Place, contents, read_from, write_in_place_of
from lora_clf.adapters.header import Header, TensorEntry
from lora_clf.adapters.layout import HEAD, Layout, config_of, layout_of
from lora_clf.adapters.manifest import KEPT
from lora_clf.adapters.manifest import MODEL as MODEL
from lora_clf.adapters.safetensors_file import (
    HEADER_CAP,
    Table,
    check_in_passing,
    pack,
    read_table,
    table_length,
    tensors_of,
)
from lora_clf.adapters.wording import few
from lora_clf.errors import AdapterError, AdapterExistsError, AdapterFormatError, AdapterNotFoundError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG: Final = "adapter_config.json"
CARD: Final = "README.md"
FILES: Final = (MODEL, CONFIG, CARD)
FILE_CAP: Final = 2 << 30  # bytes
AT_ONCE: Final = 32 << 20  # bytes that are read without a look through them first


def write_folder(folder: Path, header: Header, state: Mapping[str, Tensor], *, force: bool = False) -> Header:
    """Write an adapter; returns the header as it stands in the file.

    Everything is written and synchronised in a folder beside ``folder``, which then takes its place at once.

    Args:
        folder: where to; folders above it are made.
        header: without manifest and digest.
        state: the tensors by their names in memory.
        force: whether to replace an adapter that is there already.

    Raises:
        AdapterExistsError: there is something already, and ``force`` is not set or it is no adapter.
        AdapterFormatError: the header has fields that are wrong.
        AdapterError: the disk is full or read-only, or the like.
    """
    header, data = pack_state(header, state)
    config = json.dumps(config_of(header), indent=2, sort_keys=True) + "\n"
    contents = {MODEL: data, CONFIG: config.encode(), CARD: card(header).encode()}
    check_free(folder, force=force)
    try:
        write_in_place_of(Path(os.path.realpath(folder)), contents, replace=force)
    except OSError as error:
        reason = error.strerror or error
        raise AdapterError(f"The adapter could not be written to {folder}: {reason}.") from error
    return header


def pack_state(header: Header, state: Mapping[str, Tensor]) -> tuple[Header, bytes]:
    """The completed header and the bytes of the model file; ``state`` has tensors by their names in memory.

    Raises:
        AdapterFormatError: the header has fields that are wrong.
    """
    layout = layout_of(header)
    return pack(header, {layout.in_file(name): tensor for name, tensor in state.items()})


def check_free(folder: Path, *, force: bool = False) -> None:
    """Refuse a place where an adapter must not be written, before a training run is spent on it.

    Raises:
        AdapterExistsError: there is something already, and ``force`` is not set or it is no adapter.
    """
    if not os.path.lexists(folder):
        return
    if not os.path.isdir(folder):
        raise AdapterExistsError(f"{folder} is a file. Choose another place for the adapter.")
    try:
        found = sorted(os.listdir(folder))
    except OSError as error:
        raise AdapterError(f"The folder {folder} cannot be looked into: {error.strerror or error}.") from error
    if os.path.realpath(folder) == os.path.realpath(os.curdir):  # replaced under the shell's feet
        raise AdapterExistsError(f"{folder} is the folder you are in. Choose another, such as one inside it.")
    if others := [name for name in found if name not in FILES]:
        raise AdapterExistsError(
            f"{folder} holds other files than an adapter's ({', '.join(others[:3])}), so nothing is written "
            "there. Choose another folder."
        )
    if found and not {MODEL, CONFIG} & set(found):
        raise AdapterExistsError(
            f"{folder} holds a {CARD} and no adapter, so nothing is written there. Choose another folder."
        )
    if found and not force:
        raise AdapterExistsError(f"There is an adapter in {folder}. Choose another folder, or use --force.")


def read_folder(
    folder: Path, *, file_cap: int = FILE_CAP, check: Callable[[Header], None] | None = None
) -> tuple[Header, dict[str, Tensor]]:
    """Read an adapter: its header, and its tensors by their names in memory.

    Args:
        folder: where it lies.
        file_cap: the largest file that is read, in bytes.
        check: is shown the header before any tensor is read, and refuses it by raising.

    Raises:
        AdapterNotFoundError: there is no adapter.
        AdapterFormatError: it is not whole and unchanged, or larger than ``file_cap`` bytes.
    """
    return read_from(folder, lambda place: _read_whole(place, file_cap, check))


def _read_whole(
    place: Place, file_cap: int, check: Callable[[Header], None] | None
) -> tuple[Header, dict[str, Tensor]]:
    data, table = read_model(place, file_cap, check)
    header, layout = table.header, layout_of(table.header)
    names = _names_in_memory(layout, header.tensors)
    check_config(header, place)
    return header, dict(zip(names, tensors_of(data, table).values(), strict=True))


@lru_cache(KEPT)
def _names_in_memory(layout: Layout, tensors: tuple[TensorEntry, ...]) -> tuple[str, ...]:
    """What the tensors of a file are called in memory.

    Raises:
        AdapterFormatError: names that belong nowhere, or no head.
    """
    names = [layout.in_memory(entry.name) for entry in tensors]
    if strange := sorted(entry.name for entry in tensors if not layout.knows(entry.name)):
        raise AdapterFormatError(f"Names of tensors in {MODEL} belong nowhere: {few(strange)}.")
    if not any(name.startswith(HEAD) for name in names):
        raise AdapterFormatError(f"{MODEL} has no classification head; without one there are no labels.")
    return tuple(names)


def read_model(place: Place, file_cap: int, check: Callable[[Header], None] | None = None) -> tuple[bytearray, Table]:
    """The bytes of the model file and its examined table.

    A file that is larger than its table says is not read. A large one is held to its digest before memory is taken for
    it: what is damaged or made up costs none.

    Raises:
        AdapterNotFoundError: there is none.
        AdapterFormatError: it is not whole, or larger than ``file_cap`` bytes.
    """
    with place.open(MODEL, file_cap) as file:
        top, size = _top(file)
        table = read_table(top, size)
        if check is not None:
            check(table.header)
        if size > AT_ONCE:
            check_in_passing(file, table)
        file.seek(0)
        return contents(file, size), table


def read_header(folder: Path | str) -> Header:
    """The header of a saved adapter; its tensors are not read, so its digest is not checked.

    Raises:
        AdapterNotFoundError: there is no adapter.
        AdapterFormatError: the header cannot be read, or ``adapter_config.json`` says something else.
    """
    return read_from(Path(folder), _read_top)


def _read_top(place: Place) -> Header:
    with place.open(MODEL) as file:
        header = read_table(*_top(file)).header
    check_config(header, place)
    return header


def _top(file: BinaryIO) -> tuple[bytes, int]:
    """The first part of a model file, its table included, and the size of the whole."""
    size = os.fstat(file.fileno()).st_size
    top = file.read(8)
    return top + file.read(table_length(top, size)), size


def list_adapters(folder: Path | str) -> list[tuple[Path, Header | AdapterError]]:
    """The adapters in ``folder``: itself, the folders in it and the folders in those; sorted by path.

    One that holds a file of an adapter which cannot be read comes with the error in place of a header; folders that
    are closed to us are passed over.

    Raises:
        AdapterNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AdapterNotFoundError(f"There is no folder {folder}.")
    children = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    nested = [path for child in children if os.access(child, os.R_OK | os.X_OK) for path in sorted(child.iterdir())]
    found: list[tuple[Path, Header | AdapterError]] = []
    for path in sorted({folder, *children, *(path for path in nested if path.is_dir())}):
        if any(os.path.lexists(path / name) for name in (MODEL, CONFIG)):
            try:
                found.append((path, read_header(path)))
            except AdapterError as error:
                found.append((path, error))
    return found


def check_config(header: Header, place: Place) -> None:
    """Hold ``adapter_config.json`` to the header, field by field.

    Raises:
        AdapterFormatError: it says something else; every field is named.
    """
    came = parse(place.read(CONFIG, HEADER_CAP), CONFIG)
    if not isinstance(came, dict):
        raise AdapterFormatError(f"{CONFIG} holds no JSON object.")
    expected = config_of(header)
    if canonical(came) == canonical(expected):
        return
    problems = [f"{name} is missing" for name in sorted(expected.keys() - came.keys())]
    problems += [f"{name} is not known" for name in sorted(came.keys() - expected.keys())]
    problems += [
        f"{name} is {_short(came[name])}, expected {_short(expected[name])}"
        for name in sorted(expected.keys() & came.keys())
        if canonical(came[name]) != canonical(expected[name])
    ]
    if problems:
        raise AdapterFormatError(f"{CONFIG} disagrees with the header of {MODEL}: {few(problems, '; ', 240)}.")


def _short(value: Any) -> str:
    text = canonical(value)
    return text if len(text) <= 80 else text[:77] + "..."
