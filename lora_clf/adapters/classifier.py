"""From a header to a classifier on a base, as empty as before training."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from transformers.pytorch_utils import Conv1D

from lora_clf.adapters.factors import A
from lora_clf.adapters.header import Header
from lora_clf.base.verbalizer import prompted
from lora_clf.errors import AdapterFormatError, TunerError, UnsupportedBaseError, UsageError
from lora_clf.tuners import create, strategies
from lora_clf.tuners.base import Tuned, Tuner

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.tuners.low_rank import LowRank


_SMALL: Final = 1024  # a size that takes no memory worth asking for
_MOST: Final = 4  # times the numbers of the base
_NO_SIZE: Final = re.compile("seed|alpha|scal|prng")  # in the name of a setting of peft's


def reading(base: Base, header: Header) -> Base:
    """``base`` as the adapter of ``header`` sees it: through its template, where its head is a verbalizer.

    Raises:
        AdapterFormatError: template and words do not fit the base, or its language model's head is another one.
    """
    if header.verbalizer is None:
        return base
    words, rows = tuple(header.verbalizer["words"]), header.verbalizer["rows"]
    mine = header.verbalizer["template"], words, rows
    if base.prompt is not None and (base.prompt.template, base.prompt.words, base.prompt.digest) == mine:
        return base
    try:
        found = prompted(base, header.verbalizer["template"], words)
    except (UsageError, UnsupportedBaseError) as error:
        raise AdapterFormatError(f"The adapter's verbalizer does not fit the base {base.name}: {error}") from error
    assert found.prompt is not None
    if found.prompt.digest != rows:
        raise AdapterFormatError(
            f"The language model's head of base {base.name} is not the one that this adapter was trained with: the "
            f"rows of {', '.join(words)} have the digest {found.prompt.digest[:12]}, expected {rows[:12]}."
        )
    return found


def build(base: Base, header: Header, *, engine: str | None = None) -> Tuned:
    """A classifier of the kind that ``header`` describes, in fp32 on fresh storage of ``base``.

    Args:
        base: what it stands on.
        header: strategy, settings, labels, pooling and seed.
        engine: "lora" or "lora-scratch": which of the two computes a LoRA adapter; default: the one that
            trained it.

    Raises:
        AdapterFormatError: strategy or settings that this version does not know, or that do not fit the base.
        UsageError: ``engine`` is no LoRA strategy, or the adapter is none.
    """
    name = header.strategy
    _kind(header)
    if engine is not None and engine != name:
        known = [other for other, kind in strategies().items() if issubclass(kind, _low_rank()) and kind.plain]
        if engine not in known or name not in known:
            raise UsageError(
                f"A {name} adapter cannot be computed by {engine!r}: these take each other's adapters: "
                f"{', '.join(known)}."
            )
    check_sizes(base, header)
    base = reading(base, header)
    try:
        tuner = create(engine or name, **header.settings)
        base.check_length(header.max_length, tuner.extra_tokens)
        tuned = tuner.prepare(base.view(header.outputs, header.pooling, header.seed, header.how.combiner))
    except (UsageError, TunerError, TypeError, UnsupportedBaseError) as error:
        raise AdapterFormatError(f"The adapter's settings do not fit strategy and base: {error}") from error
    for field, found in (("scaling", scaling_of(tuned)), ("fan_in_fan_out", fan_in_fan_out(base, tuned))):
        if found != (said := getattr(header, field)):
            raise AdapterFormatError(
                f"The adapter's {field} is {said}, but its settings {dict(header.settings)} on this base give {found}."
            )
    return tuned


def check_sizes(base: Base, header: Header) -> None:
    """Refuse sizes that the tensors or the base do not have, before any memory is taken for them.

    Raises:
        AdapterFormatError: the header claims a longer text than the base takes, another rank than its factors', or more
            outputs or something larger than any of its tensors shows.
    """
    try:
        base.check_length(header.max_length)
    except UsageError as error:
        raise AdapterFormatError(
            f"The adapter reads texts of up to {header.max_length} tokens, which this base cannot. {error}"
        ) from error
    _check_shown(header)
    rank = header.settings.get("rank")
    if not header.low_rank or not isinstance(rank, (int, float)):
        return
    for entry in header.tensors:
        if entry.name.endswith(A) and entry.shape[:1] != (rank,):
            shown = entry.shape[0] if entry.shape else "none"
            raise AdapterFormatError(f"The adapter's rank is {rank}, but {entry.name} has rank {shown}.")


def check_amount(base: Base, header: Header) -> None:
    """Refuse an adapter of more numbers than any strategy has on ``base``, before one of them is read.

    Raises:
        AdapterFormatError: it has.
    """
    # The factors of a square matrix at full rank are twice its size; the outputs count for the head.
    most = _MOST * base.total_parameters + _SMALL * _SMALL + header.outputs * _SMALL
    if header.base_digest == base.digest and header.parameters > most:
        raise AdapterFormatError(
            f"The adapter has {header.parameters:,} numbers, on a base of {base.total_parameters:,}. No strategy has "
            f"more than {most:,} there, so they are not read."
        )


def _kind(header: Header) -> type[Tuner]:
    """The strategy that a header names.

    Raises:
        AdapterFormatError: this version does not know it.
    """
    if header.strategy not in strategies():
        raise AdapterFormatError(
            f"The adapter was trained with the strategy {header.strategy!r}, which this version of lora_clf does not "
            f"know. It knows: {', '.join(strategies())}."
        )
    return strategies()[header.strategy]


def _check_shown(header: Header) -> None:
    """Hold sizes that a header names to those of its tensors: what takes memory must be in the file."""
    if not header.tensors:  # what another program saved, whose tensors are at hand
        return
    largest = max([_SMALL, *(size for entry in header.tensors for size in entry.shape)])
    kind = _kind(header)
    sizes = {field.name for field in fields(kind) if str(field.type).startswith("int")} - set(kind.not_sizes)
    claimed = {name: header.settings.get(name) for name in sorted(sizes)}
    claimed |= {f"set {name}": value for name, value in whole_numbers(header.settings.get("set")).items()}
    claimed["outputs"] = header.outputs
    for name, value in claimed.items():
        if isinstance(value, int) and value > largest:
            raise AdapterFormatError(
                f"The adapter's {name} is {str(value)[:40]}, but none of its tensors has a size over {largest}."
            )


def whole_numbers(text: object) -> dict[str, int]:
    """Those of ``r=4,alpha=8`` that are sizes of something."""
    pairs = (part.partition("=") for part in text.split(",")) if isinstance(text, str) else ()
    known = ((name.strip(), value.strip()) for name, _, value in pairs)
    return {
        name: int(value) for name, value in known if not _NO_SIZE.search(name) and re.fullmatch("[0-9]{1,20}", value)
    }


def scaling_of(tuned: Tuned) -> float | None:
    """What the low-rank change is multiplied by; None for a strategy without one."""
    scaling: float | None = getattr(tuned, "scaling", None)
    return scaling


def fan_in_fan_out(base: Base, tuned: Tuned) -> bool | None:
    """Whether the adapted layers hold their weight as (in, out); None for a strategy that adapts none."""
    if scaling_of(tuned) is None or tuned.coverage is None:
        return None
    return isinstance(base.backbone.get_submodule(tuned.coverage.modules[0]), Conv1D)


def rebuilt(base: Base, tuned: Tuned) -> Tuned:
    """The same classifier in fp32 on fresh storage of ``base``, whatever was cast in the other for speed."""
    view = tuned.view
    if base.prompt is None and view.prompt is not None:
        base = prompted(base, view.prompt.template, view.prompt.words)
    fresh = tuned.tuner.prepare(base.view(view.classes, view.pooling, view.seed, view.combine))
    fresh.load_state_dict(tuned.state_dict())
    return fresh


def _low_rank() -> type[LowRank]:
    from lora_clf.tuners.low_rank import LowRank

    return LowRank
