"""Where results go: whether a place is free and can be written, asked before any work is done for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lora_clf.errors import AdapterExistsError, UsageError


def check_free(folder: Path, force: bool) -> None:
    """Refuse a result folder that is taken or cannot be made, before any work is done for it.

    Raises:
        AdapterExistsError: something is there and ``force`` was not given.
        UsageError: it cannot be written there, or a file is in the way.
    """
    if folder.is_file():
        raise UsageError(f"--out {folder} is a file; expected a folder that is to be made.")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise AdapterExistsError(f"{folder} is there already. Give another --out, or --force to overwrite.")
    _check_writable(folder, "--out")


def check_free_file(file: Path, force: bool) -> None:
    """The same for a result file.

    Raises:
        UsageError: it is there and ``force`` was not given, it is a folder, or it cannot be written.
    """
    if file.is_dir():
        raise UsageError(f"--output {file} is a folder; expected the name of a file.")
    if file.exists() and not force:
        raise UsageError(f"{file} is there already. Give another --output, or --force to overwrite it.")
    if not file.parent.is_dir():
        raise UsageError(f"--output {file}: there is no folder {str(file.parent)!r}. Make it first.")
    _check_writable(file, "--output")


def _check_writable(place: Path, flag: str) -> None:
    there = place.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if there != place.absolute() and not there.is_dir():
        raise UsageError(f"{flag} {place}: {there.name!r} is a file, expected a folder.")
    if not os.access(there if there.is_dir() else there.parent, os.W_OK):
        raise UsageError(f"{flag} {place}: no permission to write there.")


def folder_bytes(folder: Path) -> int:
    """How many bytes the files of ``folder`` have."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def file_name(origin: str) -> str:
    """A name for results about a data set: its file's or corpus' name in letters that any disk takes."""
    stem = Path(origin).absolute().name
    stem = stem.rsplit(".", 1)[0] if "." in stem[1:] else stem
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.").lower() or "data"
