"""Running a classifier over many texts: sorted by length, large batches, equal texts once, answers in input order.

Any number of texts takes the memory of one chunk: `chunks` cuts them, and each chunk is sorted and answered alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lora_clf.base.base import position_limit
from lora_clf.base.documents import Documents
from lora_clf.base.head import output_width
from lora_clf.base.tokenizer import Tokens
from lora_clf.base.view import View, share
from lora_clf.inference import heap
from lora_clf.inference.attention import REFERENCE, choose_attention, set_attention
from lora_clf.inference.batches import collate, inference_rows, padded_lengths
from lora_clf.inference.documents import Joined, combine, join
from lora_clf.inference.encoder_block import fuse_blocks
from lora_clf.inference.one_position import LastBlock, last_block_for, masked, pool_last_block
from lora_clf.inference.precision import autocast, cast_frozen
from lora_clf.inference.products import quicken
from lora_clf.tuners.base import Tuned

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_TOKENS = 8192
CPU_BATCH_TOKENS = 1024  # larger ones take more memory, and in fp32 more time; speed_predict.py --choices measures it
BF16_WIDTHS = 4  # a CPU's bf16 kernels are made anew for every shape: padding to a multiple costs less
CHUNK = 8192  # texts that are sorted together
LONG_CHUNK = 256  # the same where texts are read whole, of any length
MANY = 256  # texts from which on a private copy of the classifier pays
LARGEST_COPY = 1 << 30  # bytes of blocks above which it takes more memory than its speed is worth
RELEASED_TOKENS = 4096  # after which freed memory is given back

_Item = TypeVar("_Item")


def chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """``items`` in lists of ``size``; the last may be shorter, none is empty."""
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk


class Answering(NamedTuple):
    """What answers: a view, and its last block where that computes the pooled position alone."""

    view: View
    last: LastBlock | None = None


def answering(tuned: Tuned, precision: str, texts: int) -> Answering:
    """What should answer so many texts: the tuned view itself, or for many texts a faster private copy of it.

    In the copy what a strategy put beside the base's weights is merged into them, frozen matrices are cast once, and
    with last or first pooling the last block runs for the pooled token alone. In fp32 its logits are the same to 1e-5
    (tests/inference/test_predict.py), which is what a text's logits may differ between batches anyway.

    Args:
        tuned: the classifier; it is left as it is.
        precision: "fp32" or "bf16".
        texts: how many there are.
    """
    view = tuned.view
    if texts < MANY or sum(parameter.nbytes for parameter in view.blocks.parameters()) > LARGEST_COPY:
        return Answering(view)
    beside = sum(1 for _ in view.parameters()) > sum(1 for _ in view.fresh().parameters())
    copy = tuned.merge() if beside and tuned.tuner.mergeable else share(view)
    assert isinstance(copy, View)
    if precision == "bf16" and view.device.type == "cpu":
        fuse_blocks(Tuned(tuned.tuner, copy), precision, last=last_block_for(copy, copy.head.pooling) is None)
    quicken(copy.blocks)
    cast_frozen(copy.requires_grad_(False), precision)
    made = Answering(copy.eval(), pool_last_block(copy))
    if view.device.type == "cpu":
        heap.release()  # of weights in forms that nothing reads any more
    return made


def logits(
    view: View,
    tokens: Tokens,
    *,
    precision: str = "fp32",
    last: LastBlock | None = None,
    batch_tokens: int | None = None,
    widths: int | None = None,
    softmax: bool = True,
) -> NDArray[np.float32]:
    """The logits of every text, in input order: N texts -> (N, C) in fp32. Equal ids are computed once.

    Args:
        view: the classifier; its training mode is left as it was found.
        tokens: the encoded texts.
        precision: "fp32" or "bf16".
        last: the view's last block, where `answering` made one.
        batch_tokens: tokens a batch, padding included; default: what suits the device.
        widths: what the padded length of a batch is a multiple of; default: what suits device and precision.
        softmax: whether a softmax makes probabilities of them; it matters to texts that are read in chunks.
    """
    run = partial(_computed, view, precision=precision, last=last, batch_tokens=batch_tokens, widths=widths)
    return joined(view, tokens, run, softmax=softmax).logits if isinstance(tokens, Documents) else run(tokens)


def joined(view: View, documents: Documents, run: Callable[..., NDArray[np.float32]], *, softmax: bool) -> Joined:
    """What texts get from their chunks; ``run`` computes logits (K, C) or, with ``vectors=True``, vectors (K, D)."""
    if view.combine is None:
        return join(run(documents), documents, softmax=softmax)
    vectors = torch.from_numpy(run(documents, vectors=True)).to(view.device)
    return combine(view, documents, lambda rows: vectors[torch.from_numpy(rows)])


def explained(view: View, documents: Documents, *, softmax: bool) -> tuple[Joined, NDArray[np.float32]]:
    """What texts get from their chunks, and the logits of every chunk by itself (K, C)."""
    run = partial(_computed, view)
    return joined(view, documents, run, softmax=softmax), run(documents)


def _computed(
    view: View,
    tokens: Tokens,
    *,
    precision: str = "fp32",
    last: LastBlock | None = None,
    batch_tokens: int | None = None,
    widths: int | None = None,
    vectors: bool = False,
) -> NDArray[np.float32]:
    """Logits of every row of ids (K, C), or the head's inputs (K, D)."""
    cpu = view.device.type == "cpu"
    batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if cpu else BATCH_TOKENS)
    widths = widths or (BF16_WIDTHS if cpu and precision == "bf16" else 1)
    limit = position_limit(view.config) or sys.maxsize
    rows, which = np.unique(tokens.firsts, return_inverse=True)  # of each distinct text one row
    padded = padded_lengths(tokens.lengths[rows], widths, limit)
    done = released = 0  # computed tokens

    def forward(chosen: NDArray[np.int64]) -> Tensor:
        nonlocal done, released
        if done - released >= RELEASED_TOKENS:
            heap.release()
            released = done
        batch = collate(tokens.ids, rows[chosen], int(padded[chosen].max())).to(view.device)
        done += batch.input_ids.numel()
        choose_attention(view, batch.input_ids.shape[1], training=False)
        with masked(last, batch.attention_mask), autocast(precision, view.device):
            call = view.vectors if vectors else view.classify
            return call(batch.input_ids, batch.attention_mask)

    width = output_width(view.config) if vectors else None
    batches = inference_rows(padded, batch_tokens)
    found: NDArray[np.float32] = answers(view, len(rows), batches, forward, width)[which]
    if done >= RELEASED_TOKENS:
        heap.release()
    return found


