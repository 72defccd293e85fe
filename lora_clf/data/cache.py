"""Where files that were fetched once are kept, and how a file gets there whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

CACHE_VARIABLE = "LORA_CLF_CACHE"


def cache_folder() -> Path:
    """The user's cache folder of this library; the variable ``LORA_CLF_CACHE`` names another."""
    asked = os.environ.get(CACHE_VARIABLE)
    if asked:
        return Path(asked).expanduser()
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "lora_clf"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "lora_clf" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "lora_clf"


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds all of it or what it held before; makes the folder."""
    with whole_file(path) as stream:
        stream.write(data)
        stream.flush()
        if (written := os.fstat(stream.fileno()).st_size) != len(data):  # a disk that takes less than it says
            raise OSError(errno.EIO, f"{path.name} has {written:,} bytes of {len(data):,} that were written")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A stream for a new file that has its name once the block ends well; else ``path`` holds what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        error.filename = str(path)  # what was asked for, not a name that nobody gave
        raise
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # mkstemp makes it private; a table is a file like any other
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
