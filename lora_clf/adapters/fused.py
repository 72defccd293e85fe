"""Query, key and value apart and in one: the LoRAs of three projections as that of the fused layer, and back.

GPT-2 computes the three in one layer (``c_attn``), other programs, the book's among them, in three. Stacked, the
three weights are the fused one, so with the factors

    A = [A_q; A_k; A_v]  (3r, in)        B = diag(B_q, B_k, B_v)  (3 out, 3r)

the change of the fused weight is that of the three. The rank is three times as large; with alpha three times as large
too the scaling stays. The way back takes each projection's rows of B and leaves out the ranks that they do not use: of
a block-diagonal B it makes the three that it was made of, of any other three that share A's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from lora_clf.adapters.factors import Factors
from lora_clf.base.targets import linear_shape
from lora_clf.errors import TargetError, unknown

if TYPE_CHECKING:
    from lora_clf.base.base import Base

TRIPLES: Final[tuple[tuple[str, str, str], ...]] = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("W_query", "W_key", "W_value"),
    ("wq", "wk", "wv"),
    ("q", "k", "v"),
)
"""How programs call the three; the first is what is written unless another is asked for."""


def fuse(parts: Sequence[Factors | None], rows: Sequence[Tensor]) -> Factors:
    """The factors of the fused layer.

    Args:
        parts: those of query, key and value; None where one has no LoRA.
        rows: for each of the three the indices of its outputs among those of the fused layer.
    """
    there = [(part, places) for part, places in zip(parts, rows, strict=True) if part is not None]
    scaling = there[0][0].scaling
    scaled = [part.b if part.scaling == scaling else part.b.double() * (part.scaling / scaling) for part, _ in there]
    a = torch.cat([part.a for part, _ in there])
    diagonal = torch.block_diag(*scaled)
    b = diagonal.new_zeros(sum(len(places) for places in rows), a.shape[0])
    b[torch.cat([places for _, places in there])] = diagonal
    return Factors(a, b, scaling)


def split(fused: Factors, rows: Sequence[Tensor]) -> list[Factors | None]:
    """The factors of query, key and value; None where the fused layer changes nothing of one."""
    found: list[Factors | None] = []
    for places in rows:
        b = fused.b[places]  # (out, r)
        used = b.any(dim=0)
        found.append(Factors(fused.a[used], b[:, used], fused.scaling) if bool(used.any()) else None)
    return found


def rows_of(base: Base, layer: str) -> tuple[Tensor, Tensor, Tensor]:
    """Which outputs of the fused ``layer`` of ``base`` are the query's, the key's and the value's.

    Raises:
        TargetError: the base computes the three apart.
    """
    check_fused(base)
    outputs = linear_shape(base.backbone.get_submodule(layer))[1]
    places = torch.arange(outputs)
    if base.architecture.model_type == "gpt_neox":  # head by head: the query, key and value of one beside each other
        heads = int(base.config.num_attention_heads)
        q, k, v = places.view(heads, 3, -1).unbind(dim=1)
        return q.reshape(-1), k.reshape(-1), v.reshape(-1)
    q, k, v = places.view(3, -1).unbind()
    return q, k, v


def check_fused(base: Base) -> None:
    """Refuse a base without a fused layer.

    Raises:
        TargetError: the base computes query, key and value apart.
    """
    if len(base.architecture.attention) != 1:
        raise TargetError(
            f"The base {base.name} ({base.architecture.model_type}) has query, key and value in layers of their own "
            f"({', '.join(base.architecture.attention)}), so there is nothing to fuse or to split."
        )


def fuse_layers(base: Base, factors: Mapping[str, Factors]) -> dict[str, Factors]:
    """The same factors with every separate query, key and value in the fused layer of ``base``.

    Raises:
        TargetError: the base has none, or ``factors`` has no such three.
    """
    check_fused(base)
    left = dict(factors)
    fused = {}
    leaf = base.architecture.attention[0].rpartition(".")[2]
    for index in range(len(base.architecture.block_list(base.backbone))):
        layer = f"{base.architecture.blocks}.{index}.{base.architecture.attention[0]}"
        beside = layer.removesuffix(leaf)
        for names in TRIPLES:
            if any(beside + name in left for name in names):
                parts = [left.pop(beside + name, None) for name in names]
                fused[layer] = fuse(parts, rows_of(base, layer))
                break
    if not fused:
        raise TargetError(
            f"No layer has query, key and value apart, so there is nothing to fuse into {leaf}. Names that are "
            f"known: {'; '.join(', '.join(names) for names in TRIPLES)}."
        )
    return {**left, **fused}


def split_layers(base: Base, factors: Mapping[str, Factors], query: str = TRIPLES[0][0]) -> dict[str, Factors]:
    """The same factors with the fused layers of ``base`` as three; ``query`` tells what the three are called.

    Raises:
        TargetError: the base has no fused layer, or ``factors`` does not adapt it.
        UsageError: ``query`` is the first of none of `TRIPLES`.
    """
    check_fused(base)
    names = {triple[0]: triple for triple in TRIPLES}
    if query not in names:
        raise unknown("name of the query", query, names)
    ending = f".{base.architecture.attention[0]}"
    found: dict[str, Factors] = {}
    for layer, part in factors.items():
        if not layer.endswith(ending):
            found[layer] = part
            continue
        beside = layer.rpartition(".")[0]
        for name, own in zip(names[query], split(part, rows_of(base, layer)), strict=True):
            if own is not None:
                found[f"{beside}.{name}"] = own
    if not any(layer.endswith(ending) for layer in factors):
        raise TargetError(f"The adapter does not adapt {ending[1:]}, so there is nothing to split.")
    return found
