"""From an adapter's header to its base: by name where that is the right one, else by digest among those here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lora_clf.adapters.base_check import fits
from lora_clf.adapters.header import Header
from lora_clf.adapters.layout import head_width
from lora_clf.base.base import load_base
from lora_clf.base.shelf import alike, is_here
from lora_clf.errors import BaseError, DownloadError

if TYPE_CHECKING:
    from lora_clf.base.base import Base


def find_base(header: Header, *, revision: str | None = None, device: str = "auto") -> Base:
    """Load the base that an adapter was trained on, wherever it lies on this machine and whatever its name here.

    Looked at in this order: the base of that name, where it is here; every base here with the right digest (the
    catalogue's, and the folders under ``LORA_CLF_BASES``); the base of that name, fetched. Weights are digested
    anew each time, so that nothing is remembered that has changed since.

    Returns:
        The base; where none has the digest, that of the right name, which `check_base` then judges.

    Raises:
        BaseNotFoundError, DownloadError: there is none, and the name cannot be fetched.
        BaseError: the base of that name is damaged, and no other has the digest.
    """
    name, by_name, damage = header.base_name, None, None
    here = is_here(name)
    if here:
        try:
            by_name = load_base(name, revision=revision, device=device)
        except BaseError as error:
            damage = error
        if by_name is not None and fits(header, by_name):
            return by_name
    if (found := next(with_digest(header, device=device), None)) is not None:
        return found
    if by_name is not None:
        return by_name
    if damage is not None:
        raise damage
    return load_base(name, revision=revision, device=device)


def with_digest(header: Header, *, device: str = "auto") -> Iterator[Base]:
    """The bases on this machine that are bit for bit the one that the adapter was trained on, tokenizer included."""
    for place in alike(header.architecture, head_width(header)):
        try:
            base = load_base(place, device=device)
        except (BaseError, DownloadError):
            continue  # what is wrong with a base that may have nothing to do with this adapter is not the matter
        if fits(header, base):
            yield base
