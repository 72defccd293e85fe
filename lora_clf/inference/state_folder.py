"""The folder of kept states: a second program on the same texts starts where the first one ended.

It lies in the user's cache folder, one folder a kind (base, cut, precision and whatever else decides the numbers), one
file for each set of texts that was computed together (`lora_clf.inference.state_file`). It holds no texts, but what a
base made of them, from which texts can be guessed: so folder and files are readable by their owner alone, and are
taken from nobody else. ``LORA_CLF_CACHE_SIZE`` says how large it may get; what was not used for longest goes first,
and the disk keeps a GB and half of what is free. Any number of programs may use it at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lora_clf.data.cache import cache_folder
from lora_clf.errors import UsageError
from lora_clf.inference.file_lock import alone_in, is_free
from lora_clf.inference.state_file import PART, SUFFIX, DamagedError, Kept, StateFile, StateWriter, read_index

SIZE_VARIABLE: Final = "LORA_CLF_CACHE_SIZE"
USUAL_SIZE: Final = "4GB"
LEFT_FREE: Final = 10**9  # bytes of the disk that are never taken
_UNITS: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS_OF_1024: Final = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_ABANDONED: Final = 24 * 3600  # seconds after which a file in writing is left behind, where no lock says so


def disk_budget() -> int:
    """How many bytes the folder may take: ``LORA_CLF_CACHE_SIZE``, or 4 GB; 0 means that nothing is kept on disk.

    Raises:
        UsageError: the variable holds no size.
    """
    return parse_size(os.environ.get(SIZE_VARIABLE) or USUAL_SIZE, SIZE_VARIABLE)


def set_disk_budget(text: str) -> None:
    """Let the folder take ``text`` (4GB, 0, ...) in this process and in those that it starts.

    Raises:
        UsageError: it is no size.
    """
    parse_size(text)
    os.environ[SIZE_VARIABLE] = text


def parse_size(text: str, name: str = "--cache-size") -> int:
    """A number of bytes as people write it: 4GB, 500 MB, 1.5GiB, 0.

    Raises:
        UsageError: it is none.
    """
    units = {**_UNITS, **_UNITS_OF_1024}
    found = re.fullmatch(r"(\d{1,18}(?:\.\d*)?)\s*([a-z]*)", text.strip(), re.IGNORECASE | re.ASCII)
    if found is None or found[2].upper() not in units:
        raise UsageError(f"{name} {text}: expected a size, as 4GB or 500MB, or 0 to keep nothing on disk.")
    return int(float(found[1]) * units[found[2].upper()])


@dataclass(frozen=True)
class Entry:
    """The files of one kind, for people.

    Attributes:
        facts: what decides these states.
        texts: how many states there are; one that is in two files counts twice.
        size: in bytes.
        files: how many.
        used: when one of them was used last, in seconds since 1970.
    """

    facts: dict[str, Any]
    texts: int
    size: int
    files: int
    used: float


class StateFolder:
    """The kept states on disk.

    Attributes:
        path: the folder; it need not be there yet.
        budget: how many bytes it may take.
    """

    def __init__(self, path: Path, budget: int) -> None:
        self.path, self.budget = path, budget

    def find(self, facts: Mapping[str, Any], keys: set[bytes], *, mapped: bool) -> dict[bytes, Kept]:
        """Those of the states of a kind that are here and whole; files that are not are dropped.

        Args:
            facts: the kind.
            keys: of the states that are wanted.
            mapped: leave the states in their files, mapped into memory.
        """
        found: dict[bytes, Kept] = {}
        folder = self._of(facts)
        for path in _files_like(folder, f"*{SUFFIX}") if is_private(self.path) else ():
            with suppress(OSError):  # dropped by another program meanwhile
                if (file := _opened(path, facts)) is None:
                    continue
                places = [place for place, key in enumerate(file.keys) if key in keys and key not in found]
                if places:
                    try:
                        found |= file.read(places, mapped=mapped)
                    except DamagedError:
                        path.unlink(missing_ok=True)
                        continue
                    os.utime(path)  # the last use is what decides which go first
        return found

    def writer(self, facts: Mapping[str, Any], texts: int, vectors: int, size: int) -> StateWriter | None:
        """A new file of states, after as many old ones went as it needs; None where there is no room for it.

        Args:
            facts: the kind.
            texts: how many states there will be.
            vectors: how many vectors they have in all.
            size: how many bytes the file will have at most.
        """
        try:
            folder = self._of(facts)
            if not make_private(self.path):
                return None
            with alone_in(self.path):  # or two programs would find the same room
                if not self._make_room(size):
                    return None
                folder.mkdir(mode=0o700, exist_ok=True)
                return StateWriter(folder, facts, texts, vectors, size)
        except OSError:
            return None

    def room(self) -> int:
        """How many bytes a new file may have, if all others went for it but those that are being written."""
        files = self._files()
        return max(0, self._room(sum(_written(path, size) for path, size, _ in files)) - _in_writing(files))

    def entries(self) -> list[Entry]:
        """What is here, the last used first."""
        kinds: dict[str, Entry] = {}
        for path, size, used in self._files():
            with suppress(OSError, DamagedError):
                file = read_index(path)
                seen = kinds.get(path.parent.name) or Entry(file.facts, 0, 0, 0, 0.0)
                kinds[path.parent.name] = Entry(
                    file.facts, seen.texts + len(file.keys), seen.size + size, seen.files + 1, max(seen.used, used)
                )
        return sorted(kinds.values(), key=lambda entry: -entry.used)

    def clear(self) -> tuple[int, int]:
        """Drop everything; how many files and bytes that were."""
        files = self._files()
        for path, _, _ in files:
            _drop(path)
        return len(files), sum(size for _, size, _ in files)

    def _of(self, facts: Mapping[str, Any]) -> Path:
        return self.path / hashlib.blake2b(canonical(facts), digest_size=16).hexdigest()

    def _files(self) -> list[tuple[Path, int, float]]:
        """(path, bytes, last use) of all files, those that are being written too."""
        found = []
        for path in _files_like(self.path, f"*/*{SUFFIX}", f"*/{PART}*") if is_private(self.path) else ():
            with suppress(OSError):
                status = path.stat()
                found.append((path, status.st_size, status.st_mtime))
        return found

    def _room(self, held: int) -> int:
        """How many bytes the folder, in which ``held`` are written now, may hold."""
        try:
            without = shutil.disk_usage(_nearest(self.path)).free + held
        except OSError:  # a place that cannot be looked into
            return 0
        return min(self.budget, without - LEFT_FREE, without // 2)

    def _make_room(self, size: int) -> bool:
        """Drop what was not used for longest until ``size`` more bytes fit; False, with nothing dropped, if never."""
        now = time.time()
        for path, _, used in self._files():
            if path.name.startswith(PART) and (now - used > _ABANDONED or is_free(path)):
                _drop(path)
        files = self._files()
        held = sum(each for _, each, _ in files)
        room = self._room(sum(_written(path, each) for path, each, _ in files))
        if _in_writing(files) + size > room:
            return False
        for path, each, _ in sorted(files, key=lambda file: file[2]):
            if not path.name.startswith(PART) and held + size > room:
                _drop(path)
                held -= each
        return held + size <= room


def _in_writing(files: Sequence[tuple[Path, int, float]]) -> int:
    """The bytes of those that are being written, at their full size; they cannot be dropped."""
    return sum(size for path, size, _ in files if path.name.startswith(PART))


def state_folder() -> StateFolder | None:
    """The user's folder of kept states; None where nothing is to be kept on disk."""
    budget = disk_budget()
    return StateFolder(states_path(), budget) if budget else None


