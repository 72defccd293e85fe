"""The runs of a comparison inside the process of a test, and blank pictures: for tests of what becomes of the findings.

As a rule every run has a process of its own, whose start takes far longer than a run on a tiny base; pictures take
longer than both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import pytest
from matplotlib.figure import Figure

import lora_clf.adapters.adapter
import lora_clf.training.loop  # noqa: F401 - what a run imports, before a test changes what they take from each other
from lora_clf.comparison.comparison import Failure
from lora_clf.experiment import work
from lora_clf.experiment.child import News, Task
from lora_clf.experiment.materials import Materials
from lora_clf.experiment.worker import work as do


def run_batches(batches: Iterable[Sequence[Task]], jobs: int = 1, threads: int | None = None) -> Iterator[News]:
    """As `lora_clf.experiment.child.run_batches`, one after the other."""
    for batch in batches:
        materials = Materials()
        for task in batch:
            yield News(task, "start")
            heard: list[dict[str, Any]] = []
            try:
                do(task.request, heard.append, materials)
            except Exception as error:
                failure = Failure(task.name, task.label, type(error).__name__, str(error))
                yield News(task, "failed", failure=failure)
            else:
                yield from (News(task, "step", said["step"], said["steps"]) for said in heard)
                yield News(task, "done")


def blank(figure: Figure, file: IO[bytes], *, format: str, **_: object) -> None:
    """As `matplotlib.figure.Figure.savefig`, with nothing in the picture."""
    file.write({"png": b"\x89PNG", "svg": b"<svg></svg>", "pdf": b"%PDF"}[format])


def put(patch: pytest.MonkeyPatch) -> None:
    """Let comparisons do their runs here, and draw nothing."""
    patch.setattr(work, "run_batches", run_batches)
    patch.setattr(Figure, "savefig", blank)
