"""Linear layers that read the same input as one product, with their low-rank factors, forward and backward by hand.

For the inside of an autograd function (`lora_clf.inference.encoder_block`). Shapes: N positions, I inputs, O outputs,
R the sum of the ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_clf.inference.products import linear, outer, packed, times

Factors = tuple[nn.Parameter, nn.Parameter]


@dataclass(frozen=True)
class Layer:
    """One linear layer: its module, and its low-rank factors where it has some."""

    module: Any
    factors: Factors | None

    @property
    def weight(self) -> nn.Parameter:
        """(O, I)."""
        found: nn.Parameter = self.module.weight
        return found

    @property
    def bias(self) -> nn.Parameter:
        """(O)."""
        found: nn.Parameter = self.module.bias
        return found

    def trainable(self) -> list[nn.Parameter]:
        """What trains of it."""
        return [p for p in (self.weight, self.bias, *(self.factors or ())) if p.requires_grad]


class Projection:
    """Linear layers that read the same input, as one: y = x Wᵀ + b + (x s Aᵀ) Bᵀ with W (O, I), A (R, I), B (O, R).

    B is block-diagonal where several layers stand side by side. What trains is copied into the run's type in every
    forward pass.
    """

    def __init__(self, layers: Sequence[Layer], scaling: float, dtype: torch.dtype) -> None:
        self.layers = layers
        self.scaling = scaling
        self.outputs = [len(layer.weight) for layer in layers]
        weights = [layer.weight for layer in layers]
        biases = [layer.bias for layer in layers]
        self._copies: list[tuple[Tensor, nn.Parameter]] = []  # (place in one of the tensors below, what trains)
        self._scaled: list[tuple[Tensor, nn.Parameter]] = []  # the same for A, which holds s A: R I numbers to scale
        self.bias = self._joined(biases, dtype)
        self.weight: Tensor | None = self._joined(weights, dtype)  # none where it is packed
        self.a: Tensor | None
        self.b: Tensor | None
        self.a, self.b = self._factors(self.weight)
        trains = any(weight.requires_grad for weight in weights)
        self._times = None if trains else packed(self.weight)  # x Wᵀ + b
        self._times_back: Callable[[Tensor, Tensor | None], Tensor] | None = None  # dy W; made when it is asked for
        if self._times is not None:
            self.weight = None

    def give_back(self, originals: Sequence[Any]) -> None:
        """Let the storage of packed weights go where they are those of these layers, whose own then stands."""
        if self._times is None:
            return
        for layer, original in zip(self.layers, originals, strict=True):
            if torch.equal(layer.weight.data, original.weight.data.to(layer.weight.dtype)):
                layer.weight.data = original.weight.data

    def _joined(self, parameters: Sequence[nn.Parameter], dtype: torch.dtype) -> Tensor:
        """The parameters as one tensor in the run's type; frozen ones live in it from now on."""
        if len(parameters) == 1 and (not parameters[0].requires_grad or parameters[0].dtype == dtype):
            return parameters[0].data.to(dtype)
        joined = torch.cat([p.data.to(dtype) for p in parameters])
        for parameter, part in zip(parameters, joined.split(self.outputs), strict=True):
            if parameter.requires_grad:
                self._copies.append((part, parameter))
            else:
                parameter.data = part
        return joined

    def _factors(self, weight: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Room for A (R, I) and B (O, R) of all layers in the run's type; nothing without any."""
        ranks = [0 if layer.factors is None else len(layer.factors[0]) for layer in self.layers]
        if not any(ranks):
            return None, None
        a = weight.new_empty(sum(ranks), weight.shape[1])
        b = weight.new_zeros(sum(self.outputs), sum(ranks))
        row = column = 0
        for layer, outputs, rank in zip(self.layers, self.outputs, ranks, strict=True):
            if layer.factors is not None:
                self._scaled.append((a[column : column + rank], layer.factors[0]))
                self._copies.append((b[row : row + outputs, column : column + rank], layer.factors[1]))
            row, column = row + outputs, column + rank
        return a, b

    @property
    def reads_input(self) -> bool:
        """Whether `backward` needs x: gradients of weights or of factors do."""
        return self.a is not None or any(layer.weight.requires_grad for layer in self.layers)

    def trainable(self) -> list[nn.Parameter]:
        """What trains, in the order of the gradients that `backward` returns."""
        return [p for layer in self.layers for p in layer.trainable()]

    def refresh(self) -> None:
        """Copy what trains: always, since fused optimizers change a parameter without a sign of it."""
        with torch.no_grad():
            for place, parameter in self._copies:
                place.copy_(parameter)
            for place, parameter in self._scaled:
                torch.mul(parameter, self.scaling, out=place)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """y of x: (N, I) -> (N, O); and what `backward` needs."""
        self.refresh()
        if self._times is not None:
            y = self._times(x, self.bias)
        else:
            assert self.weight is not None
            y = linear(x, self.weight, self.bias)
        inner = None
        if self.a is not None and self.b is not None:
            inner = x @ self.a.t()  # (N, R)
            y.addmm_(inner, self.b.t())
        return y, (x, inner)

    def backward(self, dy: Tensor, kept: tuple[Any, ...], need_dx: bool) -> tuple[Tensor | None, list[Tensor]]:
        """dx (N, I), and the gradients of `trainable`, from dy (N, O)."""
        x, inner = kept
        dx = self._back(dy) if need_dx else None
        da = db = None
        if self.a is not None and self.b is not None:
            dinner = dy @ self.b  # (N, R)
            if dx is not None:
                dx.addmm_(dinner, self.a)
            da = (dinner.t() @ x).float().mul_(self.scaling)  # (R, I)
            db = (inner.t() @ dy).float()  # (R, O): the thin one transposed, which costs least
        dweight = outer(dy, x).float() if any(layer.weight.requires_grad for layer in self.layers) else None
        dbias = dy.float().sum(0) if any(layer.bias.requires_grad for layer in self.layers) else None
        return dx, list(self._shares(dweight, dbias, da, db))

    def _back(self, dy: Tensor) -> Tensor:
        """dy W: (N, O) -> (N, I)."""
        if self._times is None:
            assert self.weight is not None
            return times(dy, self.weight)
        if self._times_back is None:
            weight = torch.cat([layer.weight.data.to(dy.dtype) for layer in self.layers])
            self._times_back = packed(weight.t().contiguous()) or (lambda dy, _: times(dy, weight))
        return self._times_back(dy, None)

    def _shares(
        self, dweight: Tensor | None, dbias: Tensor | None, da: Tensor | None, db: Tensor | None
    ) -> Iterator[Tensor]:
        """Each layer's part of the joined gradients."""
        row = column = 0
        for layer, outputs in zip(self.layers, self.outputs, strict=True):
            rows = slice(row, row + outputs)
            if dweight is not None and layer.weight.requires_grad:
                yield dweight[rows]
            if dbias is not None and layer.bias.requires_grad:
                yield dbias[rows]
            if layer.factors is not None and da is not None and db is not None:
                columns = slice(column, column + len(layer.factors[0]))
                if layer.factors[0].requires_grad:
                    yield da[columns]
                if layer.factors[1].requires_grad:
                    yield db[columns, rows].t()
                column = columns.stop
            row += outputs
