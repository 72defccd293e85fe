"""What low-rank adapters add to the rows of a mixed batch.

The rows of a batch are sorted by layout and adapter, so what one page contributes is a slice of rows. A slice of one
adapter is two plain products (`OneAdapter`). A slice of many is two batched products (`ManyAdapters`), whose factors
are brought together by one copy a site; no layer loops over adapters. `parts_of` decides which is the cheaper one by
counting bytes. Shapes: B batch, T tokens, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_clf.adapters.pages import Layout, Place

# A slice of its own costs an adapter the calls of two small products at each site, which take about as long as
# copying this many bytes: measured with MiniLM's layers, ranks 8 to 64, in fp32 and bf16. An accelerator copies
# far faster than it is called.
SLICE_BYTES: Final = {"cpu": 170_000, "cuda": 16 << 20, "mps": 4 << 20}


class Part(Protocol):
    """What some neighbouring rows of a batch get added."""

    layout: Layout

    def inner(self, place: Place, x: Tensor, tokens: int) -> Tensor:
        """The inner products of a site: (B T, in) -> those of this part's rows."""
        ...

    def add(self, place: Place, inner: Tensor, out: Tensor, tokens: int) -> None:
        """Add a layer's change to this part's rows of ``out`` (B T, out), in place."""
        ...


class OneAdapter:
    """Neighbouring rows of one adapter."""

    def __init__(self, start: int, stop: int, layout: Layout, row: Tensor) -> None:
        self.start, self.stop, self.layout = start, stop, layout
        self._pieces = row.split(layout.pieces)

    def inner(self, place: Place, x: Tensor, tokens: int) -> Tensor:
        """x Aᵀ: (b T, site_rank)."""
        a = self._pieces[place.a].view(place.site_rank, place.inputs)
        return F.linear(x[self.start * tokens : self.stop * tokens], a)

    def add(self, place: Place, inner: Tensor, out: Tensor, tokens: int) -> None:
        """Add (x Aᵀ) B."""
        if place.last - place.first != place.site_rank:
            inner = inner[:, place.first : place.last]
        b = self._pieces[place.b].view(-1, place.outputs)
        out[self.start * tokens : self.stop * tokens].addmm_(inner, b)


class ManyAdapters:
    """Neighbouring rows of many adapters of one layout; each adapter has a multiple of ``share`` rows."""

    def __init__(self, start: int, layout: Layout, rows: Sequence[Tensor], share: int) -> None:
        self.start, self.layout, self._share = start, layout, share
        self._count = len(rows)
        # Every piece of all rows side by side: views, nothing is copied yet.
        self._pieces = tuple(zip(*(row.split(layout.pieces) for row in rows), strict=True))
        self._gathered: tuple[int, Tensor] | None = None

    def inner(self, place: Place, x: Tensor, tokens: int) -> Tensor:
        """x Aᵀ, each with its own A: (n, share T, site_rank)."""
        a = self._gather(place.site)[: self._count * place.site_rank * place.inputs]
        a, rows = a.view(self._count, -1, place.inputs), self._rows(x, tokens)
        if a.dtype == torch.float32:  # MKL is up to twice as fast at A xᵀ; the next product takes it turned round
            return torch.bmm(a, rows.transpose(1, 2)).transpose(1, 2)
        return torch.bmm(rows, a.transpose(1, 2))

    def add(self, place: Place, inner: Tensor, out: Tensor, tokens: int) -> None:
        """Add (x Aᵀ) B, each with its own B."""
        start, size = place.offset, (place.last - place.first) * place.outputs
        b = self._gather(place.site)[self._count * start : self._count * (start + size)]
        if place.last - place.first != place.site_rank:
            inner = inner[..., place.first : place.last]
        self._rows(out, tokens).baddbmm_(inner, b.view(self._count, -1, place.outputs))

    def _gather(self, site: int) -> Tensor:
        """The factors of one site: first A of all rows, then B of all rows, layer by layer.

        Site by site and not all at once: what was copied is still in the processor's cache when it is used.
        """
        if self._gathered is None or self._gathered[0] != site:
            first, last = self.layout.sites[site]
            self._gathered = site, torch.cat(list(chain.from_iterable(self._pieces[first:last])))
        return self._gathered[1]

    def _rows(self, x: Tensor, tokens: int) -> Tensor:
        stop = self.start + self._count * self._share
        return x[self.start * tokens : stop * tokens].view(self._count, self._share * tokens, -1)


def parts_of(start: int, layout: Layout, runs: Sequence[tuple[Tensor, int]]) -> list[Part]:
    """The parts for neighbouring rows of one layout, in the cheapest way.

    Args:
        start: the first row.
        layout: of all of them.
        runs: one adapter's row of factors and how many rows of the batch it has, one after the other.
    """
    share = math.gcd(*(count for _, count in runs))
    copies = sum(count for _, count in runs) // share
    factors = runs[0][0]
    site_bytes = factors.nbytes / len(layout.sites)
    if len(runs) * SLICE_BYTES.get(factors.device.type, SLICE_BYTES["cuda"]) <= copies * site_bytes or len(runs) == 1:
        alone: list[Part] = []
        for row, count in runs:
            alone.append(OneAdapter(start, start + count, layout, row))
            start += count
        return alone
    return [ManyAdapters(start, layout, [row for row, count in runs for _ in range(count // share)], share)]
