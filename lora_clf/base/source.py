"""The package's own source as bytes, for digests: what other code made is not used again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def source_of(files: Iterable[Path], root: Path | None = None) -> bytes:
    """Names and contents of ``files``, one behind the other; the names are paths below ``root`` where it is given."""
    found = []
    for file in files:
        name = file.name if root is None else file.relative_to(root).as_posix()
        content = file.read_bytes()
        found += [f"{name}\0{len(content)}\0".encode(), content]
    return b"".join(found)


def rooms(*names: str) -> list[Path]:
    """The files of some rooms of the package, sorted."""
    return sorted(file for name in names for file in (PACKAGE / name).glob("*.py"))
