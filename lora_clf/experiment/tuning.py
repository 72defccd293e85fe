"""Hyperparameters chosen before the comparison: the same number of trials for every strategy, on inner folds.

A strategy declares what may vary (`Tuner.search`). Its first trial is what it would use anyway; the others are drawn
at random from all combinations, without repeats (random search: Bergstra and Bengio 2012). A trial is trained and
scored on folds inside the training part: the validation and test rows of the comparison have no say in it.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.comparison.contender import Contender
from lora_clf.comparison.outcome import kept_whole
from lora_clf.comparison.plan import SCHEMA, Cell, Plan, digest_of, file_name
from lora_clf.comparison.trials import TrialOutcome, Tuning
from lora_clf.data.cache import write_whole
from lora_clf.errors import LoraClfError, TrainingError
from lora_clf.experiment.child import Task

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.experiment.materials import Materials
    from lora_clf.training.result import Progress

INNER_FOLDS = 3
RATE = "lr"  # what a search calls the learning rate, which is a setting of the loop
Say = Callable[[dict[str, Any]], None]


def trial_price(label: str) -> str:
    """What a trial is called where only its price counts."""
    return f"{label} trial"


@dataclass(frozen=True)
class Trial:
    """One unit of work: one strategy with one choice of hyperparameters, on all inner folds.

    Attributes:
        cell: strategy, settings, base and the data whose training part is cut into inner folds.
        number: from 1; the first has the settings that the strategy would use anyway.
    """

    cell: Cell
    number: int

    @property
    def name(self) -> str:
        """The trial's folder."""
        parts = [file_name(self.cell.contender.label), f"trial-{self.number}", f"split-{self.cell.split_seed}"]
        return "-".join(parts if self.cell.fold is None else [*parts, f"fold-{self.cell.fold}"])

    @property
    def price(self) -> str:
        """Trials of one price take about as long as each other."""
        return trial_price(self.cell.contender.label)

    @property
    def digest(self) -> str:
        """Equal digests, equal results."""
        return digest_of({"schema": SCHEMA, "trial": self.cell.digest, "inner_folds": INNER_FOLDS})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trial:
        """The trial that ``value`` came from."""
        return cls(Cell.from_json(value["cell"]), value["number"])


def trials_of(
    cell: Cell, count: int, base: Base | None = None, classes: int = 2, fixed: Sequence[str] = ()
) -> list[Trial]:
    """Up to ``count`` trials for the strategy of ``cell``: its own settings first, then others drawn at random.

    What was set by hand is not searched. The same cell gives the same trials.

    Args:
        cell: a cell of the comparison, with its digests.
        count: the budget.
        base: choices that it cannot take, as more blocks than it has, are left out; None keeps them.
        classes: how many labels the data has.
        fixed: what was set by hand and may be the default.
    """
    kind = type(cell.contender.tuner())
    usual = kind.flags()
    space = {
        name: tuple(values)
        for name, values in kind.search.items()
        if name not in fixed
        and (cell.training.get(RATE) is None if name == RATE else cell.contender.settings.get(name) == usual[name])
    }
    own = {name: kind.learning_rate if name == RATE else usual[name] for name in space}
    others = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    others = [choice for choice in others if choice != own]
    random = np.random.default_rng([cell.split_seed, cell.fold or 0, 0x7E57])
    found = [Trial(replace(cell, seed=0), 1)]
    for place in random.permutation(len(others)):
        if len(found) == count:
            break
        changed = _with(replace(cell, seed=0), others[place], own)
        if base is None or _fits(changed.contender, base, classes, kind.flags().keys() & others[place].keys()):
            found.append(Trial(changed, len(found) + 1))
    return found


def plan_trials(plan: Plan, cells: Sequence[Cell], base: Base, classes: int) -> list[Trial]:
    """The trials of every strategy on every training part."""
    if plan.tune is None:
        return []
    parts: dict[tuple[str, int, int | None], Cell] = {}
    for cell in cells:
        parts.setdefault((cell.contender.label, cell.split_seed, cell.fold), cell)
    return [
        trial
        for cell in parts.values()
        for trial in trials_of(cell, plan.tune, base, classes, plan.fixed.get(cell.contender.strategy, ()))
    ]


def _with(cell: Cell, choice: Mapping[str, Any], own: Mapping[str, Any]) -> Cell:
    """``cell`` with the hyperparameters of ``choice``; a rate that is the default anyway stays unsaid."""
    settings = {**cell.contender.settings, **{name: value for name, value in choice.items() if name != RATE}}
    training = dict(cell.training)
    if RATE in choice and choice[RATE] != own[RATE]:
        training[RATE] = choice[RATE]
    return replace(cell, contender=replace(cell.contender, settings=settings), training=training)


