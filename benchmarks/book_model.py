"""The classifier that a row of the book's table asks for: what it reads, pools and attends to, and what of it trains.

From lora_clf come the view, the strategies, the precision, and that what is frozen below everything that trains is
computed once. What the library refuses by design is done here: padding that is pooled and attended to, the other mask.
Padding that nothing can see is not computed. Shapes: B batch, T tokens, D width, C classes.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from book_rows import Row
from torch import Tensor, nn

from lora_clf.base.base import Base, position_limit
from lora_clf.base.pooling import pool
from lora_clf.base.view import View
from lora_clf.errors import UnsupportedBaseError
from lora_clf.inference.attention import choose_attention
from lora_clf.inference.precision import autocast, cast_frozen
from lora_clf.inference.prefix import NOTHING, Skipped, find_cut, skip_prefix
from lora_clf.tuners import create
from lora_clf.tuners.base import Tuner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.data.dataset import Dataset

EVALUATED = 32  # texts a batch without gradients
KEPT = 5_000_000_000  # bytes of kept states; beyond that the frozen part runs again in every epoch
RANK = 16


def strategy(row: Row) -> Tuner:
    """The strategy that trains what the row says."""
    if row.trains == "lora":
        return create("lora-scratch", rank=RANK, alpha=row.scaling * RANK, targets="all")
    if row.trains == "last two blocks":
        return create("last-block", blocks=2)
    return create({"head": "head-only", "last block": "last-block", "all": "full"}[row.trains])


def redrawn(base: Base, seed: int) -> Base:
    """The same architecture with the weights that torch gives new layers, as the book's random model has them.

    Embeddings are normal with deviation 1, matrices and their biases uniform within 1 / sqrt(inputs), norms one.

    Raises:
        UnsupportedBaseError: the architecture has parameters of another kind.
    """
    backbone = copy.deepcopy(base.backbone)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, module in backbone.named_modules():
            own = dict(module.named_parameters(recurse=False))
            weight = own.get("weight")
            if not own or weight is None:
                odd = list(own)
            elif isinstance(module, nn.Embedding):
                weight.copy_(torch.randn(weight.shape, generator=generator))
                odd = []
            elif weight.ndim == 2:
                inputs = weight.shape[1] if isinstance(module, nn.Linear) else weight.shape[0]  # Conv1D: (in, out)
                for parameter in own.values():
                    drawn = torch.rand(parameter.shape, generator=generator) * 2 - 1
                    parameter.copy_(drawn / inputs**0.5)
                odd = []
            else:
                weight.fill_(1.0)
                if "bias" in own:
                    own["bias"].zero_()
                odd = sorted(own.keys() - {"weight", "bias"})
            if odd:
                raise UnsupportedBaseError(f"{base.name} cannot be drawn anew: {path} has {', '.join(odd)}.")
    return replace(base, backbone=backbone, digest=f"{base.digest}/random/{seed}")


@dataclass
class Kept:
    """States of frozen layers, of one kind at a time: other seeds and rows that want the same start there."""

    key: object = None
    states: dict[str, list[Tensor | None]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, key: object, sizes: dict[str, int]) -> Kept:
        """This store, emptied if it held another kind."""
        if key != self.key:
            self.key = key
            self.states = {part: [None] * count for part, count in sizes.items()}
            self.seconds = dict.fromkeys(sizes, 0.0)
        return self


class Texts:
    """The token ids of all parts as a row wants them, and the width that they are padded to."""

    def __init__(self, base: Base, data: Dataset, settings: dict[str, Any]) -> None:
        limit = position_limit(base.config) or base.max_length
        self.longest = int(base.encode(data.train.texts, limit).lengths.max())
        cap = self.longest if settings["longest"] == "training" else limit
        self.ids = {name: base.encode(part.texts, cap).ids for name, part in data.parts.items()}
        self.lengths = {name: np.array([len(ids) for ids in rows]) for name, rows in self.ids.items()}
        self.labels = {name: torch.from_numpy(data.label_ids(part)) for name, part in data.parts.items()}
        self.width = None if settings["padding"] == "batch" else cap
        self.pad_id = base.tokenizer.pad_id

    def collated(self, part: str, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Ids, padded on the right, and how many are text: (B, T), (B,)."""
        lengths = self.lengths[part][rows]
        ids = np.full((len(rows), self.width or int(lengths.max())), self.pad_id, dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : lengths[place]] = self.ids[part][row]
        return torch.from_numpy(ids), torch.from_numpy(lengths)


