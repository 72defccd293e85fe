"""One writer at a time: a file that the system holds locked for as long as its owner lives.

The lock is the kernel's, so it falls when its owner dies, by ``kill -9`` too, and nobody has to guess whether a number
of a process is still the process that wrote it. The number stands in the file for people only.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_ATTEMPTS: Final = 100  # to lock the file that has the name, where others keep removing it
_HELD: Final = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class HeldError(Exception):
    """Somebody else holds the lock; who tries to take it tells the user in other words.

    Attributes:
        owner: the number of its process, where it could be read.
    """

    def __init__(self, owner: int | None) -> None:
        super().__init__(owner)
        self.owner = owner


class Lock:
    """A lock file; the lock is held from `take` to `release`, or to the end of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock; a dead owner's is taken over.

        Raises:
            HeldError: a living process holds it, perhaps this one.
            OSError: the file cannot be made.
        """
        for _ in range(_ATTEMPTS):
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
            descriptor = os.open(self.path, flags, 0o666)
            try:
                _lock(descriptor)
                # Who held it before may have removed the file between the two lines above.
                if not self._is_named(descriptor):
                    os.close(descriptor)
                    continue
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
            except OSError as error:
                owner = _owner(descriptor)
                os.close(descriptor)
                if error.errno in _HELD:
                    raise HeldError(owner) from error
                with suppress(OSError):  # a full disk takes the name and not the number
                    self.path.unlink()
                raise
            self._descriptor = descriptor
            return
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(self.path))

    def release(self) -> None:
        """Give the lock back and remove its file."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        if os.name == "nt":  # which removes no open file
            os.close(descriptor)
        with suppress(OSError):
            self.path.unlink()
        if os.name != "nt":
            os.close(descriptor)

    def _is_named(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except OSError:
            return False


def _lock(descriptor: int) -> None:
    """Lock an open file or raise OSError; where the file system knows no locks, the number in the file decides."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # far behind the number, which others may read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        import psutil

        owner = _owner(descriptor)
        if owner is not None and psutil.pid_exists(owner):
            raise OSError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK)) from error


def _owner(descriptor: int) -> int | None:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        found = os.read(descriptor, 32).strip()
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        return None
    return int(found) if found.isdigit() else None
