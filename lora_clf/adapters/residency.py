"""Which adapters of a pool are in memory: loaded when they are wanted, the least recently used put out first.

A *lease* keeps some adapters in memory while it lasts. What is leased is never put out and never changed: an adapter
that is removed or put out in the meantime leaves the pool at once and its memory at the end of the last lease.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from threading import Condition
from typing import TYPE_CHECKING

from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.adapters.header import Header
    from lora_clf.adapters.resident import Resident

_SHOWN = 10  # names in a message


@dataclass(eq=False)
class Entry:
    """One adapter of a pool, in memory or not.

    Attributes:
        name: in the pool.
        header: what is known about it.
        load: reads it again; None: it came from memory and stays there.
        nbytes: in memory.
        resident: it, where it is in memory.
        leases: how many use it now.
        kept: those among them that may last: who waits for one could wait for itself.
        gone: whether it was removed.
    """

    name: str
    header: Header
    load: Callable[[], Resident] | None
    nbytes: int
    resident: Resident | None
    leases: int = 0
    kept: int = 0
    gone: bool = False


class Residency:
    """The adapters of a pool by name.

    Attributes:
        budget: bytes of adapters in memory at most; None: as many as there are.
        bytes: in memory now.
    """

    def __init__(self, budget: int | None) -> None:
        if budget is not None and budget < 1:
            raise UsageError(f"budget={budget!r}: expected the bytes that adapters may take in memory, or None.")
        self.budget = budget
        self.bytes = 0
        self._entries: dict[str, Entry] = {}
        self._recent: OrderedDict[Entry, None] = OrderedDict()  # in memory, least recently used first
        self._changed = Condition()

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were added."""
        with self._changed:
            return tuple(self._entries)

    def entry(self, name: str) -> Entry:
        """The adapter of that name.

        Raises:
            UsageError: there is none.
        """
        with self._changed:
            entry = self._entries.get(name)
            if entry is None:
                raise self._unknown([name])
            return entry

    @contextmanager
    def asked(self, names: Iterable[str] | None) -> Iterator[dict[str, Entry]]:
        """The adapters of these names as they are now, until the end of the block, whoever removes one meanwhile.

        Args:
            names: None: all that there are.

        Raises:
            UsageError: names that there are not; all of them, with the nearest ones that there are.
        """
        with self._changed:
            found = {name: self._entries.get(name) for name in (self._entries if names is None else names)}
            if missing := [name for name, entry in found.items() if entry is None]:
                raise self._unknown(missing)
            entries = {name: entry for name, entry in found.items() if entry is not None}
            # One from memory cannot be loaded again.
            held = [entry for entry in entries.values() if entry.load is None]
            for entry in held:
                entry.leases += 1
        try:
            yield entries
        finally:
            if held:
                self._release(held)

    def add(self, entry: Entry) -> None:
        """Take in an adapter that is in memory.

        Raises:
            UsageError: the name is taken, or it does not fit into the budget.
        """
        with self._changed:
            if entry.name in self._entries:
                raise UsageError(
                    f"The pool has an adapter named {entry.name!r}. Remove it first, or choose another name."
                )
            pinned = sum(other.nbytes for other in self._entries.values() if other.load is None)
            largest = max((other.nbytes for other in self._entries.values() if other.load is not None), default=0)
            pinned, largest = (
                (pinned + entry.nbytes, largest) if entry.load is None else (pinned, max(largest, entry.nbytes))
            )
            if self.budget is not None and pinned + largest > self.budget:
                raise UsageError(
                    f"The adapter {entry.name!r} ({entry.nbytes:,} bytes) does not fit into the pool's budget of "
                    f"{self.budget:,} bytes: adapters from memory take {pinned:,} for good, and the largest from a "
                    f"folder needs {largest:,}. Raise the budget, or save adapters and add their folders."
                )
            self._entries[entry.name] = entry
            self.bytes += entry.nbytes
            self._recent[entry] = None
            self._put_out(0)

    def remove(self, name: str) -> None:
        """Forget an adapter; its memory goes when nobody uses it any more.

        Raises:
            UsageError: there is none of that name.
        """
        with self._changed:
            entry = self._entries.pop(name, None)
            if entry is None:
                raise self._unknown([name])
            entry.gone = True
            if not entry.leases:
                self._drop(entry)
            self._changed.notify_all()

    def waves(self, entries: Sequence[Entry]) -> list[list[Entry]]:
        """The adapters in groups that fit into the budget together, those in memory first."""
        if self.budget is None:
            return [list(entries)]
        with self._changed:
            room = self.budget - sum(e.nbytes for e in self._entries.values() if e.load is None)
            ordered = sorted(entries, key=lambda entry: entry.resident is None)
        waves: list[list[Entry]] = []
        left = 0
        for entry in ordered:
            need = 0 if entry.load is None else entry.nbytes
            if not waves or need > left:
                waves.append([])
                left = room
            waves[-1].append(entry)
            left -= need
        return waves

    @contextmanager
    def lease(self, entries: Sequence[Entry], *, keep: bool = False) -> Iterator[list[Resident]]:
        """The adapters in memory, until the end of the block.

        Where others hold so much that these do not fit, it waits for them; for what is kept nobody waits, and the
        budget is exceeded meanwhile.

        Args:
            entries: which.
            keep: whether the block may last, and ask for other adapters itself.

        Raises:
            AdapterError: one that has to be loaded cannot be.
        """
        taken: list[Entry] = []
        try:
            yield self._take(entries, taken, keep)
        finally:
            self._release(taken, keep)

    def _release(self, entries: Sequence[Entry], keep: bool = False) -> None:
        with self._changed:
            for entry in entries:
                entry.leases -= 1
                entry.kept -= keep
                if entry.gone and not entry.leases:
                    self._drop(entry)
            self._changed.notify_all()

    def _take(self, entries: Sequence[Entry], taken: list[Entry], keep: bool) -> list[Resident]:
        with self._changed:
            while True:
                missing = sum(entry.nbytes for entry in entries if entry.resident is None)
                if not missing or self._put_out(missing, entries) or not self._leased(entries):
                    break  # Where nobody else could give anything back, waiting would be for ever.
                self._changed.wait()
            for entry in entries:
                if entry.resident is None:
                    assert entry.load is not None
                    entry.resident = entry.load()  # in the lock: two threads would load the same one twice
                    self.bytes += entry.nbytes
                    self._recent[entry] = None
                else:
                    self._recent.move_to_end(entry)
                entry.leases += 1
                entry.kept += keep
                taken.append(entry)
            return [entry.resident for entry in entries if entry.resident is not None]

    def _put_out(self, more: int, keep: Sequence[Entry] = ()) -> bool:
        """Make room for so many bytes more; whether that could be done."""
        if self.budget is None:
            return True
        if self.bytes + more > self.budget:
            kept = set(keep)
            for entry in list(self._recent):
                if self.bytes + more <= self.budget:
                    break
                if entry.load is not None and not entry.leases and entry not in kept:
                    self._drop(entry)
        return self.bytes + more <= self.budget

    def _leased(self, apart: Sequence[Entry]) -> bool:
        """Whether others than ``apart`` are in use, and not kept, that could be put out afterwards."""
        return any(
            entry.leases > entry.kept and entry.load is not None and entry not in apart for entry in self._recent
        )

    def _drop(self, entry: Entry) -> None:
        """Take an adapter that nobody uses out of memory."""
        resident, entry.resident = entry.resident, None
        if resident is not None:
            self.bytes -= entry.nbytes
            del self._recent[entry]
            resident.spoil()

    def _unknown(self, names: Sequence[object]) -> UsageError:
        shown = []
        for name in names[:_SHOWN]:
            near = get_close_matches(str(name), self._entries, n=3)
            shown.append(f"{name!r}" + (f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""))
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        there = sorted(self._entries)
        exists = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else "")
        return UsageError(f"The pool has no adapter {', '.join(shown)}{more}. There are: {exists or 'none'}.")
