"""The kept states of the frozen prefix: in memory up to a budget, and on disk for the next program.

Whoever asks gets the same bytes, whether a state is computed now, was kept in memory by another run, or comes from the
disk (`lora_clf.inference.prefix` says why). States that are too large for the memory stay in their files, mapped into
it.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from lora_clf.base.base import Base, position_limit
from lora_clf.base.source import rooms, source_of
from lora_clf.base.tokenizer import Tokens
from lora_clf.inference.attention import FUSED
from lora_clf.inference.prefix import CANONICAL_TOKENS, Cut, chunk_threads, compute_states, held_bytes
from lora_clf.inference.state_file import KEY_BYTES, Kept, file_bytes
from lora_clf.inference.state_folder import StateFolder, canonical, state_folder
from lora_clf.inference.switches import machine

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUDGET = 2 << 30  # bytes of states kept in memory for one base


class States:
    """The kept states of some texts: (T, D) for each text, or (D,) where the pooled vector is kept.

    Attributes:
        rows: one state a text.
        seconds: what computing all of them takes, whoever did and whenever.
    """

    def __init__(self, rows: list[Tensor], seconds: float) -> None:
        self.rows = rows
        self.seconds = seconds

    def gather(self, rows: NDArray[np.int64], tokens: int, device: torch.device, texts: int = 0) -> Tensor:
        """The states of a batch, padded with zeros, also to ``texts`` of them: (B, T, D), or (B, D)."""
        chosen = [self.rows[row] for row in rows]
        if chosen[0].ndim == 1:
            return torch.stack(chosen).to(device)
        out: Tensor = chosen[0].new_zeros(max(len(chosen), texts), tokens, chosen[0].shape[1])
        for index, state in enumerate(chosen):
            out[index, : len(state)] = state
        return out.to(device)


class PrefixCache:
    """The kept states of one base: in memory, least recently used first out, and on disk.

    Shared by all runs on the base in this program; safe to use from several threads.

    Attributes:
        budget: bytes kept in memory.
        bytes: how many there are now.
    """

    def __init__(self, budget: int = BUDGET, disk: Callable[[], StateFolder | None] = lambda: None) -> None:
        self.budget = budget
        self.bytes = 0
        self._disk = disk
        self._entries: OrderedDict[bytes, Kept] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything that is in memory."""
        with self._lock:
            self._entries.clear()
            self.bytes = 0

    def parts(
        self, base: Base, pooling: str, cut: Cut, precision: str, parts: Mapping[str, Tokens]
    ) -> dict[str, States] | None:
        """The states of every part of a data set; None where they fit neither into memory nor on the disk.

        Args:
            base: the base.
            pooling: of the view that will go on from the states; it matters where the pooled vector is kept.
            cut: where the prefix ends.
            precision: "fp32" or "bf16".
            parts: the encoded texts of each.
        """
        # All at once, so that few canonical batches have to be filled up.
        whole = Tokens(
            [ids for tokens in parts.values() for ids in tokens.ids],
            np.concatenate([tokens.truncated for tokens in parts.values()]),
        )
        wanted = _Wanted(base, pooling, cut, precision, whole)
        if held_bytes(base, cut, [whole]) <= self.budget:
            kept = self._in_memory(wanted)
        else:
            disk = self._disk()
            if disk is None or (mapped := wanted.mapped(disk)) is None:
                return None
            kept = mapped
        found, start = {}, 0
        for name, tokens in parts.items():
            found[name] = wanted.states(kept, slice(start, start + len(tokens)))
            start += len(tokens)
        return found

    def states(self, base: Base, pooling: str, cut: Cut, precision: str, tokens: Tokens) -> States:
        """The states of ``tokens`` at ``cut`` in memory: those that are kept, and the others computed now.

        The arguments are those of `parts`.
        """
        wanted = _Wanted(base, pooling, cut, precision, tokens)
        return wanted.states(self._in_memory(wanted))

    def _in_memory(self, wanted: _Wanted) -> dict[bytes, Kept]:
        with self._lock:
            found = {key: self._entries[key] for key in wanted.rows if key in self._entries}
            for key in found:
                self._entries.move_to_end(key)
        missing = wanted.beside(found)
        new: dict[bytes, Kept] = {}
        disk = self._disk() if missing else None
        if disk is not None:
            new = disk.find(wanted.facts, set(missing), mapped=False)
        wanted.compute(wanted.beside(found | new), disk, new)
        # In the order of the texts, wherever a state came from, so that the same ones go first.
        self._keep({key: new[key] for key in missing})
        return found | new

    def _keep(self, new: dict[bytes, Kept]) -> None:
        with self._lock:
            for key, entry in new.items():
                if key not in self._entries:
                    self._entries[key] = entry
                    self.bytes += entry[0].nbytes
            while self.bytes > self.budget and self._entries:
                _, (state, _) = self._entries.popitem(last=False)
                self.bytes -= state.nbytes


