"""Canaries: fixed sentences whose logits are stored with an adapter, so that a wrong load shows.

Each stands for a failure that it exposes. The logits are computed in fp32 with the reference kernel, one text
at a time, and may drift by 1e-4 x max(1, |logit|). No user's text is among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from lora_clf.adapters.classifier import build, reading, scaling_of
from lora_clf.adapters.header import Header
from lora_clf.base.reading import read
from lora_clf.errors import AdapterFormatError, LoraClfError, WrongBaseError
from lora_clf.inference.predict import reference_logits
from lora_clf.tuners.base import Tuned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.base.base import Base
    from lora_clf.base.tokenizer import Tokens

SET: Final = 1
"""The number of this set of sentences; a changed set gets a new number."""

TOLERANCE: Final = 1e-4

SENTENCES: Final[Mapping[str, str]] = MappingProxyType({
    # everything in general: base, head, scaling, pooling, order of labels
    "plain": "Are we still on for lunch at noon? I can pick you up in front of the station.",
    "promotion": "Congratulations! You have been selected for a FREE prize worth 1000. Call now to claim it.",
    # pooling that counts padding: next to nothing but padding in any batch
    "short": "ok",
    "empty": "",
    # special tokens read out of a text
    "special": "He typed <|endoftext|> and [PAD] [CLS] [SEP] <s> </s> <pad> <unk> and sent it.",
    # another vocabulary, or another normaliser
    "foreign": "Grüße aus Köln: 5 € für Kaffee ☕️, 東京で会いましょう, до завтра, ﬁn\u0301.",
    # the length and the side of truncation: the start and the end differ
    "long": " ".join(f"Item {number} of the list is here." for number in range(1, 301)),
})  # fmt: skip

_TOKENIZER = frozenset({"special", "foreign", "empty"})


def canaries(base: Base, tuned: Tuned, header: Header) -> dict[str, Any]:
    """The sentences' logits as a header stores them, read as ``header`` says; ``tuned`` is in fp32."""
    rows = _logits(base, tuned, tuple(SENTENCES), header)
    # The shortest decimal that gives the same float32: shorter, and equally exact.
    logits = {name: [float(str(number)) for number in row] for name, row in zip(SENTENCES, rows, strict=True)}
    return {"set": SET, "logits": logits}


def placeholders(header: Header) -> dict[str, Any]:
    """What takes as much room in a header as canaries do, where there are none yet."""
    outputs = header.answering.outputs
    return {"set": SET, "logits": {name: [-1.2345678] * outputs for name in SENTENCES}}


def verify(base: Base, tuned: Tuned, header: Header) -> float:
    """Compute the canaries again; returns the largest drift, as a share of max(1, |logit|).

    Raises:
        WrongBaseError: they drift, and the base or the tokenizer is not the one of the adapter.
        AdapterFormatError: they drift for another reason; the message names the likely one.
    """
    base = reading(base, header)
    names, now, expected = _compared(base, tuned, header)
    drifts = drift_of(now, expected).max(axis=1)  # (sentences,)
    largest = float(drifts.max())
    if np.isfinite(largest) and largest <= TOLERANCE:
        return largest
    drifted = [name for name, drift in zip(names, drifts, strict=True) if not drift <= TOLERANCE]
    worst = names[int(np.nanargmax(np.where(np.isfinite(drifts), drifts, np.inf)))]
    cause = _cause(base, tuned, header, names, now, expected, frozenset(drifted))
    other = base.digest != header.base_digest or base.tokenizer_digest != header.tokenizer_digest
    raise (WrongBaseError if other else AdapterFormatError)(
        f"The adapter does not compute what it computed when it was saved: {len(drifted)} of {len(names)} "
        f"canaries drift, {worst!r} the most, by {largest:.2g} where {TOLERANCE} is allowed. "
        f"Likely cause: {cause}."
    )


def largest_drift(base: Base, tuned: Tuned, header: Header) -> float:
    """The largest drift of the canaries, as a share of max(1, |logit|), however large it is.

    Raises:
        AdapterFormatError: they are of another set of sentences.
    """
    _, now, expected = _compared(base, tuned, header)
    return float(drift_of(now, expected).max())