def states_path() -> Path:
    """Where the user's folder of kept states is."""
    return cache_folder() / "prefix"


def canonical(facts: Mapping[str, Any]) -> bytes:
    """The one JSON form of a kind's facts, without the base's name: its digest says what it is."""
    decisive = {name: value for name, value in facts.items() if name != "base"}
    return json.dumps(decisive, sort_keys=True, separators=(",", ":")).encode()


def make_private(folder: Path) -> bool:
    """Make ``folder`` if it is not there, readable by its owner alone; whether that is us."""
    with suppress(FileExistsError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    if is_private(folder):
        return True
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    folder.chmod(0o700)
    return is_private(folder)


def is_private(folder: Path) -> bool:
    """Whether ``folder`` is a folder of ours that nobody else can look into or write to."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    if os.name == "nt":  # whose profile folder nobody else reads
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _opened(path: Path, facts: Mapping[str, Any]) -> StateFile | None:
    """The index of a file of the kind ``facts``; one that is damaged or of another kind is dropped."""
    try:
        file = read_index(path)
        if canonical(file.facts) == canonical(facts):
            return file
    except DamagedError:
        pass
    path.unlink(missing_ok=True)
    return None


def _files_like(folder: Path, *patterns: str) -> list[Path]:
    """The files below ``folder`` whose names fit a pattern; none where the disk cannot say."""
    with suppress(OSError):
        return [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return []


def _written(path: Path, size: int) -> int:
    """How many bytes of a file are on the disk already: one that is being written has its whole size at once."""
    if not path.name.startswith(PART):
        return size
    try:
        return min(size, path.stat().st_blocks * 512)
    except (OSError, AttributeError):  # gone, or a system that does not count blocks
        return size


def _drop(path: Path) -> None:
    with suppress(OSError):  # gone already, or held open on a system that then keeps it
        path.unlink()
        path.parent.rmdir()  # succeeds where it was the last


def _nearest(path: Path) -> Path:
    """The folder itself, or the first above it that is there."""
    while not path.exists():
        path = path.parent
    return path
