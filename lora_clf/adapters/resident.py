"""Adapters of a pool in memory: what each strategy leaves there, and how it is made.

Head-only adapters leave a head; LoRA adapters a row of factors and a head; every other strategy a module tree over
the base's storage with weights of its own from its first own block on (`last-block`: the last blocks, `full`: all).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_clf.adapters.classifier import build, check_sizes, rebuilt
from lora_clf.adapters.head_stack import HeadKind
from lora_clf.adapters.mixed import Trunk
from lora_clf.adapters.pages import A, B, Layout, Wiring
from lora_clf.errors import AdapterFormatError, StateError, TunerError, UnsupportedBaseError, UsageError
from lora_clf.inference.precision import resolve_precision
from lora_clf.inference.prefix import find_cut
from lora_clf.tuners import create
from lora_clf.tuners.low_rank import LowRank

if TYPE_CHECKING:
    from lora_clf.adapters.header import Header
    from lora_clf.base.base import Base
    from lora_clf.base.view import View
    from lora_clf.tuners.base import Tuned

_HEAD = "head."
_LORA = frozenset({"lora", "lora-scratch", "rslora"})  # By name: another low-rank strategy may compute something else.


@dataclass(eq=False)
class Resident:
    """One adapter in memory.

    Attributes:
        name: in the pool; decides the order of adapters in a batch.
        classes: how many logits.
        cut: how many of the leading blocks are the base's own.
        kind, head: the head, where it is computed from pooled vectors together with others.
        layout, row: the factors, where there are any.
        own: a tree with weights of its own, its head among them.
        owned: all parameters that nobody else has.
        kept: buffers that are not the base's; what made them may keep them for others too.
    """

    name: str
    classes: int
    cut: int
    kind: HeadKind | None = None
    head: Mapping[str, Tensor] = field(default_factory=dict)
    layout: Layout | None = None
    row: Tensor | None = None
    own: View | None = None
    owned: tuple[Tensor, ...] = ()
    kept: tuple[Tensor, ...] = ()

    @property
    def order(self) -> tuple[int, str]:
        """Sorts the rows of a batch so that those of one layout, and of one adapter, are neighbours."""
        return (-1 if self.layout is None else self.layout.number), self.name

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(tensor.nbytes for tensor in (*self.owned, *self.kept))

    def spoil(self) -> None:
        """Fill the memory with NaN when nobody uses it any more: whoever did would show it."""
        with torch.inference_mode(False), torch.no_grad():
            for tensor in self.owned:
                tensor.fill_(torch.nan)


class Workshop:
    """Makes residents of one base in one precision.

    Attributes:
        base: the base.
        wiring: its linear layers.
        trunk: the shared tree.
    """

    def __init__(self, base: Base, precision: str) -> None:
        self.base = base
        self.wiring = Wiring(base)
        self.precision = resolve_precision(precision, base.device)
        self.trunk = Trunk(base, self.wiring, self.precision)
        self._kinds: dict[tuple[str, int], HeadKind] = {}

    def from_state(self, name: str, header: Header, state: Mapping[str, Tensor]) -> Resident:
        """The adapter of a header and its tensors, by their names in memory.

        Raises:
            AdapterFormatError: they do not fit each other or the base.
        """
        check_sizes(self.base, header)
        return self._plain(name, header, state) or self._own(name, self._built(header, state))

    def from_tuned(self, name: str, header: Header, tuned: Tuned) -> Resident:
        """A copy of an adapter that is in use."""
        return self._plain(name, header, tuned.state_dict()) or self._own(name, rebuilt(self.base, tuned))

    def _plain(self, name: str, header: Header, state: Mapping[str, Tensor]) -> Resident | None:
        """A head-only or LoRA adapter; None for another, and where something about it is not as it should be."""
        classes = header.outputs
        kind = self._kind(header.pooling, classes)
        if kind is None or (kind.uses_pooler and self.trunk.pooler is None):
            return None
        head = {key.removeprefix(_HEAD): tensor for key, tensor in state.items() if key.startswith(_HEAD)}
        if {key: tuple(tensor.shape) for key, tensor in head.items()} != kind.shapes:
            return None
        with torch.inference_mode(False), torch.no_grad():
            head = {key: tensor.detach().to(self.base.device, torch.float32, copy=True) for key, tensor in head.items()}
        found = Resident(name, classes, self.trunk.blocks, kind, head, owned=tuple(head.values()))
        if len(state) > len(head):
            found.layout = self._layout(header, state, len(state) - len(head))
            if found.layout is None:
                return None
            assert header.scaling is not None
            dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
            found.row = found.layout.row(state, header.scaling, self.base.device, dtype)
            found.cut = found.layout.block if self.trunk.resumable else 0
            found.owned += (found.row,)
        elif header.strategy != "head-only":
            return None
        return found

    def _layout(self, header: Header, state: Mapping[str, Tensor], count: int) -> Layout | None:
        """The layout of a LoRA adapter that is exactly what its settings say."""
        if self.base.architecture.global_token:  # its layers get tokens first, rows second: none can tell rows apart
            return None
        try:
            tuner = create(header.strategy, **header.settings)
            if header.strategy not in _LORA or not isinstance(tuner, LowRank) or tuner.scaling != header.scaling:
                return None
            names = self.wiring.targets(tuner.targets, tuner.blocks)
        except (UsageError, TunerError, TypeError):
            return None
        rank, shapes = tuner.rank, self.wiring.shapes
        for name in names:
            a, b = state.get(name + A), state.get(name + B)
            inputs, outputs = shapes[name]
            if a is None or b is None or a.shape != (rank, inputs) or b.shape != (outputs, rank):
                return None
        if count != 2 * len(names) or header.fan_in_fan_out != self.wiring.transposed[names[0]]:
            return None
        return self.wiring.layout(dict.fromkeys(names, rank))

    def _kind(self, pooling: str, classes: int) -> HeadKind | None:
        """The one kind of such heads; None where this base has no head of that pooling."""
        key = pooling, classes
        if key not in self._kinds:
            try:
                self._kinds[key] = HeadKind(self.base, pooling, classes)
            except UnsupportedBaseError:
                return None
        return self._kinds[key]

    def _built(self, header: Header, state: Mapping[str, Tensor]) -> Tuned:
        tuned = build(self.base, header)
        try:
            tuned.load_state_dict(state)
        except StateError as error:
            raise AdapterFormatError(f"The adapter's tensors do not fit: {error}") from error
        return tuned

    def _own(self, name: str, tuned: Tuned) -> Resident:
        """Any other strategy: its view as it is, without the blocks that it shares with the base."""
        view = tuned.view
        found = find_cut(view, changes_inputs=tuned.tuner.changes_inputs)
        cut = found.blocks if self.trunk.resumable else 0
        opened = self.trunk.opened(view, cut)
        owned, kept = self.trunk.owned(opened), self.trunk.kept(opened)
        return Resident(name, view.classes, cut, own=opened, owned=owned, kept=kept)
