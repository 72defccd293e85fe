"""Where results go: whether a place is free and can be written, asked before any work is done for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lora_clf.errors import UsageError


def check_free_file(file: Path, force: bool, flag: str = "--output", *, makes_folder: bool = False) -> None:
    """Refuse a result file that is there already or cannot be written; its folder is there, or will be made.

    Raises:
        UsageError: it is there and ``force`` was not given, it is a folder, or it cannot be written.
    """
    if file.is_dir():
        raise UsageError(f"{flag} {file} is a folder; expected the name of a file.")
    if file.exists() and not force:
        raise UsageError(f"{file} is there already. Give another {flag}, or --force to overwrite it.")
    if not makes_folder and not file.parent.is_dir():
        raise UsageError(f"{flag} {file}: there is no folder {str(file.parent)!r}. Make it first.")
    check_writable(file, flag)


def check_writable(place: Path, flag: str) -> None:
    """Refuse a place where nothing can be written.

    Raises:
        UsageError: a file stands where a folder is needed, or there is no permission.
    """
    there = place.absolute()
    while not os.path.lexists(there) and there != there.parent:  # a drive that is not there is its own parent
        there = there.parent
    if there != place.absolute() and not there.is_dir():
        raise UsageError(f"{flag} {place}: {there.name!r} is a file, expected a folder.")
    if not os.access(there if there.is_dir() else there.parent, os.W_OK):
        raise UsageError(f"{flag} {place}: no permission to write there.")


def file_name(origin: str) -> str:
    """A name for results about a data set: its file's or corpus' name in letters that any disk takes."""
    stem = Path(origin).absolute().name
    stem = stem.rsplit(".", 1)[0] if "." in stem[1:] else stem
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.").lower() or "data"
