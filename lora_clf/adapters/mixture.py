"""Many adapters on many texts, each computation of the base done once where several want it.

* Texts that each go to another adapter run in mixed batches, head-only and LoRA rows side by side.
* Where several adapters want the same text, blocks that none of them changes run once for it; from there on each
  adapter has its own rows, and those adapted at the same block run together.
* An adapter with weights of its own (`last-block`, `full`, any further strategy) runs them by itself.

What belongs together is decided once a batch, never in a layer. Shapes: B batch, T tokens, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lora_clf.adapters.mixed import Fan, Pass
from lora_clf.adapters.parts import Part, parts_of
from lora_clf.base.pooling import pool
from lora_clf.inference.batches import Batch, collate, inference_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.adapters.head_stack import HeadKind
    from lora_clf.adapters.resident import Resident, Workshop

    Rows = NDArray[np.int64]
    Logits = dict[Resident, NDArray[np.float32]]

# A batch takes at least the time in which all weights are read once, however short its texts: as long as that many
# tokens take to compute. On a CPU few, so texts of unlike lengths are not padded to one length.
BATCH_COST = {("cpu", "fp32"): 96, ("cpu", "bf16"): 256}
ELSEWHERE = 4096
OVERLAP = 1.5  # adapters a text from which on the blocks that they share run apart from their own
SHARED_TOKENS = 1024  # tokens of texts that many adapters read; with every adapter's rows a batch gets large enough


class Mixture:
    """Runs residents of one workshop.

    Attributes:
        tokens: of a batch at most, padding included.
        cost: tokens that could be computed in the time that a batch more takes.
    """

    def __init__(self, workshop: Workshop, tokens: int) -> None:
        self.workshop = workshop
        self.trunk = workshop.trunk
        self.tokens = tokens
        self.cost = BATCH_COST.get((workshop.base.device.type, workshop.precision), ELSEWHERE)

    def logits(self, ids: Sequence[NDArray[np.int32]], wanted: Mapping[Resident, Rows]) -> Logits:
        """The logits that each adapter gives to its texts, in the order in which they are wanted.

        Args:
            ids: texts, longest first, no two the same.
            wanted: which of them each adapter gets, ascending.
        """
        found = {
            resident: np.empty((len(rows), resident.classes), dtype=np.float32) for resident, rows in wanted.items()
        }
        shared, mixed, alone = self._plan(wanted)
        with torch.inference_mode(), torch.autocast(self.workshop.base.device.type, enabled=False):
            if mixed:
                self._run_mixed(ids, {resident: wanted[resident] for resident in mixed}, found)
            if shared:
                self._run_shared(ids, shared, wanted, found)
            for resident in alone:
                self._run_alone(ids, resident, wanted[resident], found)
        return found

    def _plan(
        self, wanted: Mapping[Resident, Rows]
    ) -> tuple[dict[int, list[Resident]], list[Resident], list[Resident]]:
        """Adapters by the blocks that they share, those for mixed batches, and those that share nothing."""
        ordered = sorted(wanted, key=lambda resident: resident.order)
        alone = [resident for resident in ordered if resident.own is not None and resident.cut == 0]
        shared: dict[int, list[Resident]] = {}
        mixed: list[Resident] = []
        for members in (
            [resident for resident in ordered if resident.cut > 0],
            [resident for resident in ordered if resident.cut == 0 and resident.own is None],
        ):
            together = _overlap([wanted[member] for member in members]) >= OVERLAP
            for member in members:
                if together or member.own is not None:
                    shared.setdefault(member.cut, []).append(member)
                else:
                    mixed.append(member)
        return shared, sorted(mixed, key=lambda resident: resident.order), alone

    def _run_mixed(self, ids: Sequence[NDArray[np.int32]], wanted: Mapping[Resident, Rows], found: Logits) -> None:
        """Rows of different adapters in the same batches, from the first block to the last."""
        residents = list(wanted)  # sorted by their order
        texts = np.concatenate([wanted[resident] for resident in residents])
        owners = np.repeat(np.arange(len(residents)), [len(wanted[resident]) for resident in residents])
        places = np.concatenate([np.arange(len(wanted[resident])) for resident in residents])
        order = np.lexsort((owners, texts))  # by text, so by length
        lengths = np.fromiter((len(ids[text]) for text in texts), np.int64, len(texts))
        for chosen in inference_rows(lengths[order], self.tokens, self.cost):
            rows = order[chosen]
            rows = rows[np.argsort(owners[rows], kind="stable")]
            batch = collate(ids, texts[rows]).to(self.workshop.base.device)
            numbers, counts = np.unique(owners[rows], return_counts=True)
            members = [residents[number] for number in numbers]
            parts = _parts(members, counts.tolist())
            now = Pass(len(rows), 0, self.trunk.blocks, parts=parts, pooling=_pooling(members))
            hidden = self.trunk.run(now, batch.input_ids, batch.attention_mask)
            ends = np.cumsum(counts)
            spans = [np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]
            logits = self._classified(hidden, batch.attention_mask, members, spans)
            for resident, span, values in zip(members, spans, logits, strict=True):
                found[resident][places[rows[span]]] = values

    def _run_shared(
        self,
        ids: Sequence[NDArray[np.int32]],
        shared: Mapping[int, Sequence[Resident]],
        wanted: Mapping[Resident, Rows],
        found: Logits,
    ) -> None:
        """Every text once through the blocks that nobody changes, then into each adapter's own."""
        everyone = [resident for members in shared.values() for resident in members]
        texts = np.unique(np.concatenate([wanted[resident] for resident in everyone]))
        lengths = np.fromiter((len(ids[text]) for text in texts), np.int64, len(texts))
        widest = max(len(members) for members in shared.values())
        tokens = max(min(SHARED_TOKENS, self.tokens), self.tokens // widest)
        for chosen in inference_rows(lengths, tokens, max(1, self.cost // widest)):
            rows = np.sort(texts[chosen])
            batch = collate(ids, rows).to(self.workshop.base.device)
            states, at = None, 0
            for cut in sorted(shared):
                if cut > at:
                    whole = cut == self.trunk.blocks
                    now = Pass(len(rows), at, cut, states, pooling=_pooling(shared[cut]) if whole else None)
                    states, at = self.trunk.run(now, batch.input_ids, batch.attention_mask), cut
                members, spans, places = [], [], []
                for resident in shared[cut]:
                    span = np.flatnonzero(np.isin(rows, wanted[resident], assume_unique=True))
                    if len(span):
                        members.append(resident)
                        spans.append(span)
                        places.append(np.searchsorted(wanted[resident], rows[span]))
                for resident, place, values in zip(
                    members, places, self._upper(batch, states, cut, members, spans), strict=True
                ):
                    found[resident][place] = values

    def _upper(
        self, batch: Batch, states: Tensor | None, cut: int, members: Sequence[Resident], spans: Sequence[Rows]
    ) -> list[NDArray[np.float32]]:
        """The logits of adapters that start from the same states; ``spans`` are the rows of the batch each gets."""
        if cut == self.trunk.blocks and states is not None:
            return self._classified(states, batch.attention_mask, members, spans)
        found: list[NDArray[np.float32]] = []
        together: list[tuple[Resident, Rows]] = []
        for resident, span in zip(members, spans, strict=True):  # LoRA adapters come behind those with own weights
            if resident.own is None:
                together.append((resident, span))
            else:
                found.append(self._own(batch, states, resident, span))
        texts, width = batch.input_ids.shape
        kept: dict[int, Tensor] = {}
        while together:
            count = rows = 0
            while count < len(together) and (not count or (rows + len(together[count][1])) * width <= self.tokens):
                rows += len(together[count][1])
                count += 1
            some, together = together[:count], together[count:]
            counts = [len(span) for _, span in some]
            source = torch.from_numpy(np.concatenate([span for _, span in some])).to(batch.input_ids.device)
            whole = next((index for index, number in enumerate(counts) if number == texts), None)
            fan = Fan(
                layers=self.workshop.wiring.attention[cut],
                source=source,
                first=None if whole is None else sum(counts[:whole]),
                texts=texts,
                kept=kept,
            )
            now = Pass(
                rows,
                cut,
                self.trunk.blocks,
                states=None if states is None else states.index_select(0, source),
                parts=_parts([resident for resident, _ in some], counts),
                fan=fan if len(members) > 1 else None,
                pooling=_pooling(members),
            )
            mask = batch.attention_mask.index_select(0, source)
            hidden = self.trunk.run(now, batch.input_ids.index_select(0, source), mask)
            ends = np.cumsum(counts)
            own = [np.arange(end - number, end) for end, number in zip(ends, counts, strict=True)]
            found += self._classified(hidden, mask, [resident for resident, _ in some], own)
        return found

    def _run_alone(self, ids: Sequence[NDArray[np.int32]], resident: Resident, rows: Rows, found: Logits) -> None:
        """An adapter that has no block in common with the base."""
        lengths = np.fromiter((len(ids[row]) for row in rows), np.int64, len(rows))
        for chosen in inference_rows(lengths, self.tokens, self.cost):
            batch = collate(ids, rows[chosen]).to(self.workshop.base.device)
            found[resident][chosen] = self._own(batch, None, resident, np.arange(len(chosen)))

    def _own(self, batch: Batch, states: Tensor | None, resident: Resident, span: Rows) -> NDArray[np.float32]:
        """The logits of an adapter with weights of its own, for some rows of a batch."""
        view = resident.own
        assert view is not None
        input_ids, mask = batch.input_ids, batch.attention_mask
        if len(span) < len(input_ids):
            source = torch.from_numpy(span).to(input_ids.device)
            input_ids, mask = input_ids.index_select(0, source), mask.index_select(0, source)
            states = None if states is None else states.index_select(0, source)
        now = Pass(len(span), resident.cut, self.trunk.blocks, states)
        hidden = self.trunk.run(now, input_ids, mask, view)
        values: NDArray[np.float32] = view.head(view.pooled(hidden.float(), mask)).float().cpu().numpy()
        return values

    def _classified(
        self, hidden: Tensor, mask: Tensor, members: Sequence[Resident], spans: Sequence[Rows]
    ) -> list[NDArray[np.float32]]:
        """Logits from the last hidden states: (B, T, D), (B, T) -> (rows of the span, C) for each adapter."""
        found: dict[Resident, NDArray[np.float32]] = {}
        by_kind: dict[HeadKind, list[tuple[Resident, Rows]]] = {}
        for resident, span in zip(members, spans, strict=True):
            if resident.kind is not None:
                by_kind.setdefault(resident.kind, []).append((resident, span))
            else:  # a strategy that leaves the backbone alone and has a head of its own
                view = resident.own
                assert view is not None
                rows = torch.from_numpy(span).to(hidden.device)
                pooled = view.pooled(hidden.index_select(0, rows).float(), mask.index_select(0, rows))
                found[resident] = view.head(pooled).float().cpu().numpy()
        vectors: dict[tuple[str, bool], Tensor] = {}
        for kind, runs in by_kind.items():
            key = kind.pooling, kind.uses_pooler
            if key not in vectors:
                vectors[key] = self._pooled(hidden.float(), mask, kind)
            rows = torch.from_numpy(np.concatenate([span for _, span in runs])).to(hidden.device)
            chosen = vectors[key].index_select(0, rows)
            logits = kind.logits(chosen, [(resident.head, len(span)) for resident, span in runs]).cpu().numpy()
            ends = np.cumsum([len(span) for _, span in runs])[:-1]
            for (resident, _), part in zip(runs, np.split(logits, ends), strict=True):
                found[resident] = part
        return [found[resident] for resident in members]

    def _pooled(self, hidden: Tensor, mask: Tensor, kind: HeadKind) -> Tensor:
        """The inputs of heads: (B, T, D), (B, T) -> (B, D)."""
        vectors = pool(hidden, mask, kind.pooling)
        if kind.uses_pooler:
            assert self.trunk.pooler is not None
            vectors = self.trunk.pooler(vectors.unsqueeze(1))
        return vectors


def _pooling(members: Sequence[Resident]) -> str | None:
    """The one position that all these adapters read of the last block; None where they differ or read all."""
    found = {"mean" if resident.kind is None else resident.kind.pooling for resident in members}
    return found.pop() if len(found) == 1 and found != {"mean"} else None


def _overlap(rows: Sequence[Rows]) -> float:
    """How many adapters want a text, on average."""
    every = np.concatenate([np.empty(0, np.int64), *rows])
    return len(every) / max(1, len(np.unique(every)))


def _parts(members: Sequence[Resident], counts: Sequence[int]) -> list[Part]:
    """What the adapters of neighbouring rows add, page by page; ``members`` are sorted by their order."""
    found: list[Part] = []
    start = 0
    for layout, group in groupby(zip(members, counts, strict=True), key=lambda pair: pair[0].layout):
        runs = [(resident.row, count) for resident, count in group]
        if layout is not None:
            found += parts_of(start, layout, [(row, count) for row, count in runs if row is not None])
        start += sum(count for _, count in runs)
    return found
