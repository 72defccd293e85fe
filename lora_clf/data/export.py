"""Writes a dataset as train.csv, validation.csv and test.csv, which ``load_data`` reads back as it was."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lora_clf.data.cache import write_whole
from lora_clf.data.corpus import Part
from lora_clf.data.dataset import Dataset
from lora_clf.errors import DataError, UsageError


def export(dataset: Dataset, folder: str | Path, *, force: bool = False) -> Path:
    """Write the three parts into ``folder``, with the columns ``row``, ``label``, ``text`` and those carried.

    ``row`` is the row number in the source. Each file is there whole or not at all. Raises UsageError where
    one of them exists and ``force`` is not set.
    """
    folder = Path(folder).expanduser()
    files = {folder / f"{name}.csv": part for name, part in dataset.parts.items()}
    there = [path.name for path in files if path.exists()]
    if there and not force:
        raise UsageError(
            f"There is already {', '.join(there)} in {folder.name!r}. Choose another folder, or use force "
            f"(--force) to overwrite."
        )
    try:
        for path, part in files.items():
            write_whole(path, _csv(part))
    except OSError as error:
        raise DataError(f"{folder.name!r} cannot be written to: {error.strerror or error}.") from error
    return folder


def _csv(part: Part) -> bytes:
    extra = {name: column for name, column in part.columns.items() if name not in ("row", "label", "text")}
    stream = io.StringIO(newline="")
    # All texts quoted: line breaks of every kind in them survive.
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(["row", "label", "text", *extra])
    writer.writerows(zip(part.rows, part.labels, part.texts, *extra.values(), strict=True))
    return stream.getvalue().encode("utf-8")