_CACHES: WeakKeyDictionary[Base, PrefixCache] = WeakKeyDictionary()


def prefix_cache(base: Base) -> PrefixCache:
    """The one cache of ``base`` in this program."""
    return _CACHES.setdefault(base, PrefixCache(disk=state_folder))


def too_large(base: Base, cut: Cut, parts: Mapping[str, Tokens]) -> str:
    """A sentence for people about states that fit nowhere."""
    size, memory = _size(base, cut, *parts.values()), prefix_cache(base).budget
    disk = state_folder()
    room = 0 if disk is None else disk.room()
    return (
        f"What is frozen would take {size / 1e9:.1f} GB to keep, more than the {memory / 1e9:.1f} GB of memory and the "
        f"{room / 1e9:.1f} GB of disk that it may take (--cache-size), so it is computed again in every epoch."
    )


def facts_of(base: Base, pooling: str, cut: Cut, precision: str) -> dict[str, Any]:
    """All that decides a state besides the text's ids: base, cut, precision, kernel, code, versions, machine."""
    return {
        "base": base.name,  # for people; its digest decides
        "base_digest": base.digest,
        "positions": position_limit(base.config),
        "blocks": cut.blocks,
        "pooled": pooling if cut.pooled else None,
        "precision": precision,
        "kernel": FUSED,
        "batch_tokens": CANONICAL_TOKENS,
        "threads": chunk_threads(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "code": code_digest(),
        "machine": machine(base.device),
    }


@lru_cache(maxsize=1)
def code_digest() -> str:
    """A digest of the code that states come from: another version of it reads none that this one wrote."""
    return hashlib.blake2b(source_of(rooms("base", "inference")), digest_size=16).hexdigest()


class _Wanted:
    """The states that someone wants: of these texts, at this cut."""

    def __init__(self, base: Base, pooling: str, cut: Cut, precision: str, tokens: Tokens) -> None:
        self.base, self.pooling, self.cut, self.precision, self.tokens = base, pooling, cut, precision, tokens
        self.facts = facts_of(base, pooling, cut, precision)
        kind = hashlib.blake2b(canonical(self.facts)).digest()
        self.keys = [hashlib.blake2b(i.tobytes(), key=kind, digest_size=KEY_BYTES).digest() for i in tokens.ids]
        self.rows = {key: row for row, key in enumerate(self.keys)}  # equal texts once

    def beside(self, found: Mapping[bytes, Kept]) -> list[bytes]:
        """The keys of those that are not in ``found``, in the order of the texts."""
        return [key for key in self.rows if key not in found]

    def states(self, found: Mapping[bytes, Kept], places: slice = slice(None)) -> States:
        """The states of the texts at ``places``, all of which are in ``found``."""
        keys = self.keys[places]
        return States([found[key][0] for key in keys], math.fsum(found[key][1] for key in dict.fromkeys(keys)))

    def mapped(self, disk: StateFolder) -> dict[bytes, Kept] | None:
        """All of them, left in their files; None where the disk does not keep them after all."""
        found = disk.find(self.facts, set(self.rows), mapped=True)
        if missing := self.beside(found):
            if _size(self.base, self.cut, self.tokens) > disk.room():  # what is there would go for what is missing
                return None
            self.compute(missing, disk, None)
            found |= disk.find(self.facts, set(missing), mapped=True)
        return None if self.beside(found) else found

    def compute(self, keys: list[bytes], disk: StateFolder | None, memory: dict[bytes, Kept] | None) -> None:
        """Compute the states of ``keys`` into ``memory`` and onto ``disk``, those of the two that there are."""
        if not keys:
            return
        rows = np.array([self.rows[key] for key in keys])
        part = Tokens([self.tokens.ids[row] for row in rows], self.tokens.truncated[rows])
        vectors = len(part) if self.cut.pooled else int(part.lengths.sum())
        size = _size(self.base, self.cut, part)
        writer = None if disk is None else disk.writer(self.facts, len(part), vectors, size)

        def keep(row: int, state: Tensor, seconds: float) -> None:
            if memory is not None:
                memory[keys[row]] = state, seconds
            if writer is not None:
                writer.add(keys[row], state, seconds)

        if writer is None and memory is None:
            return
        try:
            compute_states(self.base, self.pooling, self.cut, self.precision, part, np.arange(len(part)), keep)
        except BaseException:
            if writer is not None:
                writer.finish_early()  # who comes next goes on from there
            raise
        if writer is not None:
            writer.finish()


def _size(base: Base, cut: Cut, *parts: Tokens) -> int:
    """How many bytes the files of some parts take at most."""
    return sum(file_bytes(len(part), held_bytes(base, cut, [part]) // 4) for part in parts)
