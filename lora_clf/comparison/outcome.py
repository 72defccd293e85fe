"""What one cell found, as it lies on disk: ``result.json`` and ``predictions.npz`` in the cell's folder.

A folder is written beside its place and renamed into it, so a cell is there whole or not at all. Nothing in
it is a text: predictions are row numbers and probabilities. Shapes: N rows, C classes.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lora_clf.adapters.disk import write_in_place_of
from lora_clf.errors import LoraClfError, TrainingError

if TYPE_CHECKING:
    from lora_clf.data.corpus import Part
    from lora_clf.data.dataset import Dataset

RESULT = "result.json"
PREDICTIONS = "predictions.npz"
Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a classifier said about one part of the data.

    Attributes:
        rows: (N,) row numbers in the source.
        labels: (N,) the true classes; where the task is not one label of several, its targets (N,) or (N, C).
        probabilities: (N, C); of such a task its logits.
    """

    rows: NDArray[np.int64]
    labels: NDArray[Any]
    probabilities: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """One or more parts as one, sorted by row."""
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows, kind="stable")
        return cls(
            rows[order],
            np.concatenate([part.labels for part in parts])[order],
            np.concatenate([part.probabilities for part in parts])[order],
        )

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) whether the most probable class is the true one."""
        right: NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.labels
        return right

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one cell found.

    Attributes:
        label: the contender's.
        trainable_parameters: how many numbers trained, head included.
        share: of all parameters of the classifier, 0 to 1.
        adapter_bytes: the saved folder.
        tensor_bytes: the safetensors file in it.
        seconds: the optimizer steps.
        cold_seconds: these and the frozen prefix of the training texts, whoever computed it.
        total_seconds: everything after base and data were loaded, evaluations too.
        peak_memory_bytes: of the child process, from its start; of the libraries' files what it reads itself, so on
            Linux, where it is forked from one that has imported them, some 50 to 80 MB less than elsewhere.
        training_memory_bytes: the peak while training above what the loaded base and data held.
        device_memory_bytes: the peak on the accelerator, None on the CPU.
        history: one entry an epoch.
        best_epoch: the one whose weights were kept.
        training: the settings that were used, learning rate included.
        environment: versions, threads, precision and the like.
        scores: `metrics.summarise` of the parts "validation" and "test".
        validation, test: the predictions.
        k: examples of each class it learnt from, on a learning curve; None for the whole training part.
        flops: of the training, about (`training.flops.spent`).
        diagnosis: what went wrong in training, `Finding.as_dict` each; how long it took is not among it.
        texts_per_second: that the trained classifier labelled, in the precision of its scores, loaded and warm.
        task: where it is not one label of several, the labels and the settings that were found in training.
    """

    digest: str
    label: str
    strategy: str
    settings: dict[str, Any]
    seed: int
    split_seed: int
    fold: int | None
    trainable_parameters: int
    total_parameters: int
    share: float
    adapter_bytes: int
    tensor_bytes: int
    seconds: float
    cold_seconds: float
    total_seconds: float
    peak_memory_bytes: int
    training_memory_bytes: int
    device_memory_bytes: int | None
    history: list[dict[str, Any]]
    best_epoch: int
    training: dict[str, Any]
    environment: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    test: Predictions = field(repr=False)
    validation: Predictions = field(repr=False)
    k: int | None = None
    flops: float | None = None
    texts_per_second: float | None = None
    diagnosis: list[dict[str, Any]] = field(default_factory=list)
    task: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the predictions, as plain JSON values."""
        hidden = ("test", "validation", *(("task",) if self.task is None else ()))
        shallow = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}
        return shallow


def write_outcome(outcome: Outcome, folder: Path) -> None:
    """Put ``outcome`` at ``folder``, whole or not at all, in place of what was there.

    Raises:
        TrainingError: the disk does not take it.
    """
    arrays = {
        f"{part}_{name}": array
        for part in ("test", "validation")
        for name, array in vars(getattr(outcome, part)).items()
    }
    predictions = io.BytesIO()
    np.savez(predictions, **arrays)
    text = json.dumps(outcome.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    files = {PREDICTIONS: predictions.getvalue(), RESULT: f"{text}\n".encode()}
    with kept_whole(folder):
        write_in_place_of(folder, files, replace=True)


@contextmanager
def kept_whole(place: Path) -> Iterator[None]:
    """What is written inside is written whole or not at all, and the disk's own errors become one of ours.

    Raises:
        TrainingError: ``place`` could not be written; what was there is there still.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, LoraClfError):
            raise
        raise TrainingError(
            f"{place} could not be written: {error.strerror or error}. What was there before is there still, and the "
            "same command goes on from what is kept."
        ) from error


