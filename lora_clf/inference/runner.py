"""Running a prepared view over encoded texts: from kept prefix states where there are any, from ids elsewhere.

Texts of a batch that are the same, token by token, run once: their gradients add up to what each by itself would add.

Shapes: B batch, T tokens, D width, C classes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lora_clf.base.base import Base, position_limit
from lora_clf.base.combiner import ChunkHead
from lora_clf.base.documents import Documents
from lora_clf.base.tokenizer import Tokens
from lora_clf.inference import heap
from lora_clf.inference.attention import EAGER_TOKENS, choose_attention
from lora_clf.inference.batches import collate, inference_rows, padded_lengths, split_rows
from lora_clf.inference.cache import PrefixCache, States, prefix_cache, too_large
from lora_clf.inference.documents import join, padded
from lora_clf.inference.encoder_block import fuse_blocks
from lora_clf.inference.one_position import last_block_for, masked, pool_last_block
from lora_clf.inference.padding import Packer
from lora_clf.inference.precision import autocast, cast_frozen
from lora_clf.inference.predict import BATCH_TOKENS, CPU_BATCH_TOKENS, answers
from lora_clf.inference.prefix import NOTHING, Cut, find_cut, resume, skip_prefix, why_no_cut
from lora_clf.inference.products import quicken
from lora_clf.tuners.base import Tuned

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Batches are padded to a multiple: a new shape costs a CPU's matrix library more time than some padding, and memory.
WIDTHS = 4
PACKED_WIDTHS = 8  # where padding costs attention alone
GPU_WIDTHS = 8  # tensor cores multiply in tiles
TRAINED_TOKENS = 1536  # that a CPU keeps for the backward pass at once: what it needs is most of the memory of a run
TRAINED_TOKENS_A_TEXT, MOST_TRAINED_TOKENS = 64, 4096  # more of larger batches, up to a bound whatever their size


def _kept_tokens(rows: NDArray[np.int64]) -> int:
    """How many tokens of a batch a CPU keeps for the backward pass at once, padding included."""
    return min(max(TRAINED_TOKENS, TRAINED_TOKENS_A_TEXT * len(rows)), MOST_TRAINED_TOKENS)


class Runner:
    """A prepared view and the texts it runs over.

    With a frozen prefix the view loses the blocks below the cut: it belongs to this runner from then on, and the
    trained state leaves through `Tuned.state_dict`.

    Attributes:
        cut: where the frozen prefix ends.
        warnings: what a person should know: a prefix that is computed again and again.
        softmax: whether a softmax makes probabilities of logits.
        prefix_seconds: what computing the prefix of each part takes, whoever did it.
    """

    def __init__(
        self,
        base: Base,
        tuned: Tuned,
        precision: str,
        tokens: Mapping[str, Tokens],
        *,
        cache: bool = True,
        softmax: bool = True,
    ) -> None:
        self.view = tuned.view
        self.softmax = softmax
        self.precision = precision
        self.device = base.device
        self.tokens = dict(tokens)
        self._alike = not self.view.drops  # equal texts have equal vectors, in training too
        changed = tuned.tuner.changes_inputs
        self.cut: Cut = find_cut(self.view, changes_inputs=changed)
        refused = why_no_cut(self.view, changes_inputs=changed) if cache else None
        if not cache and not self.cut.pooled:
            self.cut = NOTHING
        self._states: dict[str, States] = {}
        if self.cut:
            wanted = (base, self.view.pooling, self.cut, precision, tokens)
            kept = prefix_cache(base).parts(*wanted) if cache else None
            if kept is None and self.cut.pooled:  # a vector a text: this run alone holds them, in memory
                kept = PrefixCache(budget=sys.maxsize).parts(*wanted)
            if kept is None:
                refused, self.cut = too_large(base, self.cut, tokens), NOTHING
            else:
                self._states = kept
        self.warnings: tuple[str, ...] = (refused,) if refused else ()
        self.prefix_seconds = {name: states.seconds for name, states in self._states.items()}
        cast_frozen(self.view, precision)
        if self.cut and not self.cut.pooled:
            skip_prefix(self.view, self.cut)
        self._limit, self._widths = position_limit(base.config) or sys.maxsize, GPU_WIDTHS
        self._packed = 0  # tokens of a text up to which every block that runs leaves padding out
        if self.device.type == "cpu":
            heap.keep_blocks()
        if self.device.type == "cpu" and not self.cut.pooled:  # else no block is ever run
            widths = (padded_lengths(each.lengths, PACKED_WIDTHS, self._limit) for each in tokens.values())
            longest = max(int(each.max(initial=0)) for each in widths) + tuned.tuner.extra_tokens
            whole = last_block_for(self.view, self.view.head.pooling) is None
            fused = fuse_blocks(tuned, precision, Packer(), longest, last=whole)
            self._widths = PACKED_WIDTHS if fused else WIDTHS
            if fused == len(self.view.blocks) - self.cut.blocks:
                self._packed = EAGER_TOKENS - tuned.tuner.extra_tokens
            quicken(self.view.blocks)
            heap.release()  # of weights in forms that nothing reads any more
        self._last = None if self.cut.pooled else pool_last_block(self.view)

    def only(self, parts: Sequence[str]) -> Runner:
        """The same for some of the parts: it holds nothing of the others."""
        some = copy(self)
        some.tokens = {name: self.tokens[name] for name in parts}
        some._states = {name: states for name, states in self._states.items() if name in parts}
        return some

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row of the training part: of each text where chunks are combined, else of each chunk."""
        tokens = self.tokens["train"]
        return tokens.lengths if self.view.combine is None else tokens.text_lengths

    @property
    def firsts(self) -> NDArray[np.int64] | None:
        """The first row of the training part with the same ids as each (N,); None where chunks are combined.

        Whether or not copies are computed once: strategies that are compared take their rows in one order.
        """
        return self.tokens["train"].firsts if self.view.combine is None else None

    def owners(self, part: str) -> NDArray[np.int64] | None:
        """The text that each row of a part is a chunk of; None where rows are texts."""
        tokens = self.tokens[part]
        return tokens.owners if isinstance(tokens, Documents) and self.view.combine is None else None

    def split(self, rows: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
        """A training batch in parts that go through one after the other, where its texts are long for a CPU."""
        if self.device.type != "cpu" or self.cut.pooled:
            return [rows]
        if self.view.combine is not None or not self._alike:
            return split_rows(rows, self.lengths, _kept_tokens(rows))
        distinct, which = self._distinct("train", rows)
        parts = split_rows(np.arange(len(distinct)), self.lengths[distinct], _kept_tokens(rows))
        return [rows] if len(parts) == 1 else [rows[np.isin(which, part)] for part in parts]

    @property
    def _at_end(self) -> bool:
        """Whether kept states go straight into the last block, which asks for nothing but them and where texts end."""
        alone = bool(self.cut) and self._last is not None and self._last.alone
        return alone and self.cut.blocks == len(self.view.blocks) - 1

    def logits(self, part: str, rows: NDArray[np.int64], *, training: bool) -> Tensor:
        """The logits of some rows of a part, with gradients where they are asked for: (B, C) in fp32."""
        if self.view.combine is not None:
            return self._combined(part, rows, training=training)
        pooled = self.cut.pooled
        vectors = self._kept(part, rows) if pooled else self._of_each(part, rows, training=training)  # (B, D)
        with torch.autocast(self.device.type, enabled=False):
            logits: Tensor = self.view.head(vectors)
        return logits

    def _kept(self, part: str, rows: NDArray[np.int64]) -> Tensor:
        """The kept pooled vectors of some rows: (B, D)."""
        return self._states[part].gather(rows, 0, self.device).float()

    def _of_each(self, part: str, rows: NDArray[np.int64], *, training: bool) -> Tensor:
        """The head's inputs for some rows, equal texts among them computed once: (B, D)."""
        distinct, which = self._distinct(part, rows) if self._alike else (rows, rows)
        if len(distinct) == len(rows):
            return self._vectors(part, rows, training=training)
        width = int(self.tokens[part].lengths[rows].max()) + self._widths
        # Texts of one token cost less than the memory of another shape, where padding is left out.
        fills = width <= self._packed and width * len(rows) <= _kept_tokens(rows)
        vectors = self._vectors(part, distinct, training=training, texts=len(rows) if fills else 0)
        places = torch.from_numpy(which).to(self.device)
        # Gradients are added up in the order of the rows: each device has its own operator that does so.
        return vectors.index_select(0, places) if vectors.is_cpu else vectors[places]

    def _distinct(self, part: str, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Some rows without copies, in their order (M,), and which of these each of them is (B,)."""
        _, first, which = np.unique(self.tokens[part].firsts[rows], return_index=True, return_inverse=True)
        order = np.argsort(first)
        return rows[first[order]], np.argsort(order)[which]

    def _vectors(self, part: str, rows: NDArray[np.int64], *, training: bool, texts: int = 0) -> Tensor:
        """The head's inputs for some rows, from their ids or from kept states, padded to ``texts``: (B, D)."""
        lengths = self.tokens[part].lengths[rows]
        width = int(padded_lengths(lengths, self._widths, self._limit).max())
        if self._last is not None and self._at_end:
            states = self._states[part].gather(rows, width, self.device)
            mask = torch.from_numpy(np.arange(width) < lengths[:, None]).to(self.device)  # (B, T)
            with masked(self._last, mask), autocast(self.precision, self.device):
                return self.view.vectors_of_pooled(self._last.pooled(states))
        batch = collate(self.tokens[part].ids, rows, width, texts).to(self.device)
        tokens = batch.input_ids.shape[1]
        choose_attention(self.view, tokens, training=training)
        with masked(self._last, batch.attention_mask), autocast(self.precision, self.device):
            if not self.cut:
                return self.view.vectors(batch.input_ids, batch.attention_mask)
            states = self._states[part].gather(rows, tokens, self.device, texts)
            return resume(self.view, states, batch.input_ids, batch.attention_mask)

    def _combined(self, part: str, texts: NDArray[np.int64], *, training: bool) -> Tensor:
        """The logits of some texts by the head over their chunks: (B, C).

        Of the chunks' forward passes only the vectors are kept: each small batch is run again for its gradients, so
        that a text of any length takes the memory of one batch.
        """
        documents, head = self.tokens[part], self.view.head
        assert isinstance(documents, Documents) and isinstance(head, ChunkHead)
        chunks = documents.rows_of(texts)
        if self.cut.pooled:
            vectors = self._kept(part, chunks)
        else:
            batches = inference_rows(documents.lengths[chunks], TRAINED_TOKENS)
            parts = []
            for places in batches:
                run = partial(self._vectors, part, chunks[places], training=training)
                parts.append(checkpoint(run, use_reentrant=False) if torch.is_grad_enabled() else run())
            order = torch.from_numpy(np.argsort(np.concatenate(batches)))
            vectors = torch.cat(parts)[order.to(self.device)]
        stacked, mask = padded(vectors, documents.chunks[texts])
        with torch.autocast(self.device.type, enabled=False):
            found: Tensor = head(stacked, mask)
            return found

    def features(self, part: str) -> NDArray[np.float32] | None:
        """The kept pooled vectors of a part, where the backbone is frozen as a whole: (N, D)."""
        if not self.cut.pooled:
            return None
        stacked = torch.stack(self._states[part].rows)
        return stacked.float().numpy()

    def all_logits(self, part: str) -> NDArray[np.float32]:
        """The logits of a part in evaluation mode, texts in the part's order: (N, C)."""
        tokens = self.tokens[part]
        batch_tokens = CPU_BATCH_TOKENS if self.device.type == "cpu" else BATCH_TOKENS
        combined = self.view.combine is not None
        lengths = tokens.text_lengths if combined else tokens.lengths
        every = np.arange(len(lengths))
        distinct, which = (every, every) if combined else np.unique(tokens.firsts, return_inverse=True)
        batches = inference_rows(lengths[distinct], batch_tokens)
        run = partial(self.logits, part, training=False)
        found = answers(self.view, len(distinct), batches, lambda rows: run(distinct[rows]))[which]
        if combined or not isinstance(tokens, Documents):
            return found
        return join(found, tokens, softmax=self.softmax).logits
