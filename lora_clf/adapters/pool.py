"""Many adapters on one base: each text may go to another one, and each keeps its labels, head, length and threshold.

::

    pool = AdapterPool(base)
    pool.add("spam", "my-adapters/spam")
    pool.add("topic", "my-adapters/topic")
    pool.predict(["You won a prize", "Who wrote Hamlet?"], adapter=["spam", "topic"])
    pool.predict_all(["You won a prize"])        # {"spam": [...], "topic": [...]}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.base_check import check_base
from lora_clf.adapters.canary import SENTENCES, TOLERANCE
from lora_clf.adapters.canary import verify as verify_canaries
from lora_clf.adapters.classifier import build, check_amount, reading
from lora_clf.adapters.file import FILE_CAP, read_folder
from lora_clf.adapters.mixture import Mixture
from lora_clf.adapters.origin import adapter_folder
from lora_clf.adapters.prediction import answers
from lora_clf.adapters.questions import checked_texts, encoded, rows_by_name
from lora_clf.adapters.residency import Entry, Residency
from lora_clf.adapters.resident import Resident, Workshop
from lora_clf.errors import AdapterFormatError, UsageError
from lora_clf.inference.predict import BATCH_TOKENS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.adapters.header import Header
    from lora_clf.base.base import Base

_CANARY_TOKENS = 256  # of a batch; the long sentence goes alone


class AdapterPool:
    """Any number of adapters on one base, of any strategies, in memory as far as a budget allows.

    Choosing an adapter changes nothing: not the base, not the pool. Safe to use from several threads, while adapters
    are added and removed; an answer is always that of the adapter that had the name when it was asked for.

    Attributes:
        base: the base that all share.
        precision: "fp32", in which recorded scores were measured, or "bf16".
    """

    def __init__(
        self,
        base: Base,
        *,
        budget: int | None = None,
        precision: str = "fp32",
        verify: bool = True,
        file_cap: int = FILE_CAP,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        """Make an empty pool.

        Args:
            base: what all adapters were trained on.
            budget: bytes of adapters in memory at most. Adapters from folders are put out, the least recently used
                first, and read again when they are wanted; those from memory stay. None: no limit.
            precision: "fp32", or "bf16" or "auto": faster where the device has it, factors half as large, and the
                last bits of a text's logits then depend on the texts beside it.
            verify: whether an adapter from a folder has to give its canaries when it is added.
            file_cap: the largest file that is read, in bytes.
            batch_tokens: tokens a batch, padding included.

        Raises:
            UsageError: a budget below one byte, unknown precision, or bf16 where the device has none.
        """
        self.base = base
        self._workshop = Workshop(base, precision)
        self.precision = self._workshop.precision
        self._residency = Residency(budget)
        self._mixture = Mixture(self._workshop, batch_tokens)
        self._checking = Mixture(self._workshop, _CANARY_TOKENS)
        self._verify, self._file_cap = verify, file_cap
        self._verified: set[str] = set()  # digests of files

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters, in the order in which they were added."""
        return self._residency.names

    @property
    def resident_bytes(self) -> int:
        """Bytes that adapters take in memory now."""
        return self._residency.bytes

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __repr__(self) -> str:
        return f"AdapterPool({self.base.name!r}, {len(self)} adapters, {self.resident_bytes:,} bytes in memory)"

    def header(self, name: str) -> Header:
        """What is known about an adapter: labels, task, strategy, metrics; without the list of its tensors.

        Raises:
            UsageError: there is none of that name.
        """
        return self._residency.entry(name).header

    def add(self, name: str, adapter: Adapter | Path | str, *, verify: bool | None = None) -> None:
        """Add an adapter under a name of your own.

        Args:
            name: how it is called in this pool.
            adapter: the folder of a saved one, or its id on the Hub; or one in use (`load_adapter`, `train`), of which
                the pool takes a copy that stays in memory.
            verify: whether a saved one has to give its canaries; once for each file. None: as the pool was made.

        Raises:
            AdapterNotFoundError: there is no adapter in that folder.
            AdapterFormatError: it is not whole and unchanged, or does not compute what it did when it was saved.
            WrongBaseError: it was trained on another base or with another tokenizer.
            UsageError: the name is taken or no text, the adapter does not fit into the budget, or it reads long texts
                in chunks or cleans them.
        """
        if not isinstance(name, str) or not name:
            raise UsageError(f"The name of an adapter in a pool is {name!r}, expected a text.")
        if name in self.names:
            raise UsageError(f"The pool has an adapter named {name!r}. Remove it first, or choose another name.")
        if isinstance(adapter, Adapter):
            check_base("memory", adapter.header, self.base)
            _check_reading(name, adapter.header)
            resident = self._workshop.from_tuned(name, adapter.header, adapter.tuned)
            self._residency.add(Entry(name, _short(adapter.header), None, resident.nbytes, resident))
            return
        folder = adapter_folder(adapter, file_cap=self._file_cap).absolute()  # read again from wherever we are then
        fits = partial(check_amount, self.base)
        header, state = read_folder(folder, file_cap=self._file_cap, check=fits)
        check_base(folder, header, self.base)
        _check_reading(name, header)
        resident = self._workshop.from_state(name, header, state)
        if self._verify if verify is None else verify:
            self._check_canaries(header, resident, state)
        digest = header.digest

        def load() -> Resident:
            again, tensors = read_folder(folder, file_cap=self._file_cap, check=fits)
            if again.digest != digest:
                raise AdapterFormatError(
                    f"The adapter in {folder} is another one than was added to the pool as {name!r} (digest "
                    f"{again.digest[:12]}, it was {digest[:12]}). Remove {name!r} and add it again."
                )
            return self._workshop.from_state(name, again, tensors)

        self._residency.add(Entry(name, _short(header), load, resident.nbytes, resident))

    def remove(self, name: str) -> None:
        """Take an adapter out of the pool.

        Whoever asks it at that moment gets its answers, or an error where its file had yet to be read and is gone.

        Raises:
            UsageError: there is none of that name.
        """
        self._residency.remove(name)

    @contextmanager
    def use(self, *names: str) -> Iterator[None]:
        """Have adapters in memory until the end of the block, whatever the others need; nothing else changes.

        Raises:
            UsageError: names that there are not.
        """
        with self._residency.asked(names) as entries, self._residency.lease(list(entries.values()), keep=True):
            yield

    def predict(self, texts: Sequence[str], adapter: str | Sequence[str]) -> list[Any]:
        """One answer a text, in their order.

        Args:
            texts: any number of texts.
            adapter: the name of the adapter for all of them, or one name for each.

        Raises:
            UsageError: ``texts`` is one text, something in it is no text, not as many names as texts, or names that
                the pool does not have; before anything is computed.
        """
        texts = checked_texts(texts)
        found: dict[int, Any] = {}
        for entry, rows, logits, truncated in self._answered(texts, rows_by_name(texts, adapter)):
            found.update(zip(rows.tolist(), answers(entry.header, logits, truncated), strict=True))
        return [found[row] for row in range(len(texts))]

    def logits(self, texts: Sequence[str], adapter: str | Sequence[str]) -> list[NDArray[np.float32]]:
        """The logits of each text (C,), in their order; arguments and errors as for `predict`."""
        texts = checked_texts(texts)
        found: dict[int, NDArray[np.float32]] = {}
        for _, rows, logits, _ in self._answered(texts, rows_by_name(texts, adapter)):
            found.update(zip(rows.tolist(), logits, strict=True))
        return [found[row] for row in range(len(texts))]

    def predict_all(self, texts: Sequence[str], adapters: Iterable[str] | None = None) -> dict[str, list[Any]]:
        """The answers of every adapter to every text; what adapters have in common is computed once.

        Args:
            texts: any number of texts.
            adapters: some names only; None: all.

        Raises:
            UsageError: as for `predict`.
        """
        texts = checked_texts(texts)
        if isinstance(adapters, str):
            raise UsageError(f"adapters={adapters!r} is one name. Put it into a list: [{adapters!r}].")
        names = None if adapters is None else tuple(dict.fromkeys(adapters))
        with self._residency.asked(names) as entries:
            every = np.arange(len(texts))
            found: dict[str, list[Any]] = {name: [] for name in entries}
            for entry, _, logits, truncated in self._computed(texts, {entry: every for entry in entries.values()}):
                found[entry.name] = answers(entry.header, logits, truncated)
        return found

    def _answered(
        self, texts: Sequence[str], asked: Mapping[str, NDArray[np.int64]]
    ) -> Iterator[tuple[Entry, NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]]:
        """For each adapter the texts that it was asked, their logits (n, C), and which were truncated."""
        with self._residency.asked(asked) as entries:
            yield from self._computed(texts, {entry: asked[name] for name, entry in entries.items()})

    def _computed(
        self, texts: Sequence[str], rows: Mapping[Entry, NDArray[np.int64]]
    ) -> Iterator[tuple[Entry, NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]]:
        """The same for adapters that were found by name."""
        if not texts:
            return
        questions = encoded(self.base.tokenizer, texts, rows)
        for wave in self._residency.waves(list(rows)):
            wanted, back = {}, {}
            with self._residency.lease(wave) as residents:
                for entry, resident in zip(wave, residents, strict=True):
                    wanted[resident], back[resident] = np.unique(questions.places[entry], return_inverse=True)
                logits = self._mixture.logits(questions.ids, wanted)
            for entry, resident in zip(wave, residents, strict=True):
                yield entry, rows[entry], logits[resident][back[resident]], questions.truncated[entry]

    def _check_canaries(self, header: Header, resident: Resident, state: dict[str, Any]) -> None:
        """Hold a file to its canaries once, in the very computation that the pool will do where that is fp32.

        Raises:
            AdapterFormatError, WrongBaseError: they drift; the message names the likely cause.
        """
        if header.digest in self._verified:
            return
        stored = header.canaries
        names = list(stored["logits"]) if stored is not None and set(stored["logits"]) <= set(SENTENCES) else []
        if not names or not self._gives(header, resident, names):
            tuned = build(self.base, header)
            tuned.load_state_dict(state)
            verify_canaries(self.base, tuned, header)
            if names and self.precision == "fp32":
                raise AdapterFormatError(
                    f"The pool computes this {header.strategy} adapter otherwise than load_adapter does. "
                    "Please report it, and use load_adapter meanwhile."
                )
        self._verified.add(header.digest)

    def _gives(self, header: Header, resident: Resident, names: Sequence[str]) -> bool:
        """Whether ``resident`` gives the stored logits."""
        if self.precision != "fp32" or header.canaries is None:
            return False
        side: Any = header.truncation
        tokenizer = reading(self.base, header).tokenizer
        encoded = tokenizer.encode([SENTENCES[name] for name in names], header.max_length, side).ids
        order = sorted(range(len(names)), key=lambda index: -len(encoded[index]))
        rows = np.arange(len(names))
        logits = self._checking.logits([encoded[index] for index in order], {resident: rows})[resident]
        expected = np.array([header.canaries["logits"][names[index]] for index in order])  # (sentences, C)
        return bool((np.abs(logits - expected) <= TOLERANCE * np.maximum(1.0, np.abs(expected))).all())


def _check_reading(name: str, header: Header) -> None:
    """Refuse an adapter that reads texts in another way than the batches of a pool do.

    Raises:
        UsageError: it reads them in chunks or cleans them.
    """
    if header.reading:
        raise UsageError(
            f"The adapter {name!r} reads texts its own way ({header.how}), which the shared batches of a pool do not. "
            "Use load_adapter."
        )


def _short(header: Header) -> Header:
    """The header without what grows with the number of tensors and is not needed to answer."""
    return replace(header, tensors=(), canaries=None)