def _fits(contender: Contender, base: Base, classes: int, changed: Iterable[str]) -> bool:
    if not list(changed):  # only the rate: it fits any base
        return True
    try:
        contender.tuner().prepare(base.view(classes))
    except LoraClfError:
        return False
    return True


def trial_task(trial: Trial, folder: Path, every: int | str = "60s") -> Task:
    """The task of running one trial, with a checkpoint ``every`` so many steps or so much time."""
    request = {"kind": "trial", "trial": trial.to_json(), "folder": str(folder), "every": every}
    return Task(trial.name, trial.cell.contender.label, request)


def tuned(cell: Cell, tunings: Sequence[Tuning]) -> Cell:
    """``cell`` with what was chosen for its strategy on its training part."""
    for tuning in tunings:
        mine = (tuning.label, tuning.split_seed, tuning.fold) == (cell.contender.label, cell.split_seed, cell.fold)
        if mine and (chosen := tuning.chosen) is not None:
            training = dict(cell.training) | ({} if chosen.rate is None else {RATE: chosen.rate})
            return replace(cell, contender=replace(cell.contender, settings=dict(chosen.settings)), training=training)
    return cell


def run_trial(trial: Trial, folder: Path, say: Say, materials: Materials, every: int | str = "60s") -> TrialOutcome:
    """Train and score one choice of hyperparameters on the inner folds, and put what was found into ``folder``.

    A trial that was killed goes on in the fold and at the step of its newest checkpoint.

    Raises:
        DataError: there are too few training rows for inner folds; or the same arguments now give other data.
        BaseError: the same name is now another base.
    """
    from lora_clf.base.reading import Reading
    from lora_clf.experiment.cell import check, throttled
    from lora_clf.experiment.resuming import checkpoints_of, train_on
    from lora_clf.training.settings import TrainSettings

    cell = trial.cell
    base = materials.base(cell.base)
    whole = materials.data(cell)
    check(cell, base, whole)
    base = cell.base.answering(base, whole.labels)
    settings = TrainSettings(**cell.training, seed=cell.seed)
    reading = Reading.restored(cell.reading)
    tell = throttled(say)
    kept = checkpoints_of(folder, trial.digest)
    measure, rows = whole.task.primary, 0
    seconds = loss = cost = 0.0
    error = None
    for number, data in enumerate(materials.inner(cell.data, cell.split_seed, cell.fold, INNER_FOLDS)):

        def step(now: Progress, number: int = number) -> None:
            tell(replace(now, step=number * now.steps + now.step, steps=INNER_FOLDS * now.steps))

        begin = time.perf_counter()
        try:
            place = kept / f"fold-{number}"
            result = train_on(base, data, cell.contender.tuner(), settings, reading, place, every, step)
        except TrainingError as failed:  # a rate at which the loss is no number any more is an answer too
            seconds += time.perf_counter() - begin
            error = str(failed)
            break
        seconds += result.training_seconds
        rows += len(data.test)
        score = result.test[measure.key]
        cost += (1 - score if measure.higher else score) * len(data.test)
        loss += result.test["loss"] * len(data.test)
    outcome = TrialOutcome(
        digest=trial.digest,
        number=trial.number,
        settings=dict(cell.contender.settings),
        rate=cell.training.get(RATE),
        cost=None if error else cost / rows,
        loss=None if error else loss / rows,
        seconds=seconds,
        error=error,
    )
    with kept_whole(folder):
        write_whole(folder / "trial.json", f"{json.dumps(asdict(outcome), indent=1, allow_nan=False)}\n".encode())
    shutil.rmtree(kept, ignore_errors=True)
    return outcome


def read_trial(folder: Path, digest: str) -> TrialOutcome | None:
    """The outcome in ``folder``; None where there is none, it is broken, or it is of another ``digest``."""
    try:
        value = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
        return TrialOutcome(**value) if value["digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):  # absent or half written: the trial runs again
        return None


def tunings_of(plan: Plan, trials: Sequence[Trial], out: Path) -> tuple[Tuning, ...]:
    """What was tried and chosen, for every strategy and training part."""
    groups: dict[tuple[str, int, int | None], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.cell.contender.label, trial.cell.split_seed, trial.cell.fold), []).append(trial)
    found = []
    for (label, split_seed, fold), mine in groups.items():
        read = [read_trial(out / "tuning" / trial.name, trial.digest) for trial in mine]
        outcomes = tuple(outcome for outcome in read if outcome is not None)
        found.append(Tuning(label, split_seed, fold, plan.tune or 0, outcomes))
    return tuple(found)
