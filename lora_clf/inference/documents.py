"""From the chunks of a text to its logits: their answers joined, or their vectors combined by the head.

How answers are joined, with p(c | k) the probability of class c that chunk k gives (Kittler et al. 1998, "On combining
classifiers", the rules of section 2). All are returned as logits, the logarithm of shares:

- ``mean``: the mean of p(c | k) over k (their sum rule): every chunk counts the same.
- ``max``: the largest p(c | k) over k (their max rule), the shares made to add up to one: the surest chunk decides.
- ``vote``: the share of chunks whose most probable class is c (their majority vote), with one vote more that is divided
  as ``mean`` is: it breaks ties, and no share is zero.
- ``score``: p(c) times the product of p(c | k) / p(c) over k (their product rule), p(c) the share of c among the chunks
  of training: what chunks say beyond that adds up, and one that says nothing changes nothing.

For outputs that are no softmax ``mean`` is the mean of the outputs and ``max`` the largest of each. Shapes: N texts,
K chunks, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.base.documents import Documents
    from lora_clf.base.reading import Reading
    from lora_clf.base.view import View

TEXTS = 64  # a batch, for the network over chunks: it costs next to nothing


@dataclass(frozen=True, eq=False)
class Joined:
    """What some texts get from their chunks.

    Attributes:
        logits: (N, C) of the texts.
        shares: (K,) how much of the answer each chunk gave; those of a text add up to one.
    """

    logits: NDArray[np.float32]
    shares: NDArray[np.float32]


def check_outputs(reading: Reading, softmax: bool, task: str) -> None:
    """Refuse to join what cannot be.

    Raises:
        UsageError: votes or shares are asked for of a task without them.
    """
    if not softmax and reading.long == "chunk" and reading.aggregate in ("vote", "score"):
        raise UsageError(
            f"--aggregate {reading.aggregate} joins probabilities of classes, and the task is {task}. Use mean or max."
        )


def join(logits: NDArray[np.float32], documents: Documents, *, softmax: bool = True) -> Joined:
    """The logits of texts from those of their chunks (K, C), joined as their reading says.

    Args:
        logits: of the chunks.
        documents: whose they are.
        softmax: whether a softmax makes probabilities of them.
    """
    reading = documents.reading
    found = np.empty((documents.texts, logits.shape[1]), dtype=np.float32)
    shares = np.empty(len(logits), dtype=np.float32)
    for text, (first, last) in enumerate(pairwise(documents.first.tolist())):
        mine = logits[first:last].astype(np.float64)
        found[text], shares[first:last] = _classes(mine, reading) if softmax else _outputs(mine, reading.aggregate)
    return Joined(found, shares)


def _classes(logits: NDArray[np.float64], reading: Reading) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The logits (C,) of one text and its chunks' shares (k,) in the answer."""
    logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)  # (k, C)
    count = len(logs)
    mean = np.logaddexp.reduce(logs, axis=0) - np.log(count)
    if reading.aggregate == "mean":
        return mean, np.full(count, 1 / count)
    if reading.aggregate == "max":
        best = logs.max(axis=0)
        return best - np.logaddexp.reduce(best), _one(logs[:, best.argmax()].argmax(), count)
    if reading.aggregate == "vote":
        chosen = logs.argmax(axis=1)
        votes = np.bincount(chosen, minlength=logs.shape[1])
        joined = np.log((votes + np.exp(mean)) / (count + 1))
        return joined, _shared(chosen == joined.argmax())
    prior = np.log(np.asarray(reading.prior if reading.prior else np.full(logs.shape[1], 1 / logs.shape[1])))
    evidence = logs - prior  # (k, C)
    joined = prior + evidence.sum(axis=0)
    return joined - np.logaddexp.reduce(joined), _shared(np.maximum(evidence[:, joined.argmax()], 0))


def _outputs(logits: NDArray[np.float64], aggregate: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same for outputs that are not those of a softmax."""
    count = len(logits)
    if aggregate == "mean":
        return logits.mean(axis=0), np.full(count, 1 / count)
    best = logits.max(axis=0)
    return best, _one(logits[:, best.argmax()].argmax(), count)


def _one(place: np.intp, count: int) -> NDArray[np.float64]:
    shares = np.zeros(count)
    shares[place] = 1
    return shares


def _shared(amounts: NDArray[np.generic]) -> NDArray[np.float64]:
    """Amounts as shares of their sum; equal ones where all are zero."""
    found = amounts.astype(np.float64)
    return found / found.sum() if found.sum() > 0 else np.full(len(found), 1 / len(found))


def padded(vectors: Tensor, counts: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """The vectors (K, D) of some texts' chunks, one text after the other, as (B, K, D) with a mask (B, K)."""
    sizes = torch.from_numpy(counts)
    mask = torch.arange(int(sizes.max()))[None] < sizes[:, None]  # (B, K)
    mask = mask.to(vectors.device)
    found = vectors.new_zeros(*mask.shape, vectors.shape[1])
    return found.masked_scatter(mask.unsqueeze(-1), vectors), mask.to(vectors.dtype)


def combine(view: View, documents: Documents, vectors: Callable[[NDArray[np.int64]], Tensor]) -> Joined:
    """What the head of ``view`` makes of all texts; ``vectors`` are those of some chunks (k, D), by number."""
    from lora_clf.base.combiner import ChunkHead

    head = view.head
    assert isinstance(head, ChunkHead)
    logits = np.empty((documents.texts, view.classes), dtype=np.float32)
    shares = np.empty(len(documents), dtype=np.float32)
    order = np.argsort(documents.chunks, kind="stable")
    with torch.inference_mode():
        for start in range(0, len(order), TEXTS):
            texts = order[start : start + TEXTS]
            rows = documents.rows_of(texts)
            stacked, mask = padded(vectors(rows), documents.chunks[texts])
            answers, weights = head.documents(stacked, mask)
            logits[texts] = answers.float().cpu().numpy()
            shares[rows] = weights[mask.bool()].float().cpu().numpy()
    return Joined(logits, shares)
