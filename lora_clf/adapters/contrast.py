"""What tells two adapters apart: what their headers say, and how far their changes of each layer are from another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lora_clf.adapters.header import Header
from lora_clf.adapters.layout import by_number
from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.base.base import Base

State = Mapping[str, Tensor]
_A, _B = ".lora_A.weight", ".lora_B.weight"
_NOT_TOLD = frozenset({"canaries", "digest", "metrics", "requires", "schema"})


@dataclass(frozen=True)
class LayerContrast:
    """How two adapters change one tensor; norms are Frobenius norms.

    Attributes:
        name: of the tensor, a path in the backbone, or ``head.`` and its name.
        first, second: the norm of each adapter's change; 0 where it changes nothing there.
        apart: the norm of the difference of both changes.
        cosine: of the angle between them; None where one of them is zero.
    """

    name: str
    first: float
    second: float
    apart: float
    cosine: float | None

    def as_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return {
            "name": self.name,
            "first": self.first,
            "second": self.second,
            "apart": self.apart,
            "cosine": self.cosine,
        }


def fields_apart(first: Header, second: Header) -> dict[str, tuple[Any, Any]]:
    """The fields in which two headers differ, those of settings and training one by one: name -> both values."""
    one, other = _flat(first), _flat(second)
    return {
        name: (one.get(name), other.get(name))
        for name in dict.fromkeys((*one, *other))
        if one.get(name) != other.get(name)
    }


def metrics_apart(first: Header, second: Header) -> dict[str, tuple[float | None, float | None]]:
    """The single numbers of the metrics of either, by part and name: ``test.accuracy`` -> both values."""
    one, other = (
        {
            f"{part}.{name}": float(value)
            for part, scores in header.metrics.items()
            for name, value in scores.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        for header in (first, second)
    )
    return {name: (one.get(name), other.get(name)) for name in dict.fromkeys((*one, *other))}


def needs_base(first: Header, second: Header) -> bool:
    """Whether the changes of one of them only show beside the base's own weights."""
    return not (first.low_rank and second.low_rank)


def layers_apart(
    first: tuple[Header, State], second: tuple[Header, State], base: Base | None
) -> Iterator[LayerContrast]:
    """How far the changes of two adapters are apart, tensor by tensor: those of the backbone, then the heads.

    Args:
        first: header and tensors of one.
        second: header and tensors of the other.
        base: that both stand on; None where `needs_base` says so.

    Raises:
        UsageError: they were trained on different bases, or a tensor has two shapes.
    """
    if first[0].base_digest != second[0].base_digest:
        raise UsageError(
            f"The adapters stand on different bases ({first[0].base_name}, {first[0].base_digest[:12]}; "
            f"{second[0].base_name}, {second[0].base_digest[:12]}), so their changes cannot be compared layer by layer."
        )
    for name in sorted({*_changed(*first), *_changed(*second)}, key=by_number):
        yield _contrast(name, _change(name, *first, base), _change(name, *second, base))
    heads = [
        {name: tensor for name, tensor in state.items() if name.startswith("head.")} for _, state in (first, second)
    ]
    for name in sorted(heads[0].keys() & heads[1].keys()):
        if heads[0][name].shape == heads[1][name].shape:
            yield _contrast(name, heads[0][name].double(), heads[1][name].double())


def _contrast(name: str, first: Tensor | None, second: Tensor | None) -> LayerContrast:
    known = first if first is not None else second
    assert known is not None
    one, other = (torch.zeros_like(known) if change is None else change for change in (first, second))
    if one.shape != other.shape:
        raise UsageError(f"{name} has two shapes: {tuple(one.shape)} and {tuple(other.shape)}.")
    a, b = float(one.norm()), float(other.norm())
    cosine = float((one * other).sum()) / (a * b) if a and b else None
    return LayerContrast(name, a, b, float((one - other).norm()), cosine)


def _changed(header: Header, state: State) -> set[str]:
    """The parameters of the backbone that an adapter changes, and those that it puts beside them."""
    names = {name for name in state if not name.startswith("head.")}
    if not header.low_rank:
        return names
    names = {name for name in names if not name.endswith(_B)}
    return {name.removesuffix(_A) + ".weight" if name.endswith(_A) else name for name in names}


def _change(name: str, header: Header, state: State, base: Base | None) -> Tensor | None:
    """What an adapter adds to a parameter of the backbone, in float64; None where it leaves it as it is."""
    layer = name.removesuffix(".weight")
    if header.low_rank:
        if f"{layer}{_A}" not in state:
            return None
        assert header.scaling is not None
        change = header.scaling * (state[f"{layer}{_B}"].double() @ state[f"{layer}{_A}"].double())
        return change.T if header.fan_in_fan_out else change
    if name not in state:
        return None
    assert base is not None
    before = dict(base.backbone.named_parameters()).get(name)
    if before is None:  # what a strategy put beside the base's weights
        return state[name].double()
    return state[name].double() - before.detach().cpu().double()


def _flat(header: Header) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in header.as_dict().items():
        if name in ("settings", "training"):
            found |= {f"{name}.{key}": part for key, part in value.items()}
        elif name not in _NOT_TOLD:
            found[name] = value
    return found
