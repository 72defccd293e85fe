"""A linear layer of the base with something of a strategy's beside it, in front of it or behind it.

Each *is* the layer it adapts: it takes over the base's own parameters, so that names, precision and fast paths find a
linear layer where one was. A strategy mixes what is its own into the two kinds of layers that there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora_clf.base.targets import Coverage, expand_targets
from lora_clf.base.view import View


def layers_of(view: View, names: Sequence[str], blocks: int | None) -> Coverage:
    """The linear layers at these places of the last ``blocks`` blocks, as full names.

    A place is the whole path in a block: BERT's ``output.dense`` also ends ``attention.output.dense``, another layer.
    """
    architecture = view.architecture
    found = expand_targets(view.backbone, architecture, ",".join(names), blocks)
    depth = architecture.blocks.count(".") + 2  # of the path of a block
    modules = tuple(name for name in found.modules if name.split(".", depth)[-1] in names)
    return Coverage(modules, found.available, found.blocks, found.total_blocks)


class SameLinear(nn.Linear):
    """An ``nn.Linear`` with the very parameters of another."""

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias

    def product(self, x: Tensor) -> Tensor:
        """What the base's layer computes: (B, T, in) -> (B, T, out)."""
        return nn.Linear.forward(self, x)


class SameConv1D(Conv1D):
    """A transformers ``Conv1D`` with the very parameters of another."""

    def __init__(self, base: Conv1D) -> None:
        nn.Module.__init__(self)
        self.nx, self.nf = base.nx, base.nf
        self.weight, self.bias = base.weight, base.bias

    def product(self, x: Tensor) -> Tensor:
        """What the base's layer computes: (B, T, in) -> (B, T, out)."""
        found: Tensor = Conv1D.forward(self, x)
        return found


class Around(nn.Module):
    """What a strategy does around a linear layer: nothing, until it says so."""

    def before(self, x: Tensor) -> Tensor:
        """What the layer gets in place of its input: (B, T, in) -> (B, T, in)."""
        return x

    def behind(self, y: Tensor) -> Tensor:
        """What stands in place of its output: (B, T, out) -> (B, T, out)."""
        return y


class AroundLinear(Around, SameLinear):
    """An ``nn.Linear`` with something around it."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) -> (B, T, out)."""
        return self.behind(self.product(self.before(x)))


class AroundConv1D(Around, SameConv1D):
    """A transformers ``Conv1D`` with something around it."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) -> (B, T, out)."""
        return self.behind(self.product(self.before(x)))
