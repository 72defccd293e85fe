"""A comparison of strategies where the task is not one label of several: numbers, ordered classes, several labels.

The same footing, one run after another in this process: a strategy and a seed make a run, which is kept in the folder
when it is done, so that the same command does only what is missing. What each test row costs is kept with it, no text.
Beside the strategies stand the constant answer and TF-IDF (`lora_clf.comparison.task_baselines`).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_clf.comparison import task_baselines
from lora_clf.comparison.environment import environment_digest
from lora_clf.comparison.outcome import kept_whole
from lora_clf.comparison.plan import canonical
from lora_clf.comparison.size import folder_bytes
from lora_clf.data.cache import write_whole
from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.base.reading import Reading
    from lora_clf.comparison.contender import Contender
    from lora_clf.data.dataset import Dataset
    from lora_clf.tasks.base import Task

BASELINES = ("constant", "TF-IDF")
RESULTS = "results.json"


@dataclass(frozen=True)
class TaskRun:
    """What one run found.

    Attributes:
        label: the contender's, or a baseline's; ``seed`` of the training.
        scores: `Task.assess` of the test rows.
        costs: what each test row costs; ``validation_costs`` likewise.
        values: of a regression what was answered to each test row.
        parameters: how many numbers trained; None for a baseline.
        bytes: of the saved adapter.
        seconds: of the training, kept states charged at their full price.
        settings: the strategy's, or what was chosen for TF-IDF.
    """

    label: str
    seed: int
    scores: dict[str, Any]
    costs: list[float]
    validation_costs: list[float]
    values: list[float] = field(default_factory=list)
    parameters: int | None = None
    bytes: int | None = None
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TaskComparison:
    """Everything that was found.

    Attributes:
        data: training, validation and test parts.
        runs: strategies first, in the order of the table.
        facts: base, data digest, training settings.
        margin: points that the recommended strategy may lose.
    """

    data: Dataset
    runs: tuple[TaskRun, ...]
    facts: Mapping[str, Any]
    margin: float

    @property
    def labels(self) -> tuple[str, ...]:
        """Every contender, then the baselines."""
        return tuple(dict.fromkeys(run.label for run in self.runs))

    @property
    def strategies(self) -> tuple[str, ...]:
        """The contenders alone."""
        return tuple(label for label in self.labels if label not in BASELINES)

    def of(self, label: str) -> list[TaskRun]:
        """The runs of one, by seed."""
        return [run for run in self.runs if run.label == label]


def compare_task(
    base: Base,
    data: Dataset,
    contenders: Sequence[Contender],
    seeds: Sequence[int],
    out: Path,
    *,
    training: Mapping[str, Any] | None = None,
    reading: Mapping[str, Any] | None = None,
    margin: float = 1.0,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> TaskComparison:
    """Run what is missing in ``out`` and return everything.

    Args:
        base: the shared base.
        data: whose task is not one label of several.
        contenders: the strategies.
        seeds: of the trainings.
        out: the folder.
        training: keyword arguments of `TrainSettings`.
        reading: those of `Reading`; default: what is too long is cut off.
        margin: points that the recommended strategy may lose.
        force: overwrite another comparison's results.
        say: told when a run ends.

    Raises:
        UsageError: there are results of another comparison in ``out``.
    """
    from lora_clf.base.reading import Reading
    from lora_clf.inference.documents import check_outputs
    from lora_clf.training.settings import TrainSettings

    training, how = dict(training or {}), Reading(**(reading or {}))
    check_outputs(how, data.task.softmax, data.task.name)
    precision = TrainSettings(**training).precision
    facts = {
        "task": data.task.name,
        "base": base.name,
        "base_digest": base.digest,
        "data": data.name,
        "data_digest": data.digest,
        "training": training,
        **({"reading": asked} if (asked := how.settings()) else {}),
        "environment": environment_digest(base, precision),
    }
    _refuse_another(out, facts, force)
    cells = out / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    runs = []
    units: list[tuple[str, int, Contender | None]] = [(c.label, seed, c) for c in contenders for seed in seeds]
    units += [(name, seeds[0], None) for name in BASELINES]
    for number, (label, seed, contender) in enumerate(units, 1):
        unit = {**facts, "label": label, "seed": seed, "settings": contender.settings if contender else {}}
        digest = hashlib.sha256(canonical(unit).encode()).hexdigest()
        place = cells / f"{label}-{seed}.json"
        run = _kept(place, digest)
        if run is None:
            made = _baseline(data, label) if contender is None else _trained(base, data, contender, seed, training, how)
            run = made if contender is not None else TaskRun(**{**asdict(made), "seed": seed})
            _write(place, {"digest": digest, "run": asdict(run)})
            say(f"{label}, seed {seed}: done, {number} of {len(units)}.")
        runs.append(run)
    return TaskComparison(data, tuple(runs), facts, margin)


def _trained(
    base: Base, data: Dataset, contender: Contender, seed: int, training: Mapping[str, Any], reading: Reading
) -> TaskRun:
    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings

    result = train(base, data, contender.tuner(), TrainSettings(**training, seed=seed), reading=reading)
    task = result.adapter.header.answering
    with tempfile.TemporaryDirectory() as folder:
        size = folder_bytes(result.save(Path(folder) / "adapter"))
    found = _scored(task, data, result.validation_logits, result.test_logits)
    return TaskRun(
        contender.label,
        seed,
        **found,
        parameters=result.trainable_parameters,
        bytes=size,
        seconds=result.training_seconds,
        settings=contender.settings,
    )


def _baseline(data: Dataset, label: str) -> TaskRun:
    plain = task_baselines.constant(data) if label == "constant" else task_baselines.tfidf(data)
    validation = data.task.targets(data.validation.labels)
    task = data.task.settled(validation, plain.validation_logits)
    found = _scored(task, data, plain.validation_logits, plain.test_logits)
    return TaskRun(label, 0, **found, seconds=plain.seconds, settings=dict(plain.choice))


def _scored(task: Task, data: Dataset, validation: Any, test: Any) -> dict[str, Any]:
    """Scores and costs by the names of `TaskRun`."""
    targets = task.targets(data.test.labels)
    values = [float(value) for value in task.values(test)] if hasattr(task, "values") else []
    costs = {
        "costs": task.costs(targets, test),
        "validation_costs": task.costs(task.targets(data.validation.labels), validation),
    }
    rounded = {name: [round(float(cost), 6) for cost in each] for name, each in costs.items()}
    return {"scores": task.assess(targets, test), "values": values, **rounded}


def _kept(place: Path, digest: str) -> TaskRun | None:
    """The run of that digest; None where there is none, or it is broken."""
    try:
        value = json.loads(place.read_text(encoding="utf-8"))
        return TaskRun(**value["run"]) if value["digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refuse_another(out: Path, facts: Mapping[str, Any], force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out.name} is a file; expected a folder, or a name where there is nothing yet.")
    if force or not (out / RESULTS).exists():
        return
    try:
        there = json.loads((out / RESULTS).read_text(encoding="utf-8"))["facts"]
        same = all(there[name] == facts[name] for name in ("task", "base_digest", "data_digest"))
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise UsageError(
            f"{out} holds the results of another comparison. Choose another --out, or --force to overwrite them."
        )


def _write(place: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    with kept_whole(place):
        write_whole(place, f"{json.dumps(value, ensure_ascii=False, allow_nan=False)}\n".encode())


def write_results(found: TaskComparison, standing: Any, out: Path) -> None:
    """``results.json``: the table, the answer and each run; row numbers and costs, no texts."""
    value = {
        "facts": dict(found.facts),
        "primary": found.data.task.primary.key,
        "margin": found.margin,
        "rows": {name: len(part) for name, part in found.data.parts.items()},
        "standing": standing.to_json(),
        "test_rows": list(found.data.test.rows),
        "runs": [asdict(run) for run in found.runs],
    }
    _write(out / RESULTS, value)