def _compared(
    base: Base, tuned: Tuned, header: Header
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]:
    """The canaries' names, and their logits (sentences, C) as they are now and as they were stored."""
    stored = header.canaries
    if stored is None or stored["set"] != SET or not set(stored["logits"]) <= set(SENTENCES):
        raise AdapterFormatError(
            f"The adapter's canaries are of a set of sentences that this version of lora_clf does not have "
            f"(it has set {SET}). Load it without verifying (--no-verify), or upgrade lora_clf."
        )
    base = reading(base, header)
    names = tuple(stored["logits"])
    expected = np.array([stored["logits"][name] for name in names], dtype=np.float64)  # (sentences, C)
    return names, _logits(base, tuned, names, header).astype(np.float64), expected


def _cause(
    base: Base,
    tuned: Tuned,
    header: Header,
    names: tuple[str, ...],
    now: NDArray[np.float64],
    expected: NDArray[np.float64],
    drifted: frozenset[str],
) -> str:
    """The first cause that fits, from the certain to the likely."""
    if base.digest != header.base_digest:
        return f"other base ({base.name} instead of {header.base_name})"
    if base.tokenizer_digest != header.tokenizer_digest:
        return "other tokenizer than the one it was trained with"
    if tuned.view.pooling != header.pooling:
        return f"pooling {tuned.view.pooling} instead of {header.pooling}"
    if scaling_of(tuned) != header.scaling:
        return f"scaling {scaling_of(tuned)} instead of {header.scaling}"
    if _permuted(now, expected):
        return "permuted labels: the logits are right, but in another order"
    if _untrained_head(base, tuned, header):
        return "missing head: it is as before training"
    for cause, candidate in _candidates(base, tuned, header):
        rows = _logits(base, candidate, names, header).astype(np.float64)
        if bool((drift_of(rows, expected) <= TOLERANCE).all()):
            return cause
    cut = _encode(base, names, header).cut
    if "long" in drifted and drifted <= {"long", *(name for name, was in zip(names, cut, strict=True) if was)}:
        return "other truncation: length or side"
    if "short" in drifted and "long" not in drifted:
        return "padding that counts: short texts drift, a text of the full length does not"
    if drifted <= _TOKENIZER:
        return "other tokenizer: it differs on special tokens or on text that is not English"
    return "other weights: of the base, the head or the adapted layers"


def _candidates(base: Base, tuned: Tuned, header: Header) -> Iterator[tuple[str, Tuned]]:
    """What the adapter would be with one thing about it changed, and what that would mean."""
    state = tuned.state_dict()
    rank = float(header.settings.get("rank", 1))
    for factor, cause in ((rank, "alpha"), (1 / rank, "alpha / rank²")):
        if header.low_rank and rank > 1:
            scaled = {n: t * factor if n.endswith(".lora_B.weight") else t for n, t in state.items()}
            candidate = build(base, header)
            candidate.load_state_dict(scaled)
            yield f"scaling: it was saved by a program that scaled by {cause}", candidate
    for pooling in ("mean", "first", "last"):
        if pooling != header.pooling and header.head == "free":
            try:
                candidate = build(base, replace(header, pooling=pooling))
                candidate.load_state_dict(state)
            except LoraClfError:
                continue
            yield f"pooling: it was saved with {pooling}, not {header.pooling}", candidate


def _untrained_head(base: Base, tuned: Tuned, header: Header) -> bool:
    first = base.view(header.outputs, header.pooling, header.seed, header.how.combiner).head.state_dict()
    head = tuned.view.head.state_dict()
    fresh = all(torch.equal(first[name], tensor) for name, tensor in head.items())
    return fresh or not any(bool(tensor.any()) for tensor in head.values())


def _permuted(now: NDArray[np.float64], expected: NDArray[np.float64]) -> bool:
    """Whether the columns (sentences, C) are the expected ones in another order."""
    fits = [[bool((drift_of(a, b) <= TOLERANCE).all()) for b in expected.T] for a in now.T]
    order = [row.index(True) for row in fits if any(row)]
    return sorted(order) == list(range(now.shape[1]))


def drift_of(now: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each logit is from what was expected, as a share of max(1, |logit|)."""
    drift: NDArray[np.float64] = np.abs(now - expected) / np.maximum(1.0, np.abs(expected))
    return drift


def _logits(base: Base, tuned: Tuned, names: tuple[str, ...], header: Header) -> NDArray[np.float32]:
    return reference_logits(tuned.view, _encode(base, names, header), softmax=header.answering.softmax)


def _encode(base: Base, names: tuple[str, ...], header: Header) -> Tokens:
    side: Any = header.truncation
    return read(base.tokenizer, [SENTENCES[name] for name in names], header.max_length, side, header.how)
