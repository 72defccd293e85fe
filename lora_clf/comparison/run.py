"""Runs a whole comparison: every strategy with every seed on the same rows, each in a process of its own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_clf.comparison.cell import predictions_of
from lora_clf.comparison.child import task_of
from lora_clf.comparison.comparison import (
    BaselineOutcome,
    Comparison,
    Failure,
    facts_of_base,
    facts_of_data,
    portable,
    without_folders,
)
from lora_clf.comparison.curve import CurveRuns
from lora_clf.comparison.environment import environment, environment_digest, provenance
from lora_clf.comparison.outcome import Outcome, is_adapter_of, read_outcome
from lora_clf.comparison.parts import Datasets, draw_parts, load_parts
from lora_clf.comparison.plan import (
    BaseArguments,
    Cell,
    DataArguments,
    Plan,
    canonical,
    contenders_of,
    curve_of,
    with_digests,
)
from lora_clf.comparison.progress import PlanProgress as PlanProgress
from lora_clf.comparison.progress import Tell
from lora_clf.comparison.tuning import Trial, plan_trials, read_trial, trial_task, tuned, tunings_of
from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.tuners.base import Tuner


def compare(
    base: str | BaseArguments = "minilm",
    data: str | Path | DataArguments = "sms-spam",
    strategies: Sequence[str | Tuner] | None = None,
    *,
    seeds: int | Sequence[int] = 3,
    out: str | Path,
    strategy_settings: Mapping[str, Mapping[str, Any]] | None = None,
    training: Mapping[str, Any] | None = None,
    data_settings: Mapping[str, Any] | None = None,
    folds: int | None = None,
    resplit: bool = False,
    split_seed: int = 0,
    curve: str | Sequence[int | str] | None = None,
    draws: int = 10,
    tune: int | None = None,
    jobs: int = 1,
    threads: int | None = None,
    save_adapters: bool = False,
    adapter_dtype: str = "fp32",
    force: bool = False,
    plot_format: str = "png",
    command: str | None = None,
    progress: Tell | None = None,
) -> Comparison:
    """Compare strategies on the same splits and seeds, with plain baselines, and write the report.

    Each finished run is kept in ``out`` at once: an interrupted comparison that is started again does only
    what is missing. A run that fails is reported; the others go on.

    Args:
        base: the base's name, or all arguments of `load_base`.
        data: a corpus' name or a file, or all arguments.
        strategies: names or tuners; the five of the first table by default.
        seeds: how many training seeds (0, 1, ...), or which.
        out: the folder for results, plots and report.
        strategy_settings: for each strategy name the hyperparameters that are not the default.
        training: keyword arguments of `TrainSettings`.
        data_settings: keyword arguments of `load_data`.
        folds: cut all rows into so many folds, each the test part once, in place of one split.
        resplit: let the split vary with the seed; by default all seeds share one.
        split_seed: the seed of the split.
        curve: examples of each class to learn from as well, as ``"16,32,64,all"``.
        draws: how many subsets of each such size are drawn, up to 64 a class; of more fewer.
        tune: how many choices of hyperparameters to try for each strategy, on folds inside the training part.
        jobs: how many runs at a time, each in a process of its own. Seconds are then those of a shared machine.
        threads: of each run; by default one a core, with several jobs the cores divided by them. Other threads may
            give other last bits; the same threads give the same results, whatever ``jobs``.
        save_adapters: keep the trained adapters, in ``out/adapters``.
        adapter_dtype: what they are kept in: "fp32", or "bf16", half as large.
        force: overwrite the comparison of another plan in ``out``; runs of it that fit are kept.
        plot_format: of the plot files: "png", "svg" or "pdf".
        command: the command line, for the report.
        progress: told where the comparison stands.

    Raises:
        UsageError: the plan cannot be run, or ``out`` holds the comparison of another one.
        DataError, BaseError: nothing to compare on.
    """
    plan = Plan(
        contenders=contenders_of(strategies, strategy_settings),
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        base=BaseArguments(base) if isinstance(base, str) else base,
        data=data if isinstance(data, DataArguments) else DataArguments(str(data), dict(data_settings or {}), folds),
        training=dict(training or {}),
        resplit=resplit,
        split_seed=split_seed,
        curve=None if curve is None else curve_of(curve, draws),
        tune=tune,
    )
    return run_plan(
        plan,
        Path(out),
        jobs=jobs,
        threads=threads,
        save_adapters=save_adapters,
        adapter_dtype=adapter_dtype,
        force=force,
        plot_format=plot_format,
        command=command,
        progress=progress,
    )


def run_plan(
    plan: Plan,
    out: Path,
    *,
    jobs: int = 1,
    threads: int | None = None,
    save_adapters: bool = False,
    adapter_dtype: str = "fp32",
    force: bool = False,
    plot_format: str = "png",
    command: str | None = None,
    progress: Tell | None = None,
) -> Comparison:
    """Run ``plan``; `compare` says what the arguments are."""
    from lora_clf.comparison.estimate import Clock, estimate
    from lora_clf.comparison.plots import check_format
    from lora_clf.comparison.report import write_report
    from lora_clf.comparison.work import Work, batched, threads_each
    from lora_clf.training.settings import TrainSettings

    check_format(plot_format)
    settings = TrainSettings(**plan.training)  # a wrong setting ends here, before anything is loaded
    threads = threads_each(jobs, threads)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out.name} is a file; expected a folder, or a name where there is nothing yet.")
    begin = time.perf_counter()
    loaded = load_parts(plan)
    drawn = draw_parts(plan, loaded)
    base = plan.base.load()
    facts = {
        "base": facts_of_base(base),
        "data": facts_of_data(plan, loaded),
        "environment": environment(base, threads),
        "provenance": provenance(base, settings.precision, jobs),
    }
    if not force:
        _refuse_another(plan, facts, out)
    _sweep(out)
    around = environment_digest(base, settings.precision, threads)
    cells = [with_digests(cell, base, loaded[cell.split_seed, cell.fold], around) for cell in plan.cells()]
    small = [with_digests(cell, base, drawn[cell.seed, cell.k], around) for cell in plan.curve_cells()]
    classes = len(next(iter(loaded.values())).labels)
    trials = plan_trials(plan, cells, base, classes)
    adapters = _adapter_names(plan) if save_adapters else {}

    def kept(cell: Cell) -> bool:
        target = adapters.get(cell.name)
        whole = target is None or is_adapter_of(cell.digest, out / "adapters" / target, adapter_dtype)
        return whole and read_outcome(out / "cells" / cell.name, cell.digest) is not None

    def tried(trial: Trial) -> bool:
        return read_trial(out / "tuning" / trial.name, trial.digest) is not None

    open_trials = [trial for trial in trials if not tried(trial)]
    if not open_trials:
        cells = [tuned(cell, tunings_of(plan, trials, out)) for cell in cells]
    todo: list[Cell] = [cell for cell in [*cells, *small] if open_trials or not kept(cell)]
    start_up = time.perf_counter() - begin
    prices = [*(trial.price for trial in open_trials), *(cell.price for cell in todo)]
    clock = Clock(estimate(plan, base, loaded, start_up) if prices else {}, prices, jobs)
    del base  # the children load their own; two copies would be one too many
    work = Work(progress or (lambda _: None), clock, len(trials) + len(cells) + len(small), jobs=jobs, threads=threads)
    work.keep(trial.name for trial in trials if trial not in open_trials)
    work.keep(cell.name for cell in [*cells, *small] if cell not in todo)
    work.estimate()
    baselines = measure_baselines(loaded, work.failures)  # first, so that what fails is known before hours have passed
    plain = measure_baselines(drawn, work.failures)
    for lost in tuple(work.failures):
        work.tell(PlanProgress(lost.cell, work.done, work.total, event="failed", message=lost.message))

    if open_trials:
        groups = batched(
            open_trials, lambda trial: (trial.cell.contender.label, trial.cell.split_seed, trial.cell.fold)
        )
        by_name = {trial.name: trial for trial in open_trials}
        work.do(
            [[trial_task(trial, out / "tuning" / trial.name) for trial in group] for group in groups],
            {trial.name: trial.price for trial in open_trials},
            lambda name: tried(by_name[name]),
        )
        cells = [tuned(cell, tunings_of(plan, trials, out)) for cell in cells]
        todo = [cell for cell in [*cells, *small] if not kept(cell)]
        there = [cell for cell in [*cells, *small] if cell not in todo]
        work.keep([cell.name for cell in there], {cell.name: cell.price for cell in there})
    tasks = {
        cell.name: task_of(
            cell,
            out / "cells" / cell.name,
            out / "adapters" / adapters[cell.name] if cell.name in adapters else None,
            adapter_dtype,
        )
        for cell in todo
    }
    by_cell = {cell.name: cell for cell in todo}
    groups_of_cells = batched([cell for cell in todo if cell.k is not None], lambda cell: cell.contender.label)
    work.do(
        [
            *([tasks[cell.name]] for cell in todo if cell.k is None),
            *([tasks[cell.name] for cell in group] for group in groups_of_cells),
        ],
        {cell.name: cell.price for cell in todo},
        lambda name: kept(by_cell[name]),
    )

    def found(wanted: Sequence[Cell]) -> tuple[Outcome, ...]:
        """In the order of the plan, whichever was done first."""
        read = (read_outcome(out / "cells" / cell.name, cell.digest) for cell in wanted)
        return tuple(outcome for outcome in read if outcome is not None)

    names = [*(trial.name for trial in trials), *(cell.name for cell in [*cells, *small])]
    order = {name: place for place, name in enumerate(names)}
    comparison = Comparison(
        plan=plan,
        outcomes=found(cells),
        baselines=tuple(baselines),
        failures=tuple(sorted(work.failures, key=lambda failure: order.get(failure.cell, -1))),
        facts=facts | {"command": without_folders(command)},
        datasets=loaded,
        curve=None if plan.curve is None else CurveRuns(found(small), tuple(plain), drawn),
        tunings=tunings_of(plan, trials, out),
    )
    write_report(comparison, out, plot_format)
    return comparison


def _sweep(out: Path) -> None:
    """Drop what runs that were killed had begun to write."""
    for partial in (out / "cells").glob("*.partial-*"):
        shutil.rmtree(partial, ignore_errors=True)


def measure_baselines(datasets: Datasets, failures: list[Failure]) -> list[BaselineOutcome]:
    """The plain classifiers on every data set; one that fails joins ``failures``."""
    from lora_clf.comparison.baselines import majority, tfidf

    found = []
    for label, measure in (("majority", majority), ("TF-IDF + LR", tfidf)):
        for (seed, fold), data in datasets.items():
            try:
                baseline = measure(data, seed)
            except Exception as error:  # of a library: no reason to lose what the strategies find
                failures.append(Failure(label, label, type(error).__name__, str(error)))
                break
            test = predictions_of(data, data.test, baseline.test_probabilities)
            validation = predictions_of(data, data.validation, baseline.validation_probabilities)
            accuracy = float(validation.correct.mean()) if len(validation) else 0.0
            found.append(BaselineOutcome(label, seed, fold, baseline, test, accuracy))
    return found


def _refuse_another(plan: Plan, facts: Mapping[str, Any], out: Path) -> None:
    """Refuse a folder with the results of another plan or of other data.

    Raises:
        UsageError: the folder holds such results, or what cannot be read as results.
    """
    try:
        there = json.loads((out / "results.json").read_text(encoding="utf-8"))
        found = dict(there["plan"]), [split["digest"] for split in there["facts"]["data"]["splits"]]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    mine = json.loads(canonical(portable(plan, facts["base"]["name"], facts["data"]["name"])))
    if found is not None and found[0] != mine:
        keys = sorted(key for key in mine if found[0].get(key) != mine[key])
        what = f"another comparison (other {', '.join(keys).replace('_', ' ')})"
    elif found is None or found[1] != [split["digest"] for split in facts["data"]["splits"]]:
        what = "a file results.json that cannot be read" if found is None else "a comparison on other data"
    else:
        return
    raise UsageError(f"{out.name} holds {what}. Choose another --out, or --force to overwrite its results.")


def _adapter_names(plan: Plan) -> dict[str, str]:
    """The adapter's folder for each cell: the strategy's name alone where there is one cell a strategy."""
    cells = plan.cells()
    alone = len(cells) == len(plan.contenders)
    return {cell.name: cell.name.rsplit(f"-seed-{cell.seed}", 1)[0] if alone else cell.name for cell in cells}
