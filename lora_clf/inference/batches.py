"""Batches: which texts go together, in which order, padded to what.

Short texts padded to long ones are computed for nothing, so texts of like length go together. For training the
order is a pure function of seed and epoch: shuffle, sort inside windows of a few batches, shuffle the batches. Copies
of a text stand together, so that most come in one batch, which computes them once (`lora_clf.inference.runner`).
Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 20  # batches; what other windows compute and learn: benchmarks/batching.py
COPIES = 4  # of one text that move together: what comes more often stays spread over the windows


@dataclass(frozen=True)
class Batch:
    """One padded batch.

    Attributes:
        rows: which texts these are (B,).
        input_ids: token ids, padded on the right (B, T).
        attention_mask: one where there is a token, zero where there is padding (B, T).
    """

    rows: NDArray[np.int64]
    input_ids: Tensor
    attention_mask: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return Batch(self.rows, self.input_ids.to(device), self.attention_mask.to(device))


def collate(ids: Sequence[NDArray[np.int32]], rows: NDArray[np.int64], width: int = 0, texts: int = 0) -> Batch:
    """Pad the texts ``rows`` to the longest of them, or to ``width`` tokens where that is more.

    What stands where there is padding does not matter, since everything follows the mask: it is id 0. Where there are
    fewer than ``texts`` of them, texts of one such token follow, B in all.
    """
    lengths = np.ones(max(len(rows), texts), dtype=np.int64)
    lengths[: len(rows)] = [len(ids[row]) for row in rows]
    width = max(width, int(lengths.max()))
    padded = np.zeros((len(lengths), width), dtype=np.int64)  # (B, T)
    for index, row in enumerate(rows):
        padded[index, : lengths[index]] = ids[row]
    mask = (np.arange(width)[None, :] < lengths[:, None]).astype(np.int64)  # (B, T)
    return Batch(rows, torch.from_numpy(padded), torch.from_numpy(mask))


def padded_lengths(lengths: NDArray[np.int64], multiple: int, limit: int) -> NDArray[np.int64]:
    """Each length up to the next multiple, but never above ``limit``, the positions that there are."""
    padded: NDArray[np.int64] = np.minimum(-(-lengths // multiple) * multiple, limit)
    return padded


def split_rows(rows: NDArray[np.int64], lengths: NDArray[np.int64], batch_tokens: int) -> Sequence[NDArray[np.int64]]:
    """The rows of a batch in as few like parts as have at most ``batch_tokens`` tokens each, padding included.

    A part of one text may have more. Gradients of the parts add up to those of the batch.
    """
    tokens = len(rows) * int(lengths[rows].max())
    return np.array_split(rows, min(len(rows), -(-tokens // batch_tokens)))


def training_rows(
    lengths: NDArray[np.int64],
    batch_size: int,
    seed: int,
    epoch: int,
    window: int = WINDOW,
    rows: NDArray[np.int64] | None = None,
    firsts: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """The rows of each batch of one epoch, every row once, or those that are given.

    Args:
        lengths: tokens of each text.
        batch_size: texts a batch; the last one may be smaller.
        seed: of the run.
        epoch: from zero.
        window: batches that are sorted by length together; 1 is a plain shuffle.
        rows: those of this epoch, some perhaps several times; by default all of them once.
        firsts: the first row with the same text as each (N,), where copies of a text are to stand together.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths) if rows is None else rows)
    if firsts is not None:
        order = _together(order, firsts)
    batches: list[NDArray[np.int64]] = []
    span = window * batch_size
    for start in range(0, len(order), span):
        part = order[start : start + span]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def _together(order: NDArray[np.int64], firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same rows, up to `COPIES` of a text behind one another, where the first of them stood."""
    texts = firsts[order]
    by_text = np.argsort(texts, kind="stable")  # places in the order, those of one text behind one another
    starts = np.flatnonzero(np.diff(texts[by_text], prepend=-1))
    number = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))  # of each among its copies
    leader = np.empty_like(by_text)
    leader[by_text] = by_text[np.arange(len(order)) - number % COPIES]
    found: NDArray[np.int64] = order[np.argsort(leader, kind="stable")]
    return found


def inference_rows(lengths: NDArray[np.int64], batch_tokens: int, batch_cost: int = 0) -> list[NDArray[np.int64]]:
    """The rows of each batch for inference: longest first, at most ``batch_tokens`` tokens with padding.

    A text that is longer than that makes a batch of its own.

    Args:
        lengths: tokens of each text.
        batch_tokens: of a batch at most.
        batch_cost: what one batch more costs, in tokens that could be computed in its time; batches are cut where
            that saves more padding than it costs. 0: only where they are full.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    for first, last in pairwise(_cuts(lengths[order], batch_cost) if batch_cost else (0, len(order))):
        start = first
        while start < last:
            size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
            batches.append(order[start : min(start + size, last)])
            start += size
    return batches


def _cuts(lengths: NDArray[np.int64], batch_cost: int) -> list[int]:
    """Where to cut texts, longest first, so that padded tokens and ``batch_cost`` a batch are the least in sum."""
    if not len(lengths):
        return [0, 0]
    # It pays to cut between texts of different lengths only.
    starts = np.flatnonzero(np.diff(lengths, prepend=lengths[0] + 1))
    ends, widths = np.append(starts, len(lengths)), lengths[starts]
    least = np.zeros(len(ends))
    before = np.zeros(len(ends), dtype=np.int64)
    for end in range(1, len(ends)):
        sums = least[:end] + widths[:end] * (ends[end] - ends[:end]) + batch_cost
        before[end] = sums.argmin()
        least[end] = sums[before[end]]
    cuts = [len(starts)]
    while cuts[-1]:
        cuts.append(int(before[cuts[-1]]))
    return [int(ends[cut]) for cut in reversed(cuts)]
