"""Runs a whole comparison: every strategy with every seed on the same rows, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_clf.comparison.arguments import BaseArguments, DataArguments
from lora_clf.comparison.comparison import (
    BaselineOutcome,
    Comparison,
    Failure,
    facts_of_base,
    facts_of_data,
    without_folders,
)
from lora_clf.comparison.contender import ALL, contenders_of, takeable
from lora_clf.comparison.curve import CurveRuns
from lora_clf.comparison.plan import Datasets, Plan, curve_of, with_digests
from lora_clf.comparison.recommendation import MARGIN, check_margin
from lora_clf.errors import UsageError
from lora_clf.experiment.environment import environment, environment_digest, provenance
from lora_clf.experiment.folder import Folder
from lora_clf.experiment.materials import draw_parts, load_parts
from lora_clf.experiment.tuning import plan_trials, tuned
from lora_clf.experiment.work import PlanProgress, Tell
from lora_clf.training.checkpoints import USUAL

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.comparison.task_comparison import TaskComparison
    from lora_clf.tasks.base import Task
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners.base import Tuner


def compare(
    base: str | BaseArguments = "minilm",
    data: str | Path | DataArguments = "sms-spam",
    strategies: Sequence[str | Tuner] | str | None = None,
    *,
    seeds: int | Sequence[int] = 3,
    out: str | Path,
    strategy_settings: Mapping[str, Mapping[str, Any]] | None = None,
    training: Mapping[str, Any] | None = None,
    reading: Mapping[str, Any] | None = None,
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
    checkpoint_every: int | str = USUAL,
    force: bool = False,
    plot_format: str = "png",
    margin: float = MARGIN,
    command: str | None = None,
    progress: Tell | None = None,
) -> Comparison | TaskComparison:
    """Compare strategies on the same splits and seeds, with plain baselines, and write the report.

    What comes back is a `Comparison`; where the task is not one label of several a `TaskComparison`, which is judged by
    the task's own score. Each finished run is kept in ``out`` at once, and of a run that lasts its newest checkpoints:
    an interrupted comparison that is started again does only what is missing. A run that fails is reported; the others
    go on.

    Args:
        base: the base's name, or all arguments of `load_base`.
        data: a corpus' name or a file, or all arguments.
        strategies: names or tuners, or "all" for every one that the base can take (the others are named in the report
            with the reason); the five of the first table by default.
        seeds: how many training seeds (0, 1, ...), or which.
        out: the folder for results, plots and report.
        strategy_settings: for each strategy name the hyperparameters that are not the default.
        training: keyword arguments of `TrainSettings`.
        reading: settings of `Reading`, for all strategies; default: what is too long is cut off.
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
        checkpoint_every: how often a run keeps a checkpoint: steps (100) or time ("60s"), as of `Checkpoints`.
        force: overwrite the comparison of another plan in ``out``; runs of it that fit are kept.
        plot_format: of the plot files: "png", "svg" or "pdf".
        margin: points that the recommended strategy may lose against the best.
        command: the command line, for the report.
        progress: told where the comparison stands.

    Raises:
        UsageError: the plan cannot be run, ``out`` holds the comparison of another one, or another process writes
            there.
        DataError, BaseError: nothing to compare on.
    """
    plan = Plan(
        contenders=contenders_of(strategies, strategy_settings),
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        base=BaseArguments(base) if isinstance(base, str) else base,
        data=data if isinstance(data, DataArguments) else DataArguments(str(data), _plain(data_settings or {}), folds),
        training=dict(training or {}),
        reading=dict(reading or {}),
        resplit=resplit,
        split_seed=split_seed,
        curve=None if curve is None else curve_of(curve, draws),
        tune=tune,
        fixed={} if tune is None else {name: sorted(given) for name, given in (strategy_settings or {}).items()},
    )
    return run_plan(
        plan,
        Path(out),
        leave_out=strategies == ALL,
        jobs=jobs,
        threads=threads,
        save_adapters=save_adapters,
        adapter_dtype=adapter_dtype,
        checkpoint_every=checkpoint_every,
        force=force,
        plot_format=plot_format,
        margin=margin,
        command=command,
        progress=progress,
    )


def run_plan(
    plan: Plan,
    out: Path,
    *,
    leave_out: bool = False,
    jobs: int = 1,
    threads: int | None = None,
    save_adapters: bool = False,
    adapter_dtype: str = "fp32",
    checkpoint_every: int | str = USUAL,
    force: bool = False,
    plot_format: str = "png",
    margin: float = MARGIN,
    command: str | None = None,
    progress: Tell | None = None,
) -> Comparison | TaskComparison:
    """Run ``plan``; `compare` says what the arguments are. ``leave_out``: without what cannot adapt the base."""
    from lora_clf.comparison.task_comparison import gathered
    from lora_clf.experiment.estimate import Clock, estimate
    from lora_clf.experiment.memory import give_back
    from lora_clf.experiment.untuned import measure_untuned
    from lora_clf.experiment.work import Work, batched, in_order, threads_each
    from lora_clf.experiment.worker import forks, prepare
    from lora_clf.reports.plots import check_format
    from lora_clf.reports.report import write_report
    from lora_clf.reports.task_report import write_task_report
    from lora_clf.training.objective import check_recipe
    from lora_clf.training.settings import TrainSettings

    check_format(plot_format)
    check_margin(margin)
    settings = TrainSettings(**plan.training)  # a wrong setting ends here, before anything is loaded
    threads = threads_each(jobs, threads)
    place = Folder(out, plan)  # what is wrong with it ends here
    if not force:
        place.refuse_foreign(plot_format)
    begin = time.perf_counter()
    loaded = load_parts(plan)
    first = next(iter(loaded.values()))
    check_recipe(first.task, settings)
    check_task(plan, first.task)
    drawn = draw_parts(plan, loaded)
    read = time.perf_counter() - begin
    plan.base.locate()  # a name that stands for nothing ends here, and a download
    if forks():
        prepare()  # what a worker imports once, and is no part of what a run takes
    begin = time.perf_counter()
    base = plan.base.load()
    start_up = read + time.perf_counter() - begin
    plan.base.answering(base, first.labels)  # words that cannot be told apart end here
    plan, refused = takeable(plan, base, first.task.outputs) if leave_out else (plan, [])
    folder = Folder(out, plan, save_adapters, adapter_dtype, checkpoint_every)
    facts: dict[str, Any] = {
        "base": facts_of_base(base),
        "data": facts_of_data(plan, loaded),
        "environment": environment(base, threads),
        "provenance": provenance(base, settings.precision, jobs),
    }
    if not force:
        folder.refuse_another(facts)
    with folder.held():
        folder.sweep()
        around = environment_digest(base, settings.precision, threads)
        cells = [with_digests(cell, base, loaded[cell.split_seed, cell.fold], around) for cell in plan.cells()]
        small = [with_digests(cell, base, drawn[cell.seed, cell.k], around) for cell in plan.curve_cells()]
        trials = plan_trials(plan, cells, base, first.task.outputs)
        untried = [trial for trial in trials if not folder.holds(trial)]
        if not untried:
            cells = [tuned(cell, folder.tunings(trials)) for cell in cells]
        # What a cell is to do is known once its hyperparameters are chosen; until then none is there.
        todo = [cell for cell in [*cells, *small] if untried or not folder.holds(cell)]
        prices = [*(trial.price for trial in untried), *(cell.price for cell in todo)]
        clock = Clock(estimate(plan, base, loaded, start_up) if prices else {}, prices, jobs)
        total = len(trials) + len(cells) + len(small)
        work = Work(progress or (lambda _: None), clock, total, jobs=jobs, threads=threads)
        work.keep(trial.name for trial in trials if trial not in untried)
        work.keep(cell.name for cell in [*cells, *small] if cell not in todo)
        work.estimate()
        for warning in facts["data"]["warnings"]:
            text = f"Warning: {warning.rstrip('.')}."
            work.tell(PlanProgress("", work.done, work.total, event="warning", message=text))
        classes = loaded if first.task.softmax else {}  # of other tasks the baselines are in `gathered`
        untuned = measure_untuned(base, classes, settings)
        near = measure_centroids(base, drawn, settings)
        del base  # the children load their own; two copies would be one too many
        give_back()
        work.failures.extend(untuned.failures)
        # First, so that what fails is known before hours have passed.
        baselines = measure_baselines(classes, work.failures)
        plain = measure_baselines(drawn, work.failures)
        for lost in tuple(work.failures):
            work.tell(PlanProgress(lost.cell, work.done, work.total, event="failed", message=lost.message))
        folder.claim(facts)
        if untried:
            groups = batched(untried, lambda trial: trial.cell)
            work.do(groups, folder)
            cells = [tuned(cell, folder.tunings(trials)) for cell in cells]
            todo = [cell for cell in [*cells, *small] if not folder.holds(cell)]
            there = [cell for cell in [*cells, *small] if cell not in todo]
            work.keep([cell.name for cell in there], [cell.price for cell in there])
        # Each in a process of its own, to know its memory; the many small runs of a curve share some.
        alone = [[cell] for cell in todo if cell.k is None]
        shared = batched([cell for cell in todo if cell.k is not None], lambda cell: cell)
        work.do([*alone, *shared], folder)
        failed = in_order(work.failures, [*trials, *cells, *small])
        failures = tuple(replace(each, message=without_folders(each.message) or "") for each in failed)
        facts |= {"command": without_folders(command), "margin": float(margin)}
        facts["left_out"] = [*refused, *untuned.left_out]
        outcomes = folder.outcomes(cells, [loaded[cell.split_seed, cell.fold] for cell in cells])
        if not first.task.softmax:
            found = gathered(plan, outcomes, loaded, failures, facts, folder.tunings(trials))
            write_task_report(found, out, plot_format)
            return found
        points = folder.outcomes(small, [drawn[cell.seed, cell.k] for cell in small])
        comparison = Comparison(
            plan=plan,
            outcomes=outcomes,
            baselines=(*baselines, *untuned.outcomes),
            failures=failures,
            facts=facts,
            datasets=loaded,
            curve=None if plan.curve is None else CurveRuns(points, (*plain, *near), drawn),
            tunings=folder.tunings(trials),
        )
        write_report(comparison, out, plot_format)
        return comparison


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they go to another process: a path is its text."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}


def check_task(plan: Plan, task: Task) -> None:
    """Refuse what does not go with ``task``, before anything is computed.

    Raises:
        UsageError: texts are joined in a way that it does not allow; or it is not one label of several, and the plan
            asks for what is only for such; all of it is named.
    """
    from lora_clf.base.reading import Reading
    from lora_clf.inference.documents import check_outputs

    check_outputs(Reading.restored(plan.reading), task.softmax, task.name)
    if task.softmax:
        return
    asked = {
        "--curve (it counts examples of each class)": plan.curve is not None,
        "--resplit and --repeats (the intervals are over rows that all seeds share; --folds covers every row)":
            plan.resplit,
        "--head verbalizer (it has a word for each label)": plan.base.template is not None,
    }  # fmt: skip
    if odd := "; ".join(flag for flag, came in asked.items() if came):
        raise UsageError(f"For a {task.name} task leave out {odd}.")


def measure_centroids(base: Base, datasets: Datasets, settings: TrainSettings) -> list[BaselineOutcome]:
    """The nearest centroid on every draw of a learning curve; what goes wrong with it was said of the whole data."""
    from lora_clf.experiment.untuned import CENTROID, frozen_baselines

    found = []
    for (draw, k), data in datasets.items():
        try:
            baseline = frozen_baselines(base, data, settings, draw).get(CENTROID)
        except Exception:  # no reason to lose what the strategies find
            break
        if baseline is None:
            break
        found.append(BaselineOutcome.of(CENTROID, baseline, data, draw, k))
    return found


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
            found.append(BaselineOutcome.of(label, baseline, data, seed, fold))
    return found
