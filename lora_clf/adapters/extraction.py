"""The low-rank LoRA nearest to what another strategy changed: a tenth of the file, most of the change.

Of every linear layer of the blocks that changed, the difference of the weights is cut to the largest singular values
(Eckart and Young 1936: no other change of that rank is nearer). What LoRA cannot carry (embeddings, norms, biases,
layers outside the blocks) stays behind; its share of the squared norm is told. That share measures weights, not
answers: only labelled data tells what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.base_check import check_own_base
from lora_clf.adapters.factors import Factors, has_factors, low_rank, nearest, tuned_with
from lora_clf.adapters.layout import HEAD
from lora_clf.adapters.provenance import make_header
from lora_clf.base.targets import expand_targets
from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

KINDS: Final = ("embeddings", "norms", "biases", "other layers")
"""What a LoRA of ours cannot carry."""


@dataclass(frozen=True)
class Extraction:
    """What came out.

    Attributes:
        adapter: a LoRA adapter, not saved yet, with the head of the original and without its metrics.
        rank: of it; smaller than asked for where no layer has that many.
        layers: how many linear layers it adapts.
        kept: the share of the squared norm of the whole change that it holds.
        left_out: the shares of what it does not: "rank" (the smaller singular values) and each of `KINDS` that changed.
    """

    adapter: Adapter
    rank: int
    layers: int
    kept: float
    left_out: dict[str, float]


def extract(adapter: Adapter, rank: int) -> Extraction:
    """The LoRA adapter of ``rank`` nearest to ``adapter``.

    Args:
        adapter: of any strategy that changes linear layers of the blocks; of a LoRA adapter the rank comes down.
        rank: of the result.

    Raises:
        UsageError: ``rank`` is none, no linear layer of the blocks has changed, or the adapter was let onto a base
            that is not its own.
        NotMergeableError: the strategy's change fits no plain weights.
    """
    if rank < 1:
        raise UsageError(f"--rank {rank}: expected at least 1.")
    check_own_base(adapter.header, adapter.base)
    changes, others = _changes(adapter)
    if not changes:
        raise UsageError(
            f"No linear layer of the blocks was changed by this {adapter.header.strategy} adapter, so there is nothing "
            "to extract."
        )
    factors: dict[str, Factors] = {}
    linear = kept = 0.0
    for layer, change in changes.items():
        factors[layer], norm = nearest(change, rank)
        linear, kept = linear + float((change**2).sum()), kept + norm
    total = linear + sum(others.values())
    view = adapter.tuned.view
    tuned = tuned_with(
        adapter.base,
        factors,
        {name: tensor for name, tensor in adapter.tuned.state_dict().items() if name.startswith(HEAD)},
        classes=view.classes,
        pooling=view.pooling,
        combine=view.combine,
        seed=view.seed,
    )
    old = adapter.header
    header = make_header(
        adapter.base,
        tuned,
        labels=old.labels,
        positive_label=old.positive_label,
        task=old.answering.unsettled(),
        max_length=old.max_length,
        truncation=old.truncation,
        reading=old.reading,
        seed=old.seed,
        precision=old.precision,
        data_name=old.data_name,
        data_digest=old.data_digest,
        licence=old.licence,
        training={
            # Threshold and temperature were found for the original, and so was what is said of them.
            **{name: value for name, value in old.training.items() if name not in ("temperature", "threshold")},
            "extracted_from": old.strategy,
            "extracted_digest": old.digest,
        },
    )
    left_out = {"rank": max(0.0, linear - kept), **others}
    return Extraction(
        adapter=Adapter(adapter.base, tuned, header),
        rank=int(tuned.tuner.settings()["rank"]),
        layers=len(factors),
        kept=kept / total,
        left_out={kind: norm / total for kind, norm in left_out.items() if norm > 0},
    )


def _changes(adapter: Adapter) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The change of each linear layer of the blocks (out, in) in float64; of the rest the squared norms by kind."""
    from transformers.pytorch_utils import Conv1D

    if has_factors(adapter.tuned):
        low = ((layer, part.change()) for layer, part in low_rank(adapter.tuned).items())
        return {layer: change for layer, change in low if bool(change.any())}, {}
    base = adapter.base
    inside = {f"{name}.weight" for name in expand_targets(base.backbone, base.architecture, "all").modules}
    before = dict(base.backbone.named_parameters())
    changes: dict[str, Tensor] = {}
    others = dict.fromkeys(KINDS, 0.0)
    for name, after in adapter.tuned.merge().backbone.named_parameters():
        if after.data_ptr() == before[name].data_ptr():
            continue  # shared with the base
        change = after.detach().cpu().double() - before[name].detach().cpu().double()
        if not bool(change.any()):
            continue
        layer, _, kind = name.rpartition(".")
        module = base.backbone.get_submodule(layer)
        if name in inside:
            changes[layer] = change.T if isinstance(module, Conv1D) else change
        else:
            others[_kind(module, kind)] += float((change**2).sum())
    return changes, {kind: norm for kind, norm in others.items() if norm > 0}


def _kind(module: nn.Module, parameter: str) -> str:
    from torch import nn

    if isinstance(module, nn.Embedding):
        return "embeddings"
    if "Norm" in type(module).__name__:
        return "norms"
    return "biases" if parameter == "bias" else "other layers"
