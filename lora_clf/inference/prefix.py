"""The frozen prefix: what no training step can change is computed once and kept.

Everything below the lowest trainable parameter is a fixed function of a text. It is run once for every text, in
evaluation mode, and later epochs, other seeds, other strategies and other labels start from the kept states
(`lora_clf.inference.cache`). Where the cut lies is read off the view: below it every module is the base's own and
nothing trains, so a strategy gains without knowing.

A state is a function of the base, the cut, the precision and the text's ids alone, bit for bit: texts run in
*canonical batches*, whose shape depends on the text's length only and which are filled up where texts are few. In a
batch of given shape the last bits of a row do not depend on its place or its neighbours (tests/inference/
test_prefix.py), so it does not matter who computed it, with which split, in which order. Where blocks can leave padding
out, a batch is filled by tokens and not by texts: as many of like length as have `CANONICAL_TOKENS` together.

Shapes: B batch, T tokens, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_clf.base.base import Base, position_limit
from lora_clf.base.tokenizer import Tokens
from lora_clf.base.verbalizer import unprompted
from lora_clf.base.view import View
from lora_clf.inference.attention import FUSED, set_attention
from lora_clf.inference.batches import Batch, collate
from lora_clf.inference.encoder_block import fuse_blocks
from lora_clf.inference.original import Originals
from lora_clf.inference.padding import Given, Packing, packing
from lora_clf.inference.precision import autocast, cast_frozen
from lora_clf.inference.products import onednn, quicken
from lora_clf.tuners.base import Tuned
from lora_clf.tuners.head_only import HeadOnly

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of a canonical batch, padding included where blocks compute it: a number of many divisors, to which texts are padded.
CANONICAL_TOKENS = 480
_WIDTHS = tuple(width for width in range(8, CANONICAL_TOKENS + 1) if CANONICAL_TOKENS % width == 0)
_PACKED_WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 240)  # fewer, since padding costs attention alone


@dataclass(frozen=True)
class Cut:
    """Where the frozen prefix ends.

    Attributes:
        blocks: how many leading blocks are frozen.
        pooled: whether all of the backbone is frozen, so that the pooled vector itself can be kept.
    """

    blocks: int
    pooled: bool

    def __bool__(self) -> bool:
        return self.blocks > 0


NOTHING = Cut(0, False)


def find_cut(view: View, *, changes_inputs: bool = False) -> Cut:
    """The frozen prefix of a prepared view: the leading blocks in which nothing trains and nothing was put or changed.

    There is none where something below the first block trains or is not the base's, where a strategy changes what
    enters the blocks or trains anything outside backbone and head, or where the architecture cannot start at a middle
    block (then only an all-frozen backbone is kept).
    """
    cut = _frozen(view, changes_inputs)
    return cut if cut.pooled or view.architecture.resumable else NOTHING


def why_no_cut(view: View, *, changes_inputs: bool = False) -> str | None:
    """A sentence for people where frozen blocks are there and cannot be kept; None elsewhere."""
    if find_cut(view, changes_inputs=changes_inputs) or not (blocks := _frozen(view, changes_inputs).blocks):
        return None
    return (
        f"A {view.architecture.model_type} backbone cannot start at a middle block, so its {blocks} frozen blocks are "
        "computed again in every epoch."
    )


def _frozen(view: View, changes_inputs: bool) -> Cut:
    """What is the base's own and nothing trains in, whether or not the architecture can go on from there."""
    blocks, own = view.blocks, Originals(view)
    ends = [module for module in (view.final_norm, _pooler(view)) if module is not None]
    within = {id(module) for part in (blocks, *ends) for module in part.modules()}
    rest = [module for module in view.backbone.modules() if id(module) not in within]
    trains = {id(p) for p in view.parameters() if p.requires_grad}
    trains -= {id(p) for part in (blocks, view.head, *ends) for p in part.parameters()}
    if changes_inputs or view.front is not None or trains or not all(own.keep_itself(module) for module in rest):
        return NOTHING
    frozen = 0
    while frozen < len(blocks) and own.keep(blocks[frozen]):
        frozen += 1
    whole = frozen == len(blocks) == len(view.original_blocks) and all(own.keep(end) for end in ends)
    # What a strategy puts beside backbone and head may stand before the head.
    beside = any(name not in ("backbone", "head") for name, _ in view.named_children())
    return Cut(frozen, pooled=whole and not beside)


