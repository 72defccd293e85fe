"""An adapter in use: a trained classifier on a shared base, from texts to labels, to a folder and back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.adapters.base_check import check_base, check_own_base
from lora_clf.adapters.canary import canaries, largest_drift
from lora_clf.adapters.canary import verify as verify_canaries
from lora_clf.adapters.classifier import build, check_amount, reading, rebuilt
from lora_clf.adapters.file import (
    FILE_CAP,
    list_adapters,
    pack_state,
    read_folder,
    read_header,
    write_folder,
)
from lora_clf.adapters.header import Header
from lora_clf.adapters.layout import layout_of
from lora_clf.adapters.origin import adapter_folder
from lora_clf.adapters.prediction import Prediction, answers
from lora_clf.adapters.provenance import make_header
from lora_clf.adapters.questions import ONE_TEXT, checked_texts
from lora_clf.base.reading import read
from lora_clf.errors import AdapterFormatError, StateError, UsageError, WrongBaseError, unknown
from lora_clf.tuners import strategies

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.adapters.explanation import Explanation
    from lora_clf.base.base import Base
    from lora_clf.base.tokenizer import Tokens
    from lora_clf.tuners.base import Tuned

__all__ = ["Adapter", "Prediction", "check_base", "list_adapters", "load_adapter", "make_header", "read_header"]

DTYPES = ("fp32", "bf16")


def check_dtype(dtype: str) -> str:
    """``dtype`` itself, where an adapter can be saved in it.

    Raises:
        UsageError: it cannot.
    """
    if dtype not in DTYPES:
        raise unknown("adapter dtype", dtype, DTYPES)
    return dtype


class Adapter:
    """A trained classifier on a base that others may share.

    Attributes:
        base: the base.
        tuned: the strategy's handle of the trained view.
        header: what is known about it.
    """

    def __init__(self, base: Base, tuned: Tuned, header: Header) -> None:
        self.base = base
        self.tuned = tuned
        self.header = header

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the logits."""
        return self.header.labels

    @property
    def positive_label(self) -> str | None:
        """The label that is looked for, where there are two."""
        return self.header.positive_label

    def __repr__(self) -> str:
        return f"Adapter({self.header.strategy!r} on {self.base.name!r}, labels {', '.join(self.labels)})"

    def encode(self, texts: Sequence[str]) -> Tokens:
        """The token ids of ``texts``, cut as in training.

        Raises:
            UsageError: ``texts`` is one text, or something in it is no text.
        """
        return self._encoded(checked_texts(texts))

    def logits(self, texts: Sequence[str], *, precision: str = "fp32") -> NDArray[np.float32]:
        """The logits of ``texts``: N texts -> (N, C), in their order.

        Args:
            texts: any number of texts.
            precision: "fp32", in which its recorded scores were measured, or "bf16" or "auto": faster where the
                device has it, and the last bits of a text's logits then depend on the texts beside it.

        Raises:
            UsageError: ``texts`` is one text, or something in it is no text.
        """
        found = [np.empty((0, self.header.outputs), dtype=np.float32)]
        found += [logits for logits, _ in self._chunks(checked_texts(texts), precision)]
        return np.concatenate(found)

    def predict(self, texts: Sequence[str], *, precision: str = "fp32") -> list[Any]:
        """One answer a text, in their order; none is left out: a `Prediction`, or what the task has in its place.

        Args:
            texts: any number of texts.
            precision: "fp32", in which its recorded scores were measured, or "bf16" or "auto": faster where the
                device has it, and the last bits of a text's logits then depend on the texts beside it.

        Raises:
            UsageError: ``texts`` is one text, or something in it is no text.
        """
        return list(self.stream(checked_texts(texts), precision=precision))

    def stream(self, texts: Iterable[str], *, precision: str = "fp32") -> Iterator[Any]:
        """One answer a text as they come, for more texts than fit into memory.

        Some thousand texts are read, sorted by length and answered at a time, in their order.

        Args:
            texts: any number of texts, read once.
            precision: as in `predict`.

        Raises:
            UsageError: ``texts`` is one text, or something in it is no text (then the answers before it have come).
        """
        if isinstance(texts, str):
            raise UsageError(ONE_TEXT)
        return (
            answer for logits, truncated in self._chunks(texts, precision) for answer in self.answers(logits, truncated)
        )

    def explain(self, texts: Sequence[str]) -> list[Explanation]:
        """The answers of `predict`, each with the chunks that it rests on, where they stand and what each says.

        Raises:
            UsageError: ``texts`` is one text, or something in it is no text.
        """
        from lora_clf.adapters.explanation import explain

        return explain(self, checked_texts(texts))

    def answers(self, logits: NDArray[np.float32], truncated: NDArray[np.bool_]) -> list[Any]:
        """The answers that (N, C) logits mean, temperature and threshold applied."""
        return answers(self.header, logits, truncated)

    def cast(self, dtype: str | None) -> Adapter:
        """The adapter with the numbers that a file of ``dtype`` holds; itself where those are the ones it has.

        Raises:
            UsageError: unknown ``dtype``.
        """
        if dtype is None or check_dtype(dtype) != "bf16":
            return self
        state = self.tuned.state_dict()
        rounded = {name: tensor.bfloat16() for name, tensor in state.items()}
        if all(bool((rounded[name] == tensor).all()) for name, tensor in state.items()):
            return self
        fresh = rebuilt(self.base, self.tuned)
        fresh.load_state_dict(rounded)
        return Adapter(self.base, fresh, self.header)

    def save(self, folder: Path | str, force: bool = False, *, dtype: str | None = None) -> Path:
        """Write the adapter to ``folder``; afterwards ``header`` is what stands in the file.

        Args:
            folder: where to; made with the folders above it.
            force: whether to replace an adapter that is there.
            dtype: "fp32", or "bf16" for a file half as large; default: each tensor as it was loaded, else fp32.

        Raises:
            AdapterExistsError: there is something already.
            UsageError: unknown ``dtype``, a strategy that loading would not find, or other numbers than those that were
                loaded onto another base than the adapter's own.
        """
        if dtype is not None:
            check_dtype(dtype)
        if self.header.strategy not in strategies():
            raise UsageError(
                f"The strategy {self.header.strategy!r} is not part of lora_clf.tuners, so nobody could load this "
                "adapter again: put its file into that folder."
            )
        header, state = self.header, self.tuned.state_dict()
        halved = set(state) if dtype == "bf16" else _halved(header) if dtype is None else set()
        state = {name: tensor.bfloat16() if name in halved else tensor for name, tensor in state.items()}
        if header.canaries is None or pack_state(header, state)[0].digest != header.digest:
            check_own_base(header, self.base)  # its canaries would be another base's
            fresh = rebuilt(self.base, self.tuned)
            fresh.load_state_dict(state)  # as they are after the cast
            found = canaries(self.base, fresh, header)
            header = replace(header, canaries=found)
        self.header = write_folder(Path(folder), header, state, force=force)
        return Path(folder)

    def verify(self) -> float:
        """Compute the stored canaries again; returns the largest drift, as a share of max(1, |logit|).

        Raises:
            AdapterFormatError: they drift; the message names the likely cause.
            WrongBaseError: they drift, and the base or the tokenizer is another one.
        """
        return verify_canaries(self.base, rebuilt(self.base, self.tuned), self.header)

    def _encoded(self, texts: list[str]) -> Tokens:
        side: Any = self.header.truncation
        return read(self.base.tokenizer, texts, self.header.max_length, side, self.header.how)

    def _chunks(self, texts: Iterable[str], precision: str) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """Logits (N, C) and which texts were cut (N,), some thousand texts at a time."""
        from lora_clf.inference.precision import resolve_precision
        from lora_clf.inference.predict import CHUNK, LONG_CHUNK, answering, chunks, logits

        number = resolve_precision(precision, self.base.device)
        made = None
        done = 0
        softmax = self.header.answering.softmax
        for chunk in chunks(texts, LONG_CHUNK if self.header.how.whole else CHUNK):
            tokens = self._encoded(checked_texts(chunk, done))
            if made is None:
                made = answering(self.tuned, number, len(tokens))
            yield logits(made.view, tokens, precision=number, last=made.last, softmax=softmax), tokens.cut
            done += len(chunk)