def read_outcome(folder: Path, digest: str | None = None) -> Outcome | None:
    """The outcome in ``folder``; None where there is none, it is broken, or it is of another ``digest``."""
    value: Any
    parts: Any
    try:
        value = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        if digest is not None and value["digest"] != digest:
            return None
        with np.load(folder / PREDICTIONS, allow_pickle=False) as arrays:
            parts = {
                part: Predictions(
                    arrays[f"{part}_rows"].astype(np.int64),
                    arrays[f"{part}_labels"],
                    arrays[f"{part}_probabilities"].astype(np.float64),
                )
                for part in ("test", "validation")
            }
        return Outcome(**value, **parts)
    # Absent or damaged: the cell runs again.
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def numbered_as(data: Dataset, outcome: Outcome) -> Outcome:
    """``outcome`` with the numbers that its rows have in ``data``: the same texts may stand in other rows by now."""

    def now(kept: Predictions, part: Part) -> Predictions:
        return replace(kept, rows=np.asarray(part.rows, dtype=np.int64))

    return replace(outcome, test=now(outcome.test, data.test), validation=now(outcome.validation, data.validation))


def digest_file(adapter: Path) -> Path:
    """The file beside a kept adapter that says which cell it came from; the adapter's folder holds only its own."""
    return adapter.with_name(f"{adapter.name}.digest")


def mark_of(digest: str, dtype: str) -> str:
    """What stands in that file: the cell, and the dtype of the tensors where it is not the usual one."""
    return digest if dtype == "fp32" else f"{digest} {dtype}"


def is_adapter_of(digest: str, adapter: Path, dtype: str = "fp32") -> bool:
    """Whether ``adapter`` is there, in that dtype, and came from the cell of this ``digest``."""
    try:
        kept = digest_file(adapter).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return False
    return kept == mark_of(digest, dtype) and (adapter / "adapter_config.json").is_file()


def predictions_of(data: Dataset, part: Part, probabilities: Any) -> Predictions:
    """``probabilities`` (N, C) of the rows of ``part``, as they are kept; of a task without such its logits."""
    return Predictions(
        np.asarray(part.rows, dtype=np.int64),
        np.asarray(data.label_ids(part) if data.task.softmax else data.task.targets(part.labels)),
        np.asarray(probabilities, dtype=np.float64),
    )


def whole_seeds(cells: Iterable[tuple[int, Found]], folds: int) -> dict[int, list[Found]]:
    """What was found with each seed, ascending, that has a cell for each of the ``folds``; others are left out."""
    by_seed: dict[int, list[Found]] = {}
    for seed, found in cells:
        by_seed.setdefault(seed, []).append(found)
    return {seed: found for seed, found in sorted(by_seed.items()) if len(found) == folds}


def rate_of(training: Iterable[Mapping[str, Any]]) -> dict[str, object]:
    """The learning rate that was used in the first of some runs, or what solved the problem instead."""
    first = next(iter(training), {})
    return {name: first[name] for name in (("solver", "l2") if "solver" in first else ("lr",)) if name in first}
