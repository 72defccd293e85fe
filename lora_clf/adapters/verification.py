"""Everything that can be checked about a saved adapter, one step after the other, each with what it found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lora_clf.adapters.canary import SENTENCES, TOLERANCE
from lora_clf.adapters.canary import verify as verify_canaries
from lora_clf.adapters.card import card
from lora_clf.adapters.classifier import build, check_amount
from lora_clf.adapters.disk import Place, read_from
from lora_clf.adapters.file import CARD, CONFIG, FILE_CAP, MODEL, check_config, read_model
from lora_clf.adapters.finding import Finding
from lora_clf.adapters.header import Header
from lora_clf.adapters.layout import config_of, has_head, layout_of
from lora_clf.adapters.safetensors_file import HEADER_CAP, Table, tensors_of
from lora_clf.adapters.wording import few
from lora_clf.errors import AdapterFormatError, AdapterNotFoundError, LoraClfError

if TYPE_CHECKING:
    from torch import Tensor

    from lora_clf.base.base import Base

MANY = 8 << 20  # numbers of an adapter from which on looking through them takes time


@dataclass
class _Read:
    """What the steps have come by so far."""

    place: Place
    data: bytearray = field(default_factory=bytearray)
    table: Table | None = None
    state: dict[str, Tensor] | None = None
    base: Base | None = None

    @property
    def header(self) -> Header:
        assert self.table is not None
        return self.table.header


def verify_folder(folder: Path, open_base: Callable[[Header], Base], *, file_cap: int = FILE_CAP) -> list[Finding]:
    """Check a saved adapter from its file to its canaries; a step that fails ends those that stand on it.

    Args:
        folder: of the adapter.
        open_base: gives the base to check it on.
        file_cap: the largest file that is read, in bytes.

    Raises:
        AdapterNotFoundError: there is no adapter at all.
    """
    return read_from(folder, lambda place: _steps(_Read(place), open_base, file_cap))


def _steps(read: _Read, open_base: Callable[[Header], Base], file_cap: int) -> list[Finding]:
    steps: tuple[tuple[str, str, Callable[[], str], str], ...] = (
        ("file", "the table of tensors and the header", lambda: _file(read, open_base, file_cap), "Copy it again."),
        ("config", f"{CONFIG} against the header", lambda: _config(read), "Copy the whole folder again."),
        ("digest", "SHA-256 over header and tensors", lambda: _digest(read), "Copy it again, or train it again."),
        ("tensors", "names, shapes and numbers", lambda: _tensors(read, open_base), "Use the base that it is for."),
        ("base", "the digest of the base", lambda: _base(read), "Give the base it was trained on: --base FOLDER."),
        ("tokenizer", "the tokenizer's digest", lambda: _tokenizer(read), "Restore the base's own tokenizer files."),
        ("canaries", f"the logits of {len(SENTENCES)} sentences", lambda: _canaries(read), "Do not use this adapter."),
    )
    found: list[Finding] = []
    # Only what a step needs keeps it from being made: a wrong base is found beside a wrong config.
    needs = {"config": "file", "digest": "file", "tensors": "digest", "base": "tensors", "tokenizer": "tensors"}
    needs["canaries"] = "tensors"
    passed: dict[str, bool] = {}
    for name, checked, step, advice in steps:
        if not passed.get(needs.get(name, ""), True):
            passed[name] = False
            found.append(Finding(name, None, checked, f"not checked, since {needs[name]} failed"))
            continue
        try:
            found.append(Finding(name, True, checked, step()))
            passed[name] = True
        except AdapterNotFoundError:
            if name == "file":
                raise
            passed[name] = False
            found.append(Finding(name, False, checked, "it is missing", advice))
        except LoraClfError as error:
            passed[name] = False
            found.append(Finding(name, False, checked, str(error), advice))
    return found


def _file(read: _Read, open_base: Callable[[Header], Base], file_cap: int) -> str:
    read.data, read.table = read_model(read.place, file_cap, lambda header: _amount(read, header, open_base))
    header = read.header
    more = f", kept but not known here: {', '.join(sorted(header.extra))}" if header.extra else ""
    return f"schema {header.schema}, {len(header.tensors)} tensors, {len(read.data):,} bytes{more}"


def _amount(read: _Read, header: Header, open_base: Callable[[Header], Base]) -> None:
    """Refuse more numbers than any strategy has on the base, where it is at hand, before they are looked through."""
    if header.parameters < MANY:
        return
    try:
        read.base = open_base(header)
    except LoraClfError:
        return  # what it wants is said by the step that cannot do without it
    check_amount(read.base, header)


def _config(read: _Read) -> str:
    check_config(read.header, read.place)
    try:
        written = read.place.read(CARD, HEADER_CAP).decode("utf-8", "replace")
        of_card = "the card is as written" if written == card(read.header) else "the card was edited, which is fine"
    except AdapterNotFoundError:
        of_card = "there is no card, which is fine"
    except AdapterFormatError:  # a link or a folder, say: loading never looks at it
        of_card = "the card is no file that can be read, which is fine"
    return f"{len(config_of(read.header))} fields agree; {of_card}"


def _digest(read: _Read) -> str:
    assert read.table is not None
    tensors = tensors_of(read.data, read.table)
    layout = layout_of(read.header)
    if strange := sorted(name for name in tensors if not layout.knows(name)):
        raise AdapterFormatError(f"Names of tensors belong nowhere: {few(strange)}.")
    read.state = {layout.in_memory(name): tensor for name, tensor in tensors.items()}
    return f"{read.header.digest}; all {read.header.parameters:,} numbers finite"


def _tensors(read: _Read, open_base: Callable[[Header], Base]) -> str:
    header = read.header
    assert read.state is not None
    if not has_head(header):
        raise AdapterFormatError(f"{MODEL} has no classification head; without one there are no labels.")
    read.base = read.base or open_base(header)
    build(read.base, header).load_state_dict(read.state)
    dtypes = ", ".join(sorted({entry.dtype for entry in header.tensors}))
    return f"they fit {header.strategy} on {read.base.name} ({dtypes})"


def _base(read: _Read) -> str:
    header, base = read.header, read.base
    assert base is not None
    if base.digest != header.base_digest:
        raise AdapterFormatError(
            f"{base.name} is {base.digest[:12]}, it was trained on {header.base_name}, {header.base_digest[:12]}"
        )
    return f"{base.digest}, {base.name}"


def _tokenizer(read: _Read) -> str:
    header, base = read.header, read.base
    assert base is not None
    if base.tokenizer_digest != header.tokenizer_digest:
        raise AdapterFormatError(
            f"that of {base.name} is {base.tokenizer_digest[:12]}, it was trained with {header.tokenizer_digest[:12]}"
        )
    return base.tokenizer_digest


def _canaries(read: _Read) -> str:
    assert read.base is not None and read.state is not None
    tuned = build(read.base, read.header)
    tuned.load_state_dict(read.state)
    start = time.perf_counter()
    drift = verify_canaries(read.base, tuned, read.header)
    took = time.perf_counter() - start
    return f"they differ by {drift:.1g} at most ({TOLERANCE:g} allowed); computed in {took:.2f} s"