def _halved(header: Header) -> set[str]:
    """The tensors, by their names in memory, that the adapter's file holds in bf16; none where it has no file."""
    names = [entry.name for entry in header.tensors if entry.dtype == "BF16"]
    return set(map(layout_of(header).in_memory, names)) if names else set()


def load_adapter(
    folder: Path | str,
    base: Base,
    *,
    verify: bool = False,
    engine: str | None = None,
    file_cap: int = FILE_CAP,
    base_check: str = "strict",
    labels: Sequence[str] | None = None,
) -> Adapter:
    """Load a saved adapter onto the base that it was trained on.

    Args:
        folder: where it was saved; or an adapter on the Hub, "owner/name" or "owner/name@revision".
        base: its base; the adapter goes to the base's device.
        verify: whether to compute the canaries again: the surest check, at the cost of seven short texts.
        engine: "lora" or "lora-scratch": what computes a LoRA adapter; default: what trained it.
        file_cap: the largest file that is read, in bytes.
        base_check: what happens with another base of the same shape or another tokenizer: "strict" refuses it,
            "warn" says so in one warning with both names (and, with ``verify``, by how much the canaries drift),
            "off" says nothing. Tensors that do not fit are refused in any case.
        labels: of an adapter that PEFT saved, in the order of its outputs; see `lora_clf.adapters.foreign`.

    Raises:
        AdapterNotFoundError: there is none.
        AdapterFormatError: it is not whole and unchanged, or of a newer version.
        WrongBaseError: it was trained on another base or with another tokenizer; or, where that was let pass, its
            tensors do not fit this base.
        UsageError: ``engine`` does not apply, ``base_check`` is unknown, or ``labels`` are not those of the adapter.
    """
    place = adapter_folder(folder, file_cap=file_cap)
    if labels is not None:
        from lora_clf.adapters.foreign import is_foreign, load_foreign

        if is_foreign(place):
            strategy = engine or "lora"
            return load_foreign(place, base, labels=labels, strategy=strategy, base_check=base_check, file_cap=file_cap)
    header, state = read_folder(place, file_cap=file_cap, check=partial(check_amount, base))
    if labels is not None and tuple(labels) != header.labels:
        raise UsageError(
            f"The adapter in {folder} has labels of its own, {', '.join(header.labels)}; given were "
            f"{', '.join(labels)}. Leave them out."
        )
    other = check_base(folder, header, base, base_check)
    try:
        base = reading(base, header)
        tuned = build(base, header, engine=engine)
        tuned.load_state_dict(state)
    except (StateError, AdapterFormatError) as error:
        if other is not None:
            raise WrongBaseError(f"{other} It does not fit there: {error}") from error
        if isinstance(error, AdapterFormatError):
            raise
        raise AdapterFormatError(f"The tensors of the adapter in {folder} do not fit: {error}") from error
    if other is None and verify:
        verify_canaries(base, tuned, header)
    if other is not None and base_check == "warn":
        drift = f" Its canaries drift by {largest_drift(base, tuned, header):.2g}." if verify else ""
        warnings.warn(f"{other}{drift}", stacklevel=2)
    return Adapter(base, tuned, header)
