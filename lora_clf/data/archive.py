"""One file out of a zip that nobody vouches for: never written anywhere, never larger than it may be.

Members are read by their exact names into memory, so that no name in the zip can lead outside. Only what ordinary
programs write is unpacked, stored or deflated: the other methods can ask for gigabytes before the first byte.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_PIECE: Final = 1 << 20

# What zipfile raises over bytes that are no zip has no common root: RuntimeError for one with a password, struct.error
# and the like for tables that are cut off.
_DAMAGE: Final = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError),
    *(ValueError, struct.error, IndexError, OverflowError),
)


def open_zip(data: bytes | Path) -> zipfile.ZipFile:
    """The zip in ``data``, bytes or a file.

    Raises:
        zipfile.BadZipFile: it is none.
    """
    try:
        return zipfile.ZipFile(io.BytesIO(data) if isinstance(data, bytes) else data)
    except _DAMAGE as error:
        raise zipfile.BadZipFile(str(error) or type(error).__name__) from error


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, largest: int) -> bytes:
    """The bytes of a member, at most ``largest`` and one more of them, whatever its size is said to be.

    Raises:
        zipfile.BadZipFile: it cannot be unpacked.
    """
    return b"".join(stream_member(archive, member, largest + 1))


def stream_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, largest: int) -> Iterator[bytes]:
    """The first ``largest`` bytes of a member, a piece at a time.

    Raises:
        zipfile.BadZipFile: it cannot be unpacked.
    """
    if member.compress_type not in METHODS:
        raise zipfile.BadZipFile("it is neither stored nor deflated")
    try:
        with archive.open(member) as stream:
            while largest > 0 and (piece := stream.read(min(largest, _PIECE))):
                largest -= len(piece)
                yield piece
    except _DAMAGE as error:
        raise zipfile.BadZipFile(str(error) or type(error).__name__) from error
