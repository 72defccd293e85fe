"""Locks of the system on open files and folders, where it has such: they fall with their owner, by ``kill -9`` too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PATIENCE, _PAUSE = 5.0, 0.02  # seconds
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def hold(descriptor: int) -> bool | None:
    """Lock what is open for as long as it is; False where another holds it, None where there are no such locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def is_free(path: Path) -> bool:
    """Whether nobody holds this file; False also where that cannot be said."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return False
    try:
        return hold(descriptor) is True
    finally:
        os.close(descriptor)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One at a time of those that change what is in ``folder``, threads too; who has to wait long goes on."""
    descriptor = None
    with suppress(OSError):  # a system that opens no folders
        descriptor = os.open(folder, _FLAGS)
    try:
        end = time.monotonic() + _PATIENCE
        while descriptor is not None and hold(descriptor) is False and time.monotonic() < end:
            time.sleep(_PAUSE)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
