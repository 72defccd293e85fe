"""Whether a base is the one that an adapter was trained on, and what happens where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from lora_clf.adapters.header import Header
from lora_clf.errors import UsageError, WrongBaseError, unknown

if TYPE_CHECKING:
    from lora_clf.base.base import Base

BASE_CHECKS: Final = ("strict", "warn", "off")
"""What is done about another base: refuse it, say so in one line, or say nothing. Shapes must fit in any case."""


def fits(header: Header, base: Base) -> bool:
    """Whether base and tokenizer are bit for bit those that the adapter was trained with."""
    return base.digest == header.base_digest and base.tokenizer_digest == header.tokenizer_digest


def difference(folder: Path | str | None, header: Header, base: Base) -> str | None:
    """The sentence that names both bases, or None where it is the right one; of an adapter that lies nowhere too."""
    adapter = "The adapter" if folder is None else f"The adapter in {folder}"
    if base.digest != header.base_digest:
        same = " The names are equal, the weights or settings are not." if base.name == header.base_name else ""
        return (
            f"{adapter} was trained on the base {header.base_name} (digest "
            f"{header.base_digest[:12]}); this base is {base.name} (digest {base.digest[:12]}).{same}"
        )
    if base.tokenizer_digest != header.tokenizer_digest:
        return (
            f"{adapter} was trained with another tokenizer: that of its base {header.base_name} "
            f"has the digest {header.tokenizer_digest[:12]}, that of this base, {base.name}, has "
            f"{base.tokenizer_digest[:12]}."
        )
    return None


def check_own_base(header: Header, base: Base, which: str = "") -> None:
    """Refuse an adapter that was let onto another base: what is made of it would carry that base's digest.

    Raises:
        UsageError: it was; ``which`` is put before the sentence that names both.
    """
    if found := difference(None, header, base):
        raise UsageError(
            f"{which}{found} What is made of it there would pass for trained there. Load it on its own base."
        )


def check_base(
    folder: Path | str, header: Header, base: Base, mode: str = "strict", *, advice: str | None = None
) -> str | None:
    """Refuse a base or a tokenizer that the adapter was not trained with.

    Args:
        folder: of the adapter, for the message.
        header: of the adapter.
        base: that it is to run on.
        mode: one of `BASE_CHECKS`; only "strict" refuses.
        advice: what to do, in place of the usual sentence.

    Returns:
        None where it is the right base, else the sentence that names both.

    Raises:
        WrongBaseError: it is another one and ``mode`` is "strict".
        UsageError: unknown ``mode``.
    """
    if mode not in BASE_CHECKS:
        raise unknown("base check", mode, BASE_CHECKS)
    found = difference(folder, header, base)
    if found is None or mode != "strict":
        return found
    if advice is None:
        advice = (
            "Restore the tokenizer files of the base it was trained on."
            if base.digest == header.base_digest
            else f"Load the base it was trained on: --base {header.base_name}, or load_base({header.base_name!r})."
        )
    raise WrongBaseError(f"{found} {advice}")
