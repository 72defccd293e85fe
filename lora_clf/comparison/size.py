"""What a folder takes on disk; apart from the rest, so that a command's help imports nothing heavy for it."""

from __future__ import annotations

from pathlib import Path


def folder_bytes(folder: Path) -> int:
    """How many bytes the files of ``folder`` have."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
