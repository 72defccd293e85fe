"""Files of a folder, read as they are and written whole.

Reading goes through the opened folder, so that no file of it is read together with one of the folder that
replaces it. Links, folders and devices in place of a file are refused. A new folder is written beside its place
and moved there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from lora_clf.errors import AdapterError, AdapterFormatError, AdapterNotFoundError

T = TypeVar("T")

_BY_DESCRIPTOR: Final = os.open in os.supports_dir_fd  # not on Windows
_ATTEMPTS: Final = 20  # to read a folder that others keep replacing
_ABANDONED: Final = 24 * 3600  # seconds after which a folder that is still being written is taken for left behind


class Place:
    """An opened folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            if not stat.S_ISDIR(os.stat(folder).st_mode):
                raise AdapterNotFoundError(f"There is no adapter in {folder}: it is no folder.")
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY) if _BY_DESCRIPTOR else None
        except OSError as error:
            if isinstance(error, AdapterError):
                raise
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                kind = "is no folder" if os.path.lexists(folder) else "does not exist"
                raise AdapterNotFoundError(f"There is no adapter in {folder}: it {kind}.") from error
            raise AdapterError(f"The folder {folder} cannot be opened: {error.strerror or error}.") from error

    def close(self) -> None:
        """Give the folder back to the system."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def replaced(self) -> bool:
        """Whether another folder stands in the place of this one by now."""
        try:
            return self._descriptor is not None and not os.path.samestat(
                os.fstat(self._descriptor), os.stat(self.folder)
            )
        except OSError:
            return True

    def open(self, name: str, cap: int | None = None) -> BinaryIO:
        """The file ``name`` of the folder, opened for reading.

        Raises:
            AdapterNotFoundError: it is not there.
            AdapterFormatError: it is a link, a folder or a device, may not be read, or is larger than ``cap`` bytes.
        """
        # Not blocking: a pipe in place of a file would wait for ever.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        where = name if self._descriptor is not None else str(self.folder / name)
        try:
            descriptor = os.open(where, flags | getattr(os, "O_BINARY", 0), dir_fd=self._descriptor)
        except FileNotFoundError as error:
            inside = next(iter(sorted(self.folder.glob(f"*/{name}"))), None)
            hint = (
                f" There is one in {inside.parent}; `lora-clf adapters list {self.folder}` has all." if inside else ""
            )
            raise AdapterNotFoundError(f"There is no adapter in {self.folder}: {name} is missing.{hint}") from error
        except OSError as error:
            kind = "a link" if error.errno == errno.ELOOP else f"not readable ({error.strerror})"
            raise AdapterFormatError(f"{name} in {self.folder} is {kind}, expected a plain file.") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise AdapterFormatError(f"{name} in {self.folder} is no plain file.")
        if cap is not None and status.st_size > cap:
            os.close(descriptor)
            raise AdapterFormatError(
                f"{name} in {self.folder} has {status.st_size:,} bytes; at most {cap:,} are read. For a larger "
                "adapter that you trust raise file_cap, on the command line --file-cap (in GiB)."
            )
        return os.fdopen(descriptor, "rb")

    def read(self, name: str, cap: int) -> bytes:
        """The bytes of the file ``name``.

        Raises:
            AdapterNotFoundError: it is not there.
            AdapterFormatError: it is no plain file, or larger than ``cap`` bytes.
        """
        with self.open(name, cap) as file:
            return bytes(contents(file, os.fstat(file.fileno()).st_size))


def contents(file: BinaryIO, size: int) -> bytearray:
    """The first ``size`` bytes of ``file``, as memory that tensors can be views of."""
    data = bytearray(size)
    del data[file.readinto(data) :]  # type: ignore[attr-defined]
    return data


def read_from(folder: Path, read: Callable[[Place], T]) -> T:
    """What ``read`` makes of the opened folder; format errors say which folder it was.

    A folder that is replaced while it is read, and whose files are gone therefore, is read anew.

    Raises:
        AdapterNotFoundError: there is none.
    """
    for attempt in range(_ATTEMPTS):
        place = Place(folder)
        try:
            return read(place)
        except AdapterError as error:
            if place.replaced() and attempt + 1 < _ATTEMPTS:
                continue
            if not isinstance(error, AdapterFormatError) or str(folder) in str(error):
                raise
            raise AdapterFormatError(f"The adapter in {folder} cannot be used. {error}") from error
        except OSError as error:
            raise AdapterError(f"The adapter in {folder} cannot be read: {error.strerror or error}.") from error
        finally:
            place.close()
    raise AssertionError("unreachable")


def write_in_place_of(target: Path, contents: Mapping[str, bytes], *, replace: bool) -> None:
    """Write ``contents`` as the files of folder ``target``: whatever happens, it is the old or the new one.

    Args:
        target: where to; folders above it are made.
        contents: name and bytes of each file.
        replace: whether a folder with something in it is replaced.

    Raises:
        OSError: the disk is full, there is something already, or the like; ``target`` is as it was.
    """

    def fill(folder: Path) -> None:
        for name, content in contents.items():
            with open(folder / name, "xb") as file:
                file.write(content)
            if (written := os.stat(folder / name).st_size) != len(content):  # a disk that takes less than it says
                raise OSError(errno.EIO, f"{name} has {written:,} bytes of {len(content):,} that were written")

    fill_in_place_of(target, fill, replace=replace)


def fill_in_place_of(target: Path, fill: Callable[[Path], None], *, replace: bool) -> None:
    """Have ``fill`` write a folder, which then takes the place of ``target`` at once.

    Args:
        target: where to; folders above it are made.
        fill: writes files and folders into the empty folder that it gets.
        replace: whether a folder with something in it is replaced.

    Raises:
        OSError: the disk is full, there is something already, or the like; ``target`` is as it was. What ``fill``
            raises comes through, and ``target`` is as it was too.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    incoming = target.parent / f".{target.name}-{secrets.token_hex(6)}"
    incoming.mkdir()
    try:
        fill(incoming)
        for path in (*incoming.rglob("*"), incoming):
            _synchronise(path)
        if not (replace and target.exists()):
            os.rename(incoming, target)  # fails where there is something by now
            back: Callable[[], Any] | None = partial(os.rename, target, incoming)
        elif _exchange(incoming, target):
            back = partial(_exchange, incoming, target)
        else:
            _move_aside(incoming, target)
            back = None
        try:
            _synchronise(target.parent)
        except OSError:
            if back is not None:
                back()
            raise
    finally:
        # What is there now is the old folder after an exchange, half a new one after a failure.
        shutil.rmtree(incoming, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove what killed processes left beside ``target`` a day ago or longer, and put back what one took away."""
    names = re.compile(rf"\.{re.escape(target.name)}-[0-9a-f]{{12}}(-old)?")
    with suppress(OSError):
        for name in os.listdir(target.parent):
            path = target.parent / name
            if (left := names.fullmatch(name)) is None:
                continue
            if left[1] and not target.exists():  # killed between the two steps of `_move_aside`
                os.rename(path, target)
            elif time.time() - os.lstat(path).st_mtime > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)


def _move_aside(incoming: Path, target: Path) -> None:
    """Replace ``target`` in two steps where the system has no exchange; in between it has another name."""
    aside = incoming.with_name(f"{incoming.name}-old")
    os.rename(target, aside)
    try:
        os.rename(incoming, target)
    except BaseException:  # Ctrl-C too
        os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step; False where the system or the file system cannot."""
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE and RENAME_SWAP
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return bool(library.renamex_np(os.fsencode(one), os.fsencode(other), swap) == 0)
        return bool(library.renameat2(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)
    except (AttributeError, OSError, TypeError):
        return False


def _synchronise(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk."""
    folder = path.is_dir()
    if folder and not _BY_DESCRIPTOR:
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if folder or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_bytes(folder: Path) -> int:
    """How many bytes the files of ``folder`` have."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