def _pooler(view: View) -> nn.Module | None:
    pooler = getattr(view.backbone, "pooler", None)
    return pooler if isinstance(pooler, nn.Module) else None


def held_bytes(base: Base, cut: Cut, parts: Iterable[Tokens]) -> int:
    """How many bytes the states of some parts take at most."""
    vectors = sum(len(tokens) if cut.pooled else int(tokens.lengths.sum()) for tokens in parts)
    return vectors * int(base.config.hidden_size) * 4


class Skipped(nn.Module):
    """Stands in for a block below the cut; the first of them hands in the kept states."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.attention_type: Any = getattr(block, "attention_type", None)  # ModernBERT asks its blocks for it.
        self.states: Tensor | None = None

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """What came in, or the kept states: (B, T, D) -> (B, T, D)."""
        return hidden_states if self.states is None else self.states


def skip_prefix(view: View, cut: Cut) -> None:
    """Take the blocks below the cut out of ``view``, weights and all: it can only `resume` from now on."""
    for index in range(cut.blocks):
        view.blocks[index] = Skipped(view.blocks[index])


def resume(view: View, states: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The head's inputs from kept states of a view without its prefix: (B, T, D), (B, T), (B, T) -> (B, D)."""
    entrance = view.blocks[0]
    assert isinstance(entrance, Skipped)
    entrance.states = states
    try:
        return view.vectors(input_ids, attention_mask)
    finally:
        entrance.states = None