def reference_logits(view: View, tokens: Tokens, *, softmax: bool = True) -> NDArray[np.float32]:
    """The logits in fp32 with the reference kernel, one text at a time: what stored canaries are held to.

    Frozen matrices that were cast for speed do not matter here: the caller passes a view in fp32.
    """
    run = partial(_one_by_one, view)
    return joined(view, tokens, run, softmax=softmax).logits if isinstance(tokens, Documents) else run(tokens)


def _one_by_one(view: View, tokens: Tokens, *, vectors: bool = False) -> NDArray[np.float32]:
    def forward(rows: NDArray[np.int64]) -> Tensor:
        batch = collate(tokens.ids, rows).to(view.device)
        set_attention(view, REFERENCE)
        call = view.vectors if vectors else view.classify
        return call(batch.input_ids, batch.attention_mask)

    width = output_width(view.config) if vectors else None
    return answers(view, len(tokens), [np.array([row]) for row in range(len(tokens))], forward, width)


def answers(
    view: View,
    texts: int,
    batches: Iterable[NDArray[np.int64]],
    forward: Callable[[NDArray[np.int64]], Tensor],
    width: int | None = None,
) -> NDArray[np.float32]:
    """What ``forward`` answers to the rows of each batch, in evaluation mode, in input order: (``texts``, C)."""
    found = np.empty((texts, view.classes if width is None else width), dtype=np.float32)
    was_training = view.training
    view.eval()
    try:
        with torch.inference_mode():
            for rows in batches:
                found[rows] = forward(rows).float().cpu().numpy()
    finally:
        view.train(was_training)
    return found
