"""Opens saved adapters with the base they were made on, and bases for a look at them."""

from __future__ import annotations

import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lora_clf.cli.flags import AdapterFlags
from lora_clf.cli.output import note, seconds
from lora_clf.errors import BaseNotFoundError, DownloadError, unknown

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter
    from lora_clf.adapters.header import Header
    from lora_clf.base.base import Base


def open_adapter(place: Path, how: AdapterFlags, command: str) -> Adapter:
    """Load the adapter at ``place`` on the base that the flags name, else on its own, and compute its canaries.

    Args:
        place: a folder, or a Hub id.
        how: the flags of the command.
        command: its name, for the line that a message advises, such as "predict".

    Raises:
        AdapterNotFoundError, AdapterFormatError, WrongBaseError: as `load_adapter` does.
        BaseNotFoundError: the base is not here; the message says how to name its folder.
    """
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.adapters.base_check import BASE_CHECKS, check_base, fits
    from lora_clf.adapters.canary import verify
    from lora_clf.adapters.file import read_header
    from lora_clf.adapters.origin import adapter_folder

    if how.base_check not in BASE_CHECKS:
        raise unknown("base check", how.base_check, BASE_CHECKS)
    folder = adapter_folder(place, file_cap=how.cap)
    header = read_header(folder)
    base = open_base(place, header, how, command)
    right = fits(header, base)
    if not right and how.base_check == "strict":
        check_base(place, header, base, advice=_way_out(place, header, how, command))
    with warnings_noted():
        adapter = load_adapter(
            folder, base, file_cap=how.cap, base_check=how.base_check, verify=not (right or how.no_verify)
        )
    if right and not how.no_verify:
        start = time.perf_counter()
        verify(adapter.base, adapter.tuned, header)
        if sys.stderr.isatty():  # for a person; in a pipe a filter has nothing to say
            took = seconds(time.perf_counter() - start)
            note(f"The adapter computes what it did when it was saved (checked in {took}; --no-verify leaves it out).")
    return adapter


@contextmanager
def warnings_noted() -> Iterator[None]:
    """What is warned of inside, a line each on stderr."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    for warning in said:
        if issubclass(warning.category, UserWarning):
            note(f"Warning: {warning.message}")


def open_base(place: Path, header: Header, how: AdapterFlags, command: str) -> Base:
    """The base that the flags name, or the adapter's own."""
    from lora_clf.adapters.base_search import find_base
    from lora_clf.base.base import load_base

    if how.base is not None:
        return load_base(how.base, revision=how.revision, device=how.device)
    try:
        return find_base(header, revision=how.revision, device=how.device)
    except (BaseNotFoundError, DownloadError) as error:
        raise type(error)(
            f"The adapter was made on the base {header.base_name!r}, which is not here: {error} "
            f"Or give the folder it lies in: {_command(command, place, 'FOLDER')}"
        ) from error


def _way_out(place: Path, header: Header, how: AdapterFlags, command: str) -> str:
    """What to do about a wrong base: the command with the right one, where it is on this machine."""
    from lora_clf.adapters.base_search import with_digest
    from lora_clf.base.sources import FOLDERS_VARIABLE

    # Where no base was named the right one was looked for already.
    found = next(with_digest(header, device=how.device), None) if how.base is not None else None
    if found is not None and found.folder is not None:
        return f"That base is here: {_command(command, place, str(found.folder))}"
    return (
        f"No base here has that digest ({FOLDERS_VARIABLE} names folders to look in). Give the folder of the one it "
        f"was trained on: {_command(command, place, 'FOLDER')}"
    )


def _command(command: str, place: Path, base: str) -> str:
    return f"`lora-clf {command} {shlex.quote(str(place))} --base {shlex.quote(base)}`"


def weightless(base: Base) -> Base:
    """The same base without its numbers, so that preparing a strategy on it computes and copies none."""
    from dataclasses import replace

    from lora_clf.base.view import share

    return replace(base, backbone=share(base.backbone).to("meta"))
