"""The weighted average of several adapters of one kind, as one adapter of that kind.

Of LoRA adapters the changes are averaged, not the factors (the average of two B A is not the product of the average
factors): the factors stand side by side, so the ranks add up and nothing is lost; a smaller rank takes the nearest
change of that rank. Other strategies' weights, and all heads, are averaged number by number ("model soups", Wortsman
et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.base_check import check_own_base
from lora_clf.adapters.classifier import rebuilt
from lora_clf.adapters.factors import Factors, concatenated, low_rank, nearest, tuned_with
from lora_clf.adapters.header import Header
from lora_clf.adapters.layout import HEAD
from lora_clf.adapters.provenance import make_header
from lora_clf.errors import UsageError
from lora_clf.tuners import strategies

if TYPE_CHECKING:
    from torch import Tensor

    from lora_clf.tuners.base import Tuned


@dataclass(frozen=True)
class Average:
    """What came out.

    Attributes:
        adapter: not saved yet, and without metrics: those of its parts do not hold for it.
        weights: of the parts, adding up to one.
        kept: the share of the squared norm of the averaged change that is in it; 1 unless a rank was asked for.
        left_out: what of the parts' headers does not hold for it and was left out.
    """

    adapter: Adapter
    weights: tuple[float, ...]
    kept: float
    left_out: tuple[str, ...]


def average(adapters: Sequence[Adapter], weights: Sequence[float] | None = None, *, rank: int | None = None) -> Average:
    """The weighted average of ``adapters``, all loaded on one base.

    Args:
        adapters: two or more with equal labels, head, pooling, length, and strategy (the LoRA ones count as one).
        weights: one a part, above 0; they are divided by their sum. Default: equal.
        rank: of LoRA adapters the rank to come down to; default: the ranks' sum, exact.

    Raises:
        UsageError: they do not fit together (every difference is named), or were let onto a base that is not theirs,
            or weights or rank are none.
    """
    shares = _shares(len(adapters), weights)
    _check_alike(adapters)
    for number, each in enumerate(adapters, start=1):
        check_own_base(each.header, each.base, f"These adapters cannot be averaged: number {number}: ")
    first = adapters[0]
    if first.header.low_rank:
        tuned, kept = _low_rank(adapters, shares, rank)
    elif rank is not None:
        raise UsageError(f"--rank {rank}: only LoRA adapters have a rank; these are {first.header.strategy}.")
    else:
        tuned, kept = rebuilt(first.base, first.tuned), 1.0
        tuned.load_state_dict(_mean([each.tuned.state_dict() for each in adapters], shares))
    headers = [each.header for each in adapters]
    left_out = [name for name in ("threshold", "temperature") if any(getattr(h, name) is not None for h in headers)]
    if any(h.answering.unsettled() != h.answering and h.task == "multilabel" for h in headers):
        left_out.append("thresholds")
    left_out = ["metrics", *left_out] if any(header.metrics for header in headers) else left_out
    header = make_header(
        first.base,
        tuned,
        labels=first.labels,
        positive_label=_common(headers, lambda h: h.positive_label),
        task=first.header.answering.unsettled(),
        max_length=first.header.max_length,
        truncation=first.header.truncation,
        reading=first.header.reading,
        seed=first.header.seed,
        precision=first.header.precision,
        data_name=_common(headers, lambda h: h.data_name),
        data_digest=_common(headers, lambda h: h.data_digest),
        licence=", ".join(dict.fromkeys(h.licence for h in headers if h.licence)) or None,
        training={"averaged_from": [header.digest for header in headers], "weights": list(shares)},
    )
    return Average(Adapter(first.base, tuned, header), shares, kept, tuple(left_out))


def _shares(count: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    if count < 2:
        raise UsageError(f"An average takes two adapters or more, got {count}.")
    given = [1.0] * count if weights is None else list(weights)
    if len(given) != count:
        raise UsageError(f"{len(given)} weights for {count} adapters: give one for each, or none.")
    if not all(math.isfinite(weight) and weight > 0 for weight in given):
        raise UsageError(f"Weights {', '.join(f'{weight:g}' for weight in given)}: expected numbers above 0.")
    return tuple(weight / sum(given) for weight in given)


def _check_alike(adapters: Sequence[Adapter]) -> None:
    """Name everything in which the adapters differ and must not."""
    kinds: Mapping[str, Callable[[Header], Any]] = {
        "base": lambda h: (h.base_digest[:12], h.tokenizer_digest[:12]),
        "labels": lambda h: h.labels,
        "task": lambda h: (h.task, *sorted(h.answering.unsettled().settings().items())),
        "head": lambda h: (h.head, h.pooling, *sorted((h.verbalizer or {}).items())),
        "length": lambda h: (h.max_length, h.truncation),
        "reading": lambda h: tuple(f"{name} {value}" for name, value in sorted(h.reading.items())) or ("truncate",),
        "strategy": lambda h: ("lora",) if h.low_rank else (h.strategy, *sorted(h.settings.items())),
    }
    first = adapters[0].header
    problems = [
        f"the {name} of the first is {_shown(kind(first))}, of number {number} {_shown(kind(each.header))}"
        for name, kind in kinds.items()
        for number, each in enumerate(adapters[1:], start=2)
        if kind(each.header) != kind(first)
    ]
    if not strategies()[first.strategy].averages:
        problems.append(
            f"{first.strategy} trains no change of weights, so the mean of its numbers is not the mean of what they do"
        )
    if any(each.base.backbone is not adapters[0].base.backbone for each in adapters):  # seen through a template or not
        problems.append("they are loaded on different bases")
    if problems:
        kind = strategies()[first.strategy]
        asks = "strategy" in " ".join(problems) or (kind.mergeable and not kind.averages)
        advice = " `lora-clf adapters extract` makes a LoRA of each." if asks else ""
        raise UsageError(f"These adapters cannot be averaged: {'; '.join(problems)}.{advice}")


def _shown(value: Sequence[Any]) -> str:
    return " ".join(str(part) for part in value)


def _low_rank(adapters: Sequence[Adapter], shares: Sequence[float], rank: int | None) -> tuple[Tuned, float]:
    if rank is not None and rank < 1:
        raise UsageError(f"--rank {rank}: expected at least 1.")
    parts = [low_rank(each.tuned) for each in adapters]
    layers = dict.fromkeys(layer for part in parts for layer in part)
    factors: dict[str, Factors] = {}
    total = kept = 0.0
    for layer in layers:
        # A part that does not adapt the layer changes nothing of it: that is an average with zero.
        both = concatenated([(share, p[layer]) for share, p in zip(shares, parts, strict=True) if layer in p])
        if rank is None:
            factors[layer] = both
            continue
        change = both.change()
        factors[layer], norm = nearest(change, rank)
        total, kept = total + float((change**2).sum()), kept + norm
    view = adapters[0].tuned.view
    head = _mean([_head(each) for each in adapters], shares)
    tuned = tuned_with(
        adapters[0].base,
        factors,
        head,
        classes=view.classes,
        pooling=view.pooling,
        combine=view.combine,
        seed=view.seed,
        engine=_engine(adapters[0].header.strategy),
    )
    return tuned, kept / total if total else 1.0


def _engine(strategy: str) -> str:
    """What computes an average: the strategy itself, or `lora` where that scales the factors in its own way."""
    return strategy if getattr(strategies()[strategy], "plain", False) else "lora"


def _head(adapter: Adapter) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in adapter.tuned.state_dict().items() if name.startswith(HEAD)}


def _mean(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of states of equal names, summed in float64."""
    import torch

    return {
        name: torch.stack([share * s[name].double() for share, s in zip(shares, states, strict=True)]).sum(0).float()
        for name in states[0]
    }


def _common(headers: Sequence[Header], of: Callable[[Header], str | None]) -> str | None:
    """The value that all headers share, or None."""
    found = {of(header) for header in headers}
    return found.pop() if len(found) == 1 else None