class Classifier:
    """A view that reads, pools and attends as the row says.

    Attributes:
        view: what trains, prepared by the row's strategy.
        trained: how many numbers train.
        cut: what is frozen below everything that trains, and kept.
    """

    def __init__(
        self, base: Base, data: Dataset, row: Row, seed: int, precision: str, kept: Kept | None = None
    ) -> None:
        self.settings = row.computation(base.architecture.causal)
        self.row, self.precision, self.device = row, precision, base.device
        self.texts = Texts(base, data, self.settings)
        tuned = strategy(row).prepare(base.view(len(data.labels), row.pooling, seed))
        self.view: View = tuned.view
        self.trained = tuned.trainable_parameters
        self.parameters = list(tuned.trainable().values())
        self.causal = base.architecture.causal != row.flipped
        self.cut = find_cut(self.view) if self._keepable(base) else NOTHING
        names = ("padding", "hidden", "longest", "flipped")
        pooling = (row.pooling, self.settings["slots"]) if self.cut.pooled else None
        key = (base.digest, self.cut, precision, *(self.settings[name] for name in names), pooling)
        self.kept = (kept or Kept()).of(key, {name: len(rows) for name, rows in self.texts.ids.items()})
        cast_frozen(self.view, precision)

    def _keepable(self, base: Base) -> bool:
        """Whether a state is a function of its text alone, and all of them fit into memory."""
        if self.settings["padding"] == "batch" and not self.settings["hidden"]:
            return False
        width = self.texts.width
        tokens = sum(len(rows) * width if width else int(rows.sum()) for rows in self.texts.lengths.values())
        return self.row.trains == "head" or tokens * int(base.config.hidden_size) * 4 <= KEPT

    def attention(self, lengths: Tensor, width: int) -> Tensor:
        """What each token may look at: (B, T) for a mask of the base's own kind, else (B, 1, T, T) to be added."""
        real = torch.arange(width)[None] < lengths[:, None]  # (B, T)
        if not self.settings["hidden"]:
            real = torch.ones_like(real)
        if not self.row.flipped:
            return real.long()
        seen = real[:, None, None, :].expand(-1, 1, width, -1)
        if self.causal:
            seen = seen & torch.ones(width, width, dtype=torch.bool).tril()
        return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.bfloat16).min)

    def pooled(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """One vector a text, of slots or of text: (B, T, D), (B,) -> (B, D)."""
        reach = torch.full_like(lengths, hidden.shape[1]) if self.settings["slots"] else lengths
        mask = (torch.arange(hidden.shape[1])[None] < reach[:, None]).long().to(hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            return pool(hidden.float(), mask, self.row.pooling)

    def hidden(self, ids: Tensor, lengths: Tensor, training: bool) -> Tensor:
        """The last hidden states: (B, T), (B,) -> (B, T, D)."""
        choose_attention(self.view, ids.shape[1], training=training)
        mask = self.attention(lengths, ids.shape[1])
        with autocast(self.precision, self.device):
            return self.view.hidden(ids.to(self.device), mask.to(self.device))

    def keep(self, part: str, rows: NDArray[np.int64]) -> None:
        """Compute the states of ``rows`` that are not there yet; nothing where nothing is kept."""
        if not self.cut:
            return
        held = self.kept.states[part]
        missing = np.array([row for row in rows if held[row] is None], dtype=np.int64)
        missing = missing[np.argsort(self.texts.lengths[part][missing], kind="stable")]
        started = time.perf_counter()
        below: list[Tensor] = []
        block = self.view.blocks[self.cut.blocks - 1]

        def note(_module: nn.Module, _inputs: object, output: Any) -> None:
            below[:] = [output[0] if isinstance(output, tuple) else output]

        hook = block.register_forward_hook(note)
        with torch.no_grad():
            for start in range(0, len(missing), EVALUATED):
                chosen = missing[start : start + EVALUATED]
                ids, lengths = self.texts.collated(part, chosen)
                hidden = self.hidden(ids, lengths, training=False)
                states = self.pooled(hidden, lengths) if self.cut.pooled else below[0].float()
                for place, row in enumerate(chosen):
                    text = states[place] if self.cut.pooled or self.texts.width else states[place, : lengths[place]]
                    held[row] = text.cpu().clone()
        hook.remove()
        self.kept.seconds[part] += time.perf_counter() - started

    def start_above(self) -> None:
        """Leave out the frozen blocks from now on: `keep` is done."""
        if self.cut and not self.cut.pooled:
            skip_prefix(self.view, self.cut)

    def logits(self, part: str, rows: NDArray[np.int64], *, training: bool) -> Tensor:
        """The logits of some rows of a part: (B, C)."""
        ids, lengths = self.texts.collated(part, rows)
        if not self.cut:
            pooled = self.pooled(self.hidden(ids, lengths, training), lengths)
        else:
            states = [state for row in rows if (state := self.kept.states[part][row]) is not None]
            if self.cut.pooled:
                pooled = torch.stack(states).to(self.device)
            else:
                entrance = self.view.blocks[0]
                assert isinstance(entrance, Skipped)
                entrance.states = nn.utils.rnn.pad_sequence(states, batch_first=True).to(self.device)
                pooled = self.pooled(self.hidden(ids, lengths, training), lengths)
        found: Tensor = self.view.head(pooled)
        return found

    def scored(self, part: str) -> tuple[Tensor, float]:
        """Which rows of a part are right (N,), and its mean loss."""
        lengths = self.texts.lengths[part]
        by_length = self.settings["padding"] == "batch" and self.settings["hidden"]
        order = np.argsort(lengths, kind="stable") if by_length else np.arange(len(lengths))
        size = EVALUATED if by_length or self.texts.width else self.row.batch_size  # else the neighbours matter
        answers = torch.zeros(len(lengths), self.view.classes)
        with torch.no_grad():
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                answers[rows] = self.logits(part, rows, training=False).float().cpu()
        labels = self.texts.labels[part]
        return answers.argmax(1) == labels, float(nn.functional.cross_entropy(answers, labels))
