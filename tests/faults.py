"""A disk that fails, and a process that dies, at the n-th call that touches the disk."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# What changes the disk or opens a file. What a library does behind these (a C extension) is not seen.
CHANGES = ("open", "mkdir", "rename", "replace", "fsync", "unlink", "rmdir", "ftruncate", "write", "chmod", "utime")
READS = ("open", "read", "stat", "fstat", "listdir", "scandir", "lstat")


class Killed(BaseException):
    """Stands for ``kill -9``: nothing that comes after it in the process touches the disk any more."""


class Faults:
    """Counts calls; from the ``at``-th on each fails, or the ``at``-th alone.

    Attributes:
        calls: how many there were.
        names: of those that failed.
    """

    def __init__(
        self, make: Callable[[], BaseException], at: int, *, lasting: bool = True, short: bool = False
    ) -> None:
        self.make, self.at, self.lasting, self.short = make, at, lasting, short
        self.calls = 0
        self.names: list[str] = []

    def due(self, name: str) -> bool:
        self.calls += 1
        if self.calls == self.at or (self.lasting and self.calls > self.at):
            self.names.append(name)
            return True
        return False

    def pass_(self, name: str) -> None:
        if self.due(name):
            raise self.make()


class _File:
    """A file whose writes and reads are counted; where ``short`` is set, half of what was asked for arrives."""

    def __init__(self, file: Any, faults: Faults, names: tuple[str, ...]) -> None:
        self._file, self._faults, self._names = file, faults, names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def write(self, data: Any) -> Any:
        if "write" in self._names and self._faults.due("write"):
            if self._faults.short:
                self._file.write(memoryview(data)[: len(data) // 2])
                return len(data)  # the disk says that it took everything
            raise self._faults.make()
        return self._file.write(data)

    def read(self, *args: Any) -> Any:
        if "read" in self._names and self._faults.due("read"):
            if self._faults.short:
                found = self._file.read(*args)
                return found[: len(found) // 2]
            raise self._faults.make()
        return self._file.read(*args)

    def readinto(self, buffer: Any) -> Any:
        if "read" in self._names and self._faults.due("read"):
            if self._faults.short:
                return self._file.readinto(memoryview(buffer)[: len(buffer) // 2])
            raise self._faults.make()
        return self._file.readinto(buffer)


@contextmanager
def failing(
    make: Callable[[], BaseException],
    at: int,
    names: tuple[str, ...] = CHANGES,
    *,
    under: str,
    lasting: bool = True,
    short: bool = False,
) -> Iterator[Faults]:
    """Have calls fail that name a path below ``under``, or a file or a descriptor opened there.

    Args:
        make: the exception.
        at: the number of the first call that fails, from 1.
        names: which calls count.
        under: the folder.
        lasting: whether all later calls fail too.
        short: whether a write or a read fails by arriving in half without a word.
    """
    faults = Faults(make, at, lasting=lasting, short=short)
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            if name in ("open", "write", "read"):
                continue
            real = getattr(os, name)

            def counted(*args: Any, _real: Any = real, _name: str = name, **named: Any) -> Any:
                if args and _below(args[0], under):
                    faults.pass_(_name)
                return _real(*args, **named)

            patch.setattr(os, name, counted)
        real_open, real_os_open = io.open, os.open

        def opened(file: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
            below = _below(file, under)
            if below and not isinstance(file, int) and "open" in names and (set(mode) & set("wxa+") or names is READS):
                faults.pass_("open")
            found = real_open(file, mode, *args, **named)
            return _File(found, faults, names) if below and "b" in mode else found

        def os_opened(path: Any, flags: int, *args: Any, **named: Any) -> Any:
            below = _below(path, under) or named.get("dir_fd") is not None
            if below and "open" in names and (flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) or names is READS):
                faults.pass_("open")
            return real_os_open(path, flags, *args, **named)

        patch.setattr(builtins, "open", opened)
        patch.setattr(io, "open", opened)
        patch.setattr(os, "open", os_opened)
        yield faults


def _below(place: Any, under: str) -> bool:
    if isinstance(place, int):
        try:
            return os.readlink(f"/proc/self/fd/{place}").startswith(under)
        except OSError:
            return False
    try:
        return os.fspath(place).startswith(under)
    except (TypeError, AttributeError):
        return False
