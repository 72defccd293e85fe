"""One module tree for all adapters of a pool: a view of the base whose blocks can be entered and left anywhere.

What a forward pass does is told by a `Pass`, which belongs to the thread that runs it and never to the tree: which
rows get which factors, at which block it starts and where it stops. So choosing an adapter changes nothing in the
base or in the tree, and threads do not see each other. Shapes: B batch, T tokens, D width.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora_clf.adapters.parts import Part
from lora_clf.base.targets import LINEAR
from lora_clf.inference.attention import FUSED, set_attention
from lora_clf.inference.one_position import LastBlock, last_block_for
from lora_clf.inference.precision import autocast, cast_frozen
from lora_clf.tuners.linear_layer import SameConv1D, SameLinear

if TYPE_CHECKING:
    from lora_clf.adapters.pages import Wiring
    from lora_clf.base.base import Base
    from lora_clf.base.view import View

_HERE = threading.local()


@dataclass(eq=False)
class Fan:
    """What rows of the same text have in common at the first block that runs: the inputs of its attention.

    The base's own query, key and value are made once for each text, then added to for each adapter.

    Attributes:
        layers: the numbers of these layers.
        source: which text each row is of (B,).
        first: the row from which on each text comes once, in order; None where this batch has not all of them.
        texts: how many there are.
        kept: what was made, by number; handed on to other batches of the same texts.
    """

    layers: frozenset[int]
    source: Tensor
    first: int | None
    texts: int
    kept: dict[int, Tensor]

    def output(self, layer: _Mixed, x: Tensor) -> Tensor:
        """The layer's own output for every row: (B, T, in) -> (B, T, out)."""
        kept = self.kept.get(layer.number)
        if kept is None:
            if self.first is None:
                return layer.product(x)
            kept = self.kept[layer.number] = layer.product(x[self.first : self.first + self.texts])
        return kept.index_select(0, self.source)


@dataclass(eq=False)
class Pass:
    """One forward pass.

    Attributes:
        rows: texts in the batch.
        start: the first block that runs.
        stop: the block before which it ends.
        states: what enters block ``start`` (B, T, D); None: what the blocks before give.
        parts: what adapters add.
        fan: what rows of the same text share, where there are such.
        pooling: "first" or "last", where of the last block that position alone is wanted; None: every position.
    """

    rows: int
    start: int
    stop: int
    states: Tensor | None = None
    parts: Sequence[Part] = ()
    fan: Fan | None = None
    pooling: str | None = None
    mask: Tensor | None = None
    _cast: tuple[Tensor, Tensor] | None = None
    _inner: dict[int, tuple[int, Tensor, Tensor]] = field(default_factory=dict)

    def through(self, layer: _Mixed, dtype: torch.dtype, x: Tensor) -> Tensor:
        """The output of a linear layer with weights of ``dtype``, changes added."""
        x = self._in(x, dtype)
        fanned = self.fan is not None and layer.number in self.fan.layers and x.shape[0] == self.rows
        out = self.fan.output(layer, x) if self.fan is not None and fanned else layer.product(x)
        if self.parts:
            flat, flat_out = x.reshape(-1, x.shape[-1]), out.view(-1, out.shape[-1])  # (B T, in), (B T, out)
            tokens = flat.shape[0] // self.rows
            for index, part in enumerate(self.parts):
                place = part.layout.places[layer.number]
                if place is None:
                    continue
                held = self._inner.get(index)
                # Query, key and value get the very same tensor, one after the other.
                if held is None or held[0] != place.site or held[1] is not x:
                    held = self._inner[index] = place.site, x, part.inner(place, flat, tokens)
                part.add(place, held[2], flat_out, tokens)
        return out

    def _in(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """``x`` as ``dtype``; a tensor that comes again is not cast again, as autocast would."""
        if x.dtype == dtype:
            return x
        if self._cast is None or self._cast[0] is not x:
            self._cast = x, x.to(dtype)
        return self._cast[1]


class _MixedLinear(SameLinear):
    """A linear layer of the base that asks the pass of its thread what to add."""

    def __init__(self, base: nn.Linear, number: int) -> None:
        super().__init__(base)
        self.number, self.dtype = number, self.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) -> (B, T, out), or rows and tokens in one dimension."""
        return _mixed(self, x)


class _MixedConv1D(SameConv1D):
    """A ``Conv1D`` of the base that asks the pass of its thread what to add."""

    def __init__(self, base: Conv1D, number: int) -> None:
        super().__init__(base)
        self.number, self.dtype = number, self.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) -> (B, T, out), or rows and tokens in one dimension."""
        return _mixed(self, x)


_Mixed = _MixedLinear | _MixedConv1D


def _mixed(layer: _Mixed, x: Tensor) -> Tensor:
    now: Pass | None = getattr(_HERE, "now", None)
    return layer.product(x) if now is None else now.through(layer, layer.dtype, x)


class _Stage(nn.Module):
    """A block that a pass may start at or end before; ``block`` is None where no pass ever runs it."""

    def __init__(self, index: int, block: nn.Module | None, attention_type: Any) -> None:
        super().__init__()
        self.index, self.block = index, block
        self.attention_type = attention_type  # ModernBERT asks its blocks for it.
        self.pooled: dict[str, LastBlock] = {}  # of the last block, by pooling

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        now: Pass = _HERE.now
        if not now.start <= self.index < now.stop:
            return hidden_states
        if self.index == now.start and now.states is not None:
            hidden_states = now.states
        assert self.block is not None
        if now.pooling in self.pooled:
            last = copy(self.pooled[now.pooling])  # its mask is this pass's
            last.mask = now.mask
            return last(hidden_states, *args, **kwargs)
        return self.block(hidden_states, *args, **kwargs)


