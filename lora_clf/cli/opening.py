"""Opens saved adapters with the base they were made on, and bases for a look at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lora_clf.errors import BaseNotFoundError, DownloadError

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter
    from lora_clf.base.base import Base


def open_adapter(folder: Path, base: str | None, revision: str | None, device: str) -> Adapter:
    """Load the adapter in ``folder`` on ``base``, by default on the base that its header names.

    Raises:
        AdapterNotFoundError, AdapterFormatError, WrongBaseError: as `load_adapter` does.
        BaseNotFoundError: the base is not here; the message says how to name its folder.
    """
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.adapters.file import read_header

    header = read_header(folder)
    return load_adapter(folder, _base(header.base_name, base, revision, device))


def _base(own: str, given: str | None, revision: str | None, device: str) -> Base:
    from lora_clf.base.base import load_base

    if given is not None:
        return load_base(given, revision=revision, device=device)
    try:
        return load_base(own, revision=revision, device=device)
    except (BaseNotFoundError, DownloadError) as error:
        raise type(error)(
            f"The adapter was made on the base {own!r}, which is not here: {error} "
            "Or give the folder it lies in: --base FOLDER."
        ) from error


def weightless(base: Base) -> Base:
    """The same base without its numbers, so that preparing a strategy on it computes and copies none."""
    from dataclasses import replace

    from lora_clf.base.view import share

    return replace(base, backbone=share(base.backbone).to("meta"))
