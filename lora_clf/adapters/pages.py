"""Where the low-rank factors of resident adapters lie: one row of numbers an adapter, alike for all of one layout.

Linear layers of a block that read the same input (query, key and value) form one *site*: their A stand below each
other, so that one product serves all three. A row goes from site to site in the order of the blocks::

    site     A (R, in) of all its layers | B (r, out) of the first | B of the second | ...      R = sum of their ranks
    row      site | site | site | ...                                                          one adapter

B lies transposed and multiplied by the scaling: nothing is scaled or turned round later. Adapters of one layout, that
is of one rank and the same layers, make a page; a batch takes what it needs of a page with one copy a site. A page has
no slots that could be handed to another adapter while a batch still reads them: each row is memory of its own, which
lives as long as anyone uses it. Shapes: B batch, T tokens, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from lora_clf.base.targets import expand_targets, linear_shape

if TYPE_CHECKING:
    from lora_clf.base.base import Base

A: Final = ".lora_A.weight"
B: Final = ".lora_B.weight"


@dataclass(frozen=True)
class Place:
    """Where the factors of one linear layer are in a row of its layout.

    Attributes:
        site: the number of its site.
        a, b: the numbers of its pieces: A of the whole site, B of this layer.
        inputs, site_rank: the site's A is (site_rank, inputs).
        first, last: the columns of this layer in the site's inner product (B, T, site_rank).
        offset: where its B (last - first, outputs) begins in the site.
        outputs: the layer's width.
    """

    site: int
    a: int
    b: int
    inputs: int
    site_rank: int
    first: int
    last: int
    offset: int
    outputs: int


class Layout:
    """How the factors of adapters with the same ranks at the same layers follow one another.

    Attributes:
        number: counts the layouts of one wiring, in the order in which they came up.
        places: where each linear layer of the base has its factors, by its number; None where it has none.
        pieces: how many numbers each piece has: for every site its A, then its Bs.
        sites: the first piece of each site, and the first that is not its own.
        numbers: how many an adapter has.
        block: the first block that is adapted.
    """

    def __init__(self, number: int, wiring: Wiring, ranks: Mapping[str, int]) -> None:
        self.number = number
        places: list[Place | None] = [None] * len(wiring.names)
        self.sites: list[tuple[int, int]] = []
        self.pieces: list[int] = []
        self._fill: list[tuple[str, Place]] = []
        for group in wiring.groups:
            members = [name for name in group if name in ranks]
            if not members:
                continue
            inputs = wiring.shapes[members[0]][0]
            site_rank = sum(ranks[name] for name in members)
            a, offset, first = len(self.pieces), site_rank * inputs, 0
            self.pieces.append(offset)
            for name in members:
                outputs, last = wiring.shapes[name][1], first + ranks[name]
                place = Place(
                    len(self.sites), a, len(self.pieces), inputs, site_rank, first, last, offset, outputs
                )  # fmt: skip
                places[wiring.numbers[name]] = place
                self._fill.append((name, place))
                self.pieces.append(ranks[name] * outputs)
                offset, first = offset + ranks[name] * outputs, last
            self.sites.append((a, len(self.pieces)))
        self.places = tuple(places)
        self.numbers = sum(self.pieces)
        self._ends = [0, *accumulate(self.pieces)]
        self.block = min(wiring.blocks[name] for name, _ in self._fill)

    def row(self, state: Mapping[str, Tensor], scaling: float, device: torch.device, dtype: torch.dtype) -> Tensor:
        """One adapter's row: its A (r, in) and B (out, r), by the names that they have in its state."""
        with torch.inference_mode(False), torch.no_grad():
            found = torch.empty(self.numbers, dtype=torch.float32)
            # A hundred small copies: numpy calls them in a fraction of the time.
            numbers = found.numpy()
            pieces = [numbers[start:end] for start, end in pairwise(self._ends)]
            for name, place in self._fill:
                a, b = state[name + A].float().numpy(), state[name + B].float().numpy()
                pieces[place.a].reshape(-1, place.inputs)[place.first : place.last] = a
                np.multiply(b.T, np.float32(scaling), out=pieces[place.b].reshape(-1, place.outputs))
            return found.to(device, dtype)


class Wiring:
    """The linear layers in the blocks of a base, numbered, and the layouts that adapters have on it.

    Attributes:
        names: of the layers, relative to the backbone.
        numbers: of the names.
        shapes: (inputs, outputs) of each.
        transposed: whether it holds its weight as (in, out).
        blocks: the block that each is in.
        groups: layers that read the same input, in the order in which they run.
        attention: the numbers of the layers that read what enters the attention, by block.
    """

    def __init__(self, base: Base) -> None:
        architecture = base.architecture
        self._base = base
        self.names = expand_targets(base.backbone, architecture, "all").modules
        self.numbers = {name: number for number, name in enumerate(self.names)}
        layers = {name: base.backbone.get_submodule(name) for name in self.names}
        self.shapes = {name: linear_shape(layer) for name, layer in layers.items()}
        self.transposed = {name: isinstance(layer, Conv1D) for name, layer in layers.items()}
        depth = len(architecture.blocks.split("."))
        self.blocks = {name: int(name.split(".")[depth]) for name in self.names}
        groups: dict[str, list[str]] = {}
        for name in self.names:
            inside = name.split(".", depth + 1)[-1]
            shared = len(architecture.attention) > 1 and inside in architecture.attention
            groups.setdefault(f"{self.blocks[name]}/attention" if shared else name, []).append(name)
        self.groups = tuple(tuple(members) for members in groups.values())
        self.attention = {
            block: frozenset(
                self.numbers[name]
                for name in self.names
                if self.blocks[name] == block and name.split(".", depth + 1)[-1] in architecture.attention
            )
            for block in set(self.blocks.values())
        }
        self._layouts: dict[tuple[tuple[str, int], ...], Layout] = {}
        self._targets: dict[tuple[str, int | None], tuple[str, ...]] = {}

    def targets(self, targets: str, blocks: int | None) -> tuple[str, ...]:
        """The layers that a specification names, as `expand_targets` has it.

        Raises:
            TargetError: it names none.
            UsageError: there are not that many blocks.
        """
        key = targets, blocks
        if key not in self._targets:
            found = expand_targets(self._base.backbone, self._base.architecture, targets, blocks)
            self._targets[key] = found.modules
        return self._targets[key]

    def layout(self, ranks: Mapping[str, int]) -> Layout:
        """The one layout of adapters with these ranks at these layers."""
        key = tuple((name, ranks[name]) for name in self.names if name in ranks)
        if key not in self._layouts:
            self._layouts[key] = Layout(len(self._layouts), self, ranks)
        return self._layouts[key]
