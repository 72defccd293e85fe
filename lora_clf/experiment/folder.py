"""The folder of a comparison: where each result lies, which of them are there, and whose they are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lora_clf.comparison.comparison import portable
from lora_clf.comparison.outcome import Outcome, is_adapter_of, kept_whole, numbered_as, read_outcome
from lora_clf.comparison.plan import Cell, Plan, canonical
from lora_clf.comparison.trials import Tuning
from lora_clf.data.cache import write_whole
from lora_clf.errors import UsageError
from lora_clf.experiment.child import Task, task_of
from lora_clf.experiment.tuning import Trial, read_trial, trial_task, tunings_of
from lora_clf.training.checkpoints import USUAL, parse_interval
from lora_clf.training.lock import HeldError, Lock

if TYPE_CHECKING:
    from lora_clf.data.dataset import Dataset

BEGUN: Final = "plan.json"


class Folder:
    """What a comparison keeps: ``cells``, ``tuning``, perhaps ``adapters``, and the report.

    Args:
        out: the folder; it need not be there yet.
        plan: whose results are kept.
        save_adapters: whether a cell is finished only with its adapter.
        dtype: of those adapters.
        every: how often a run keeps a checkpoint.

    Raises:
        UsageError: ``out`` is a file, or ``every`` is neither a number of steps nor a time.
    """

    def __init__(
        self, out: Path, plan: Plan, save_adapters: bool = False, dtype: str = "fp32", every: int | str = USUAL
    ) -> None:
        parse_interval(every)
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out.name} is a file; expected a folder, or a name where there is nothing yet.")
        self.out = out
        self._plan = plan
        self._dtype = dtype
        self._every = every
        self._adapters = _adapter_names(plan) if save_adapters else {}

    def refuse_foreign(self, plot_format: str) -> None:
        """Refuse a folder that holds no comparison and files of the names that one would write.

        Raises:
            UsageError: there are such files; they are named.
        """
        if (self.out / "results.json").exists() or self._begun() or not self.out.is_dir():
            return  # whose comparison it is `refuse_another` asks, once the data are known
        from lora_clf.reports.plots import DRAWINGS

        plots = "|".join(["score", "fit-.*", *(drawing.name for drawing in DRAWINGS)])
        mine = re.compile(rf"{re.escape(BEGUN)}|results\.csv|report\.(md|html)|curve\.csv|({plots})\.{plot_format}")
        if there := sorted(path.name for path in self.out.iterdir() if mine.fullmatch(path.name)):
            raise UsageError(
                f"{self.out.resolve().name} is no folder of a comparison and holds {', '.join(there)}. Choose another "
                "--out, or --force to overwrite."
            )

    def _begun(self) -> bool:
        """Whether a comparison has written down here what it is going to do."""
        try:
            return {"plan", "facts"} <= set(json.loads((self.out / BEGUN).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return False

    def refuse_another(self, facts: Mapping[str, Any]) -> None:
        """Refuse a folder with the results, finished or begun, of another plan or of other data.

        Raises:
            UsageError: the folder holds such results, or what cannot be read as results.
        """
        name = "results.json"
        if not (self.out / name).exists():
            if not any(path.is_dir() for part in ("cells", "tuning") for path in (self.out / part).glob("*")):
                return
            name = BEGUN
        try:
            there = json.loads((self.out / name).read_text(encoding="utf-8"))
            found = dict(there["plan"]), [split["digest"] for split in there["facts"]["data"]["splits"]]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        mine = self._told(facts)["plan"]
        if found is not None and found[0] != mine:
            keys = sorted(key for key in {*mine, *found[0]} if found[0].get(key) != mine.get(key))
            what = f"another comparison (other {', '.join(keys).replace('_', ' ')})"
        elif found is None or found[1] != [split["digest"] for split in facts["data"]["splits"]]:
            what = f"a file {name} that cannot be read" if found is None else "a comparison on other data"
        else:
            return
        raise UsageError(f"{self.out.name} holds {what}. Choose another --out, or --force to overwrite its results.")

    def claim(self, facts: Mapping[str, Any]) -> None:
        """Write down whose results these will be, before there is a report that says it.

        Raises:
            TrainingError: the disk does not take it.
        """
        with kept_whole(self.out / BEGUN):
            write_whole(self.out / BEGUN, f"{canonical(self._told(facts))}\n".encode())

    def _told(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Plan and data as they stand in results.json, without a path."""
        plan = json.loads(canonical(portable(self._plan, facts["base"]["name"], facts["data"]["name"])))
        splits = [{"digest": split["digest"]} for split in facts["data"]["splits"]]
        return {"plan": plan, "facts": {"data": {"splits": splits}}}

    @contextmanager
    def held(self) -> Iterator[None]:
        """A context in which no other comparison writes here: the lock of a process that dies falls with it.

        Raises:
            UsageError: another process writes here, or nobody can.
        """
        made = [folder for folder in (self.out, *self.out.parents) if not folder.exists()]
        lock = Lock(self.out / "lock")
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            lock.take()
        except HeldError as error:
            who = f"process {error.owner}" if error.owner is not None else "another process"
            raise UsageError(
                f"Another comparison ({who}) is writing to {self.out}. Wait for its end, or choose another --out."
            ) from error
        except OSError as error:
            raise UsageError(f"--out {self.out} cannot be written: {error.strerror or error}.") from error
        try:
            yield
        finally:
            lock.release()
            with suppress(OSError):  # what was made for nothing goes; what holds something stays
                for folder in made:
                    folder.rmdir()

    def sweep(self) -> None:
        """Drop what runs that were killed had begun to write."""
        for partial in (self.out / "cells").glob(".*-????????????"):
            shutil.rmtree(partial, ignore_errors=True)

    def task(self, unit: Cell | Trial) -> Task:
        """What a child is told to do."""
        if isinstance(unit, Trial):
            return trial_task(unit, self.out / "tuning" / unit.name, self._every)
        return task_of(unit, self.out / "cells" / unit.name, self._adapter(unit), self._dtype, self._every)

    def holds(self, unit: Cell | Trial) -> bool:
        """Whether the result of a run is there, with its adapter where adapters are kept."""
        if isinstance(unit, Trial):
            return read_trial(self.out / "tuning" / unit.name, unit.digest) is not None
        adapter = self._adapter(unit)
        whole = adapter is None or is_adapter_of(unit.digest, adapter, self._dtype)
        return whole and read_outcome(self.out / "cells" / unit.name, unit.digest) is not None

    def outcomes(self, cells: Sequence[Cell], data: Sequence[Dataset]) -> tuple[Outcome, ...]:
        """What was found, in the order of the cells, whichever was done first; ``data`` is that of each cell."""
        read = (read_outcome(self.out / "cells" / cell.name, cell.digest) for cell in cells)
        return tuple(numbered_as(own, outcome) for own, outcome in zip(data, read, strict=True) if outcome is not None)

    def tunings(self, trials: Sequence[Trial]) -> tuple[Tuning, ...]:
        """What was tried and chosen."""
        return tunings_of(self._plan, trials, self.out)

    def _adapter(self, cell: Cell) -> Path | None:
        name = self._adapters.get(cell.name)
        return None if name is None else self.out / "adapters" / name


def _adapter_names(plan: Plan) -> dict[str, str]:
    """The adapter's folder for each cell: the strategy's name alone where there is one cell a strategy."""
    cells = plan.cells()
    alone = len(cells) == len(plan.contenders)
    return {cell.name: cell.name.rsplit(f"-seed-{cell.seed}", 1)[0] if alone else cell.name for cell in cells}