def canonical_width(length: int, limit: int | None = None, *, packed: bool = False) -> int:
    """The padded length of a canonical batch for texts of ``length`` tokens.

    Without packing it is a divisor of `CANONICAL_TOKENS`, so products of matrices have the same number of rows in every
    batch, and kernels are made for one shape. Longer texts stand alone, padded in steps of half of that. The width is
    more than ``length``, so that every row has padding and the attention always runs with a mask: a kernel without one
    gives other last bits. A text of ``limit`` tokens, all the positions there are, is the exception.
    """
    step = CANONICAL_TOKENS // 2
    widths = _PACKED_WIDTHS if packed else _WIDTHS
    width = next((width for width in widths if width > length), (length // step + 1) * step)
    return width if limit is None else min(width, limit)


def canonical_batches(
    lengths: NDArray[np.int64], rows: NDArray[np.int64], limit: int | None = None, *, packed: bool = False
) -> Iterator[tuple[NDArray[np.int64], int, int]]:
    """(rows, batch size, padded length) of each canonical batch: the shape depends on the texts' lengths only."""
    widths = np.array([canonical_width(int(length), limit, packed=packed) for length in lengths[rows]], dtype=np.int64)
    full = widths <= lengths[rows]
    for width, without_padding in sorted(set(zip(widths.tolist(), full.tolist(), strict=True))):
        members = rows[(widths == width) & (full == without_padding)]
        if packed and packs(width) and not without_padding:
            shortest = max((each for each in _PACKED_WIDTHS if each < width), default=width // 2)
            size = CANONICAL_TOKENS // shortest
            for bin_ in _bins(lengths, members, size):
                yield bin_, size, width
        else:
            size = max(1, CANONICAL_TOKENS // width)
            for start in range(0, len(members), size):
                yield members[start : start + size], size, width


def packs(width: int) -> bool:
    """Whether canonical batches of this width are filled by tokens, where blocks can leave padding out."""
    return width <= _PACKED_WIDTHS[-1]


def _bins(lengths: NDArray[np.int64], rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """``rows`` in parts of at most ``size`` texts with at most `CANONICAL_TOKENS` tokens."""
    start = tokens = 0
    for end, row in enumerate(rows):
        tokens += int(lengths[row])
        if end - start == size or tokens > CANONICAL_TOKENS:
            yield rows[start:end]
            start, tokens = end, int(lengths[row])
    yield rows[start:]


def chunk_threads() -> int:
    """The largest power of two among the threads there are."""
    return 1 << (torch.get_num_threads().bit_length() - 1)


@contextmanager
def whole_chunks() -> Iterator[None]:
    """Threads among which an elementwise operation is cut at whole vectors.

    Between three threads it may be cut inside one, whose numbers then go through other instructions with other last
    bits (SiLU, the tanh form of GELU): a text at the cut would depend on its place in the batch.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(chunk_threads())
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def compute_states(
    base: Base,
    pooling: str,
    cut: Cut,
    precision: str,
    tokens: Tokens,
    rows: NDArray[np.int64],
    keep: Callable[[int, Tensor, float], None],
) -> None:
    """Compute the states of ``rows``, in the order of canonical batches.

    Args:
        base: the base.
        pooling: of the view that will go on from the states; it matters where the pooled vector is kept.
        cut: where the prefix ends.
        precision: "fp32" or "bf16".
        tokens: the encoded texts.
        rows: which of them.
        keep: called once for each of them with the row, its state (T, D), or (D,) where the pooled vector is kept,
            on the CPU and its own, and the seconds it took.
    """
    view = unprompted(base).view(1, pooling)
    given, packed = Given(), False
    # Where oneDNN multiplies fp32 it is no faster; by MKL with AVX2 it is.
    if base.device.type == "cpu" and (precision == "bf16" or onednn() is None):
        packed = fuse_blocks(Tuned(HeadOnly(), view), precision, given) == len(view.blocks)
    quicken(view.blocks)
    cast_frozen(view, precision)
    set_attention(view, FUSED)
    if not cut.pooled:
        _cut_off(view, cut)
    limit = position_limit(base.config)
    with whole_chunks(), torch.inference_mode(False), torch.no_grad(), autocast(precision, base.device):
        for members, size, width in canonical_batches(tokens.lengths, rows, limit, packed=packed):
            started = time.perf_counter()
            filled = np.resize(members, size)  # Repeats the texts up to the canonical number of rows.
            batch = collate(tokens.ids, filled, width=width).to(base.device)
            if packed:
                given.packing = _packing(batch, len(members))
            hidden = view.hidden(batch.input_ids, batch.attention_mask)  # (B, T, D)
            if cut.pooled:
                with torch.autocast(hidden.device.type, enabled=False):
                    hidden = view.pooled(hidden.float(), batch.attention_mask)  # (B, D)
            hidden = hidden.cpu()
            share = (time.perf_counter() - started) / len(members)
            for index, row in enumerate(members):
                state = hidden[index] if cut.pooled else hidden[index, : len(tokens.ids[row])]
                keep(int(row), state.clone(), share)


def _packing(batch: Batch, members: int) -> Packing | None:
    """The packing of a canonical batch whose first ``members`` texts count; None where it is not filled by tokens."""
    if not packs(batch.input_ids.shape[1]) or bool(batch.attention_mask.all()):
        return None
    real = batch.attention_mask.bool()
    real[members:] = False
    return packing(real, CANONICAL_TOKENS)


def _cut_off(view: View, cut: Cut) -> None:
    """Make ``view.hidden`` return the states behind the first ``cut.blocks`` blocks."""
    owner, _, name = view.architecture.blocks.rpartition(".")
    setattr(view.backbone.get_submodule(owner), name, nn.ModuleList(list(view.blocks)[: cut.blocks]))
    for path in (view.architecture.final_norm, view.architecture.projection):
        if path is not None:
            owner, _, name = path.rpartition(".")
            setattr(view.backbone.get_submodule(owner), name, nn.Identity())
