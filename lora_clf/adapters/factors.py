"""Low-rank factors by layer, wherever they come from, and how they become one LoRA adapter.

An adapter of ours has one rank and one scaling (`LowRank`). Factors of mixed ranks and scalings are brought into
that form without changing what they compute: the rank is the largest there is, thinner factors get rows and columns
of zeros, and where a layer's scaling differs the quotient goes into its B. So every reader of the format, PEFT among
them, takes the result as it takes any other. Shapes: r rank, A (r, in), B (out, r).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_clf.adapters.wording import few
from lora_clf.base.targets import expand_targets
from lora_clf.errors import StateError, TargetError, TunerError
from lora_clf.tuners import create

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.tuners.base import Tuned

A, B = ".lora_A.weight", ".lora_B.weight"
"""How the two factors of a layer are called behind the layer's name."""


@dataclass(frozen=True, eq=False)
class Factors:
    """The change ``scaling * B @ A`` of one layer's weight (out, in)."""

    a: Tensor
    b: Tensor
    scaling: float

    @property
    def rank(self) -> int:
        """The inner width."""
        return int(self.a.shape[0])

    def change(self) -> Tensor:
        """What is added to the weight, in float64: (out, in)."""
        return self.scaling * (self.b.double() @ self.a.double())


def concatenated(parts: Sequence[tuple[float, Factors]]) -> Factors:
    """The factors of a weighted sum of changes, exactly: the ranks add up, the weights go into B."""
    scaling = parts[0][1].scaling
    scaled = [part.b.double() * (weight * part.scaling / scaling) for weight, part in parts]
    return Factors(torch.cat([part.a.double() for _, part in parts]), torch.cat(scaled, dim=1), scaling)


def nearest(change: Tensor, rank: int) -> tuple[Factors, float]:
    """The factors of ``rank`` nearest to ``change`` (out, in), and the squared norm of what they hold.

    It is the singular value decomposition cut off behind the largest ``rank`` values (Eckart and Young 1936), their
    square roots shared evenly between A and B.
    """
    u, s, vh = torch.linalg.svd(change.double(), full_matrices=False)
    kept = min(rank, len(s))
    root = s[:kept].sqrt()
    return Factors(root[:, None] * vh[:kept], u[:, :kept] * root, 1.0), float((s[:kept] ** 2).sum())


def factors_of(state: Mapping[str, Tensor], scaling: float) -> dict[str, Factors]:
    """The factors in an adapter's state, by layer.

    Raises:
        StateError: a layer has one of its two factors only, or factors that do not fit together.
    """
    layers = {name.removesuffix(end) for name in state for end in (A, B) if name.endswith(end)}
    missing = sorted(layer + end for layer in layers for end in (A, B) if layer + end not in state)
    misshapen = [
        f"{layer}: lora_A is {tuple(state[layer + A].shape)} and lora_B {tuple(state[layer + B].shape)}"
        for layer in sorted(layers)
        if {layer + A, layer + B} <= state.keys() and not _fit(state[layer + A], state[layer + B])
    ]
    if missing or misshapen:
        raise StateError("The low-rank factors are not whole", missing=missing, misshapen=misshapen)
    return {layer: Factors(state[layer + A], state[layer + B], scaling) for layer in sorted(layers)}


def _fit(a: Tensor, b: Tensor) -> bool:
    return a.ndim == 2 and b.ndim == 2 and a.shape[0] == b.shape[1] >= 1


def uniform(factors: Mapping[str, Factors]) -> tuple[int, float, dict[str, Tensor]]:
    """One rank, one alpha and a state in fp32 with which every layer computes the same as before.

    The scaling is the most common one, so that most tensors stay bit for bit what they were.
    """
    rank = max(part.rank for part in factors.values())
    scaling = Counter(part.scaling for part in factors.values()).most_common(1)[0][0]
    state = {}
    for layer, part in factors.items():
        b = part.b if part.scaling == scaling else part.b.double() * (part.scaling / scaling)
        wider = rank - part.rank
        state[layer + A] = torch.cat([part.a, part.a.new_zeros(wider, part.a.shape[1])]).float()
        state[layer + B] = torch.cat([b, b.new_zeros(b.shape[0], wider)], dim=1).float()
    return rank, _short(scaling * rank), state


def _short(number: float) -> float:
    """``number`` without the noise of its last digit: 7 for 7 / 3 * 3."""
    short = float(f"{number:.12g}")
    return short if abs(short - number) <= 1e-14 * abs(number) else number


def targets_for(base: Base, layers: Collection[str]) -> tuple[str, int | None]:
    """The shortest settings ``targets`` and ``blocks`` that name exactly these linear layers of ``base``.

    Raises:
        TargetError: there are none, or some are no linear layers of its blocks.
    """
    available = expand_targets(base.backbone, base.architecture, "all").modules
    if strange := sorted(set(layers) - set(available)):
        raise TargetError(f"These are no linear layers of the blocks of the base {base.name}: {few(strange)}.")
    if not layers:
        raise TargetError("No layer has low-rank factors.")
    depth = base.architecture.blocks.count(".") + 1
    total = len(base.architecture.block_list(base.backbone))
    blocks = total - min(int(layer.split(".")[depth]) for layer in layers)
    endings = dict.fromkeys(name.split(".", depth + 1)[-1] for name in available if name in layers)
    for targets in ("all", "attention", "attention+output", ",".join(endings)):
        named = expand_targets(base.backbone, base.architecture, targets, blocks).modules
        if set(named) == set(layers):
            return targets, blocks if blocks < total else None
    return ",".join(name for name in available if name in layers), None


def tuned_with(
    base: Base,
    factors: Mapping[str, Factors],
    head: Mapping[str, Tensor],
    *,
    classes: int,
    pooling: str,
    combine: str | None = None,
    seed: int = 0,
    engine: str = "lora",
    dropout: float = 0.0,
) -> Tuned:
    """A LoRA classifier on ``base`` that computes what ``factors`` say.

    Args:
        base: what it stands on.
        factors: by layer of the backbone.
        head: the head's tensors, each name with ``head.`` in front.
        classes: outputs of the head.
        pooling: of the head.
        combine: the network over a text's chunks, where there is one.
        seed: of the view; only what is not loaded would be drawn from it.
        engine: "lora" or "lora-scratch".
        dropout: for the record, and for training on.

    Raises:
        TargetError: a layer that the base does not have, or that no LoRA of ours adapts.
        StateError: shapes that do not fit the base.
    """
    targets, blocks = targets_for(base, factors)
    rank, alpha, state = uniform(factors)
    tuner = create(engine, rank=rank, alpha=alpha, dropout=dropout, targets=targets, blocks=blocks)
    tuned = tuner.prepare(base.view(classes, pooling, seed, combine))
    tuned.load_state_dict({**state, **head})
    return tuned


def has_factors(tuned: Tuned) -> bool:
    """Whether low-rank factors and a head are all that a classifier adds to its base."""
    ends = (A, B)
    return getattr(tuned, "scaling", None) is not None and all(
        name.endswith(ends) or name.startswith("head.") for name in tuned.trainable()
    )


def low_rank(tuned: Tuned) -> dict[str, Factors]:
    """The factors of a LoRA classifier, by layer of the backbone.

    Raises:
        TunerError: it is of another strategy, or has more than factors.
    """
    if not has_factors(tuned):
        raise TunerError(f"A {tuned.tuner.name} adapter is no plain LoRA: factors and a head, and nothing else.")
    scaling: float | None = getattr(tuned, "scaling", None)
    assert scaling is not None
    return factors_of(tuned.state_dict(), scaling)
