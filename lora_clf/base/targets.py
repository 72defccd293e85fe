"""Which linear layers of the blocks a strategy adapts, expanded to full names and reported.

``all`` is every linear layer of the blocks (never a pooler or a head), ``attention`` the query, key and value
projections (or the fused one), ``attention+output`` those and the projection behind them; anything else is a
comma-separated list of dotted name endings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_clf.base.architecture import Architecture
from lora_clf.errors import TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LINEAR = (nn.Linear, Conv1D)


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer, ``nn.Linear`` or transformers' ``Conv1D``."""
    rows, columns = module.weight.shape  # type: ignore[misc]
    return (int(rows), int(columns)) if isinstance(module, Conv1D) else (int(columns), int(rows))


def norms(module: nn.Module) -> list[nn.Module]:
    """The norms inside a module, which transformers calls ``...Norm`` in every family."""
    return [part for part in module.modules() if type(part).__name__.endswith("Norm")]


@dataclass(frozen=True)
class Coverage:
    """What a target specification matched: which modules, and how much of the blocks that is.

    Attributes:
        modules: full names of the matched linear layers, relative to the backbone.
        available: full names of all linear layers of all blocks.
        blocks: indices of the blocks that were looked at.
        total_blocks: how many blocks the backbone has.
    """

    modules: tuple[str, ...]
    available: tuple[str, ...]
    blocks: tuple[int, ...]
    total_blocks: int

    def __str__(self) -> str:
        return (
            f"{len(self.modules)} of {len(self.available)} linear layers "
            f"in {len(self.blocks)} of {self.total_blocks} blocks"
        )


def last_blocks(total: int, blocks: int | None) -> range:
    """The indices of the last ``blocks`` of ``total`` blocks; None means all of them.

    Raises:
        UsageError: there are not that many.
    """
    if blocks is None:
        return range(total)
    if not 1 <= blocks <= total:
        raise UsageError(f"--blocks {blocks}: the base has {total} blocks, so it must be between 1 and {total}.")
    return range(total - blocks, total)


def _linear_names(backbone: nn.Module, architecture: Architecture, indices: Iterable[int]) -> Iterator[str]:
    blocks = architecture.block_list(backbone)
    for index in indices:
        for name, module in blocks[index].named_modules():
            if isinstance(module, LINEAR):
                yield f"{architecture.blocks}.{index}.{name}"


def expand_targets(
    backbone: nn.Module, architecture: Architecture, targets: str, blocks: int | None = None
) -> Coverage:
    """The linear layers that ``targets`` names in the last ``blocks`` blocks.

    Raises:
        TargetError: a name ending matched nothing; the message lists the endings that exist.
        UsageError: there are not that many blocks.
    """
    total = len(architecture.block_list(backbone))
    indices = last_blocks(total, blocks)
    available = tuple(_linear_names(backbone, architecture, range(total)))
    inside = tuple(_linear_names(backbone, architecture, indices))
    if targets == "all":
        endings: tuple[str, ...] = ("",)
    elif targets == "attention":
        endings = architecture.attention
    elif targets == "attention+output":
        endings = (*architecture.attention, *architecture.attention_output)
    else:
        endings = tuple(ending for ending in (part.strip() for part in targets.split(",")) if ending)
    nothing = [e for e in endings if not any(_ends_with(name, e) for name in inside)]
    if nothing or not endings:
        exists = sorted({name.split(".", architecture.blocks.count(".") + 2)[-1] for name in inside})
        raise TargetError(
            f"Targets {', '.join(repr(e) for e in nothing) or repr(targets)} match no linear layer of the base's "
            f"blocks. There are: {', '.join(exists)}; or say all, attention or attention+output."
        )
    modules = tuple(name for name in inside if any(_ends_with(name, ending) for ending in endings))
    return Coverage(modules, available, tuple(indices), total)


def _ends_with(name: str, ending: str) -> bool:
    """Whether ``name`` ends with the whole dotted ``ending`` (``classifier`` is not in ``pre_classifier``)."""
    return not ending or name == ending or name.endswith(f".{ending}")