class _Before(nn.Module):
    """What stands before the first block: not run again where a pass starts behind it."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        now: Pass = _HERE.now
        return self.inside(*args, **kwargs) if now.states is None else now.states


class _Behind(nn.Module):
    """What stands behind the last block: left out where a pass ends before."""

    def __init__(self, inside: nn.Module, blocks: int) -> None:
        super().__init__()
        self.inside, self.blocks = inside, blocks

    def forward(self, hidden_states: Tensor) -> Tensor:
        now: Pass = _HERE.now
        out: Tensor = hidden_states if now.stop < self.blocks else self.inside(hidden_states)
        return out


class Trunk:
    """The shared tree of a pool.

    Attributes:
        base: whose storage it is over.
        precision: "fp32" or "bf16".
        blocks: how many there are.
        resumable: whether a pass can start or end at a middle block.
        pooler: the base's own pooler, where it has one.
    """

    def __init__(self, base: Base, wiring: Wiring, precision: str) -> None:
        self.base, self.precision = base, precision
        self.blocks = len(base.architecture.block_list(base.backbone))
        self.resumable = base.architecture.resumable
        pooler = base.architecture.family == "pooler" and getattr(base.backbone, "pooler", None) is not None
        view = base.view(1, "family" if pooler else "mean")
        view.requires_grad_(False)
        self.pooler: nn.Module | None = getattr(view.backbone, "pooler", None)
        if self.pooler is not None:
            view.backbone.pooler = None  # type: ignore[assignment]  # run for those rows only that want it
        # By the place of their storage in the base: what other trees over the same storage cast as well.
        self._twins: dict[int, Tensor] = {}
        before = _linear_parameters(view)
        places = [parameter.data_ptr() for parameter in before]
        cast_frozen(view, precision)
        if precision != "fp32":
            self._twins = {place: p.data for place, p in zip(places, before, strict=True)}
        for name, number in wiring.numbers.items():
            layer = view.backbone.get_submodule(name)
            mixed = _MixedConv1D(layer, number) if isinstance(layer, Conv1D) else _MixedLinear(layer, number)  # type: ignore[arg-type]
            view.backbone.set_submodule(name, mixed.eval())
        pooled = {pooling: last_block_for(view, pooling) for pooling in ("first", "last")}
        self._open(view, 0)
        self._view = view
        if isinstance(stage := view.blocks[-1], _Stage):
            stage.pooled = {pooling: last for pooling, last in pooled.items() if last is not None}

    def run(self, now: Pass, input_ids: Tensor, attention_mask: Tensor, view: View | None = None) -> Tensor:
        """Hidden states behind block ``now.stop``, padding on the right: (B, T), (B, T) -> (B, T, D).

        ``view`` is a tree of an adapter's own that was `opened`, in place of the shared one.
        """
        before = getattr(_HERE, "now", None)
        _HERE.now, now.mask = now, attention_mask
        try:
            with autocast(self.precision, self.base.device):
                return (view or self._view).hidden(input_ids, attention_mask)
        finally:
            _HERE.now = before

    def opened(self, view: View, start: int) -> View:
        """A tree with weights of its own as one that `run` takes, without its blocks before ``start``.

        What it shares with the base it shares with this tree too, cast or not.
        """
        self._open(view, start)
        if self.precision != "fp32":
            for parameter in _linear_parameters(view):
                twin = self._twins.get(parameter.data_ptr())
                parameter.data = parameter.data.to(torch.bfloat16) if twin is None else twin
        return view.requires_grad_(False).eval()

    def owned(self, view: View) -> tuple[Tensor, ...]:
        """The parameters of ``view`` that it does not share with the base or with this tree."""
        shared = {p.data_ptr() for p in self.base.backbone.parameters()}
        shared |= {tensor.data_ptr() for tensor in self._twins.values()}
        return tuple(p.data for p in view.parameters() if p.data_ptr() not in shared)

    def kept(self, view: View) -> tuple[Tensor, ...]:
        """The buffers of ``view`` that are not the base's, as VeRA's random factors for all layers; each once."""
        shared = {buffer.data_ptr() for buffer in self.base.backbone.buffers()}
        return tuple({b.data_ptr(): b.data for b in view.buffers() if b.data_ptr() not in shared}.values())

    def _open(self, view: View, start: int) -> None:
        set_attention(view, FUSED)
        if not self.resumable:
            return
        blocks = view.blocks
        for index in range(self.blocks):
            block = blocks[index]
            kept = block if index >= start else None
            blocks[index] = _Stage(index, kept, getattr(block, "attention_type", None)).eval()
        if (path := view.architecture.embeddings) is not None:
            view.backbone.set_submodule(path, _Before(view.backbone.get_submodule(path)).eval())
        for path in (view.architecture.final_norm, view.architecture.projection):
            if path is None:
                continue
            owner, _, name = path.rpartition(".")
            parent = view.backbone.get_submodule(owner)
            if isinstance(inside := getattr(parent, name), nn.Module):
                setattr(parent, name, _Behind(inside, self.blocks).eval())


def _linear_parameters(view: View) -> list[nn.Parameter]:
    """Weights and biases of the linear layers in the blocks of ``view``."""
    layers = [module for module in view.blocks.modules() if isinstance(module, LINEAR)]
    found = [p for layer in layers for p in (layer.weight, layer.bias)]
    return [p for p in found if isinstance(p, nn.Parameter)]
