"""Writes a dataset as train.csv, validation.csv and test.csv, which ``load_data`` reads back as it was."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from lora_clf.data.cache import write_whole
from lora_clf.data.corpus import Part
from lora_clf.data.dataset import Dataset
from lora_clf.errors import DataError, UsageError


def export(dataset: Dataset, folder: str | Path, *, force: bool = False) -> Path:
    """Write the three parts into ``folder``, with the columns ``row``, ``label``, ``text`` and those carried.

    ``row`` is the row number in the source. The three are there together or not at all: parts of two splits
    never lie side by side. Raises UsageError where one of them exists and ``force`` is not set.
    """
    folder = Path(folder).expanduser()
    files = {folder / f"{name}.csv": part for name, part in dataset.parts.items()}
    there = [path.name for path in files if path.exists()]
    if there and not force:
        raise UsageError(
            f"There is already {', '.join(there)} in {folder.name!r}. Choose another folder, or use force "
            f"(--force) to overwrite."
        )
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _exchange(folder, files)
        except BaseException:
            if made:
                with suppress(OSError):
                    folder.rmdir()
            raise
    except OSError as error:
        raise DataError(f"{folder.name!r} cannot be written to: {error.strerror or error}.") from error
    return folder


def _exchange(folder: Path, files: dict[Path, Part]) -> None:
    """Write ``files``; what they replace goes first and comes back, all of it, where anything fails."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-", ignore_cleanup_errors=True) as name:
        new, old = Path(name, "new"), Path(name, "old")
        old.mkdir()
        for path, part in files.items():
            write_whole(new / path.name, _csv(part))
        moves = [(path, old / path.name) for path in files if path.exists()]
        moves += [(new / path.name, path) for path in files]
        begun = []
        try:
            for come, go in moves:
                begun.append((come, go))
                os.replace(come, go)
        except BaseException:
            for come, go in reversed(begun):
                if go.exists():
                    os.replace(go, come)
            raise


def _csv(part: Part) -> bytes:
    extra = {name: column for name, column in part.columns.items() if name not in ("row", "label", "text")}
    stream = io.StringIO(newline="")
    # All texts quoted: line breaks of every kind in them survive.
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(["row", "label", "text", *extra])
    writer.writerows(zip(part.rows, part.labels, part.texts, *extra.values(), strict=True))
    return stream.getvalue().encode("utf-8")
