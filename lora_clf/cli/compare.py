"""`lora-clf compare`: strategies on the same footing, in one table with what each costs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_clf.cli.failure import Interrupted
from lora_clf.cli.flags import AdapterDtype, BaseFlags, DataFlags, Force, Json, StrategyFlags, TrainFlags, takes
from lora_clf.cli.heads import HeadFlags
from lora_clf.cli.long_texts import ReadingFlags
from lora_clf.cli.output import document, line, note, seconds, table
from lora_clf.cli.places import file_name
from lora_clf.cli.quiet import quiet_third_parties
from lora_clf.cli.sources import one_source
from lora_clf.comparison.arguments import LABELS
from lora_clf.errors import UsageError, unknown

if TYPE_CHECKING:
    from lora_clf.comparison.comparison import Comparison
    from lora_clf.comparison.task_comparison import TaskComparison
    from lora_clf.experiment.work import PlanProgress

app = typer.Typer(add_completion=False)
HOME = Path("runs")


@app.command()
@takes
def compare(
    source: Annotated[str | None, typer.Argument(metavar="DATA", help="A table, or a corpus: sms-spam, demo.")] = None,
    data: Annotated[str | None, typer.Option(help="The same as DATA.", rich_help_panel="Data")] = None,
    strategies: Annotated[
        str | None,
        typer.Option(help="Comma-separated names, or all that the base can take; by default the five best known."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="How many (3), or which (0,1,5); 3 by default.", show_default=False)
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Cut all rows into so many folds, each the test part once.")] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Split, or cut into folds, anew so many times, each with a seed of its own.")
    ] = None,
    resplit: Annotated[bool, typer.Option("--resplit", help="A new split with every seed.")] = False,
    seed: Annotated[int, typer.Option(help="Of the split that all seeds share.")] = 0,
    curve: Annotated[
        str | None,
        typer.Option(metavar="K,K,...", help="Learn from so many examples of each class as well, as 16,32,64,all."),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(help="Of the examples of --curve: 10 by default up to 64 a class, of more fewer.", min=1),
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(help="Choose each strategy's hyperparameters in so many trials inside the training part."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Runs at a time, each in a process of its own.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Of each run; by default the cores, divided by --jobs.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where results, plots and report go; by default runs/DATA.")] = None,
    save_adapters: Annotated[bool, typer.Option("--save-adapters", help="Keep the trained adapters.")] = False,
    adapter_dtype: AdapterDtype = "fp32",
    checkpoint_every: Annotated[
        str,
        typer.Option(
            metavar="N|TIME", help="Keep a checkpoint of each run every N steps (100) or after a time (60s); 0: none."
        ),
    ] = "60s",
    plot_format: Annotated[str, typer.Option(help="png, svg or pdf.")] = "png",
    margin: Annotated[float, typer.Option(help="Points that the recommended strategy may lose.")] = 1.0,
    force: Force = False,
    as_json: Json = False,
    *,
    tuning: StrategyFlags,
    shared: BaseFlags,
    heads: HeadFlags,
    columns: DataFlags,
    loop: TrainFlags,
    texts: ReadingFlags,
) -> None:
    """Try strategies on the same footing and show what each costs and buys: five of them, or those of --strategies.

    Strategy flags go to those of the strategies that have them; what is set by a flag is not tuned. Finished runs
    are kept in --out, and checkpoints of those that are not: the same command again does only what is missing. The
    results of another comparison there are overwritten with --force only.
    """
    quiet_third_parties()
    origin = one_source(source, data)
    names = chosen(strategies)
    settings = tuning.each(names)
    verbalizer = heads.chosen(shared.pooling)
    reading = texts.reading().settings()
    if repeats is not None and (seeds is not None or resplit):
        raise UsageError("--repeats gives each repeat a split and a seed of its own; it takes no --seeds or --resplit.")
    if repeats is not None and repeats < 1:
        raise UsageError(f"--repeats {repeats}: expected at least 1.")
    if resplit and seed:
        raise UsageError(f"--resplit splits with each of --seeds; --seed {seed} does not apply.")
    if draws is not None and curve is None:
        raise UsageError(f"--draws {draws} is about --curve, which was not given.")
    counted = numbers(seeds or "3") if repeats is None else list(range(seed, seed + repeats))
    from lora_clf.adapters.adapter import check_dtype
    from lora_clf.base.base import pick_device
    from lora_clf.comparison.arguments import BaseArguments
    from lora_clf.comparison.comparison import without_folder
    from lora_clf.comparison.contender import ALL
    from lora_clf.experiment.run import compare as run_comparison

    check_dtype(adapter_dtype)
    if adapter_dtype != "fp32" and not save_adapters:
        raise UsageError(f"--adapter-dtype {adapter_dtype} is about --save-adapters, which was not given.")
    pick_device(shared.device)
    folder = out or HOME / file_name(origin)
    try:
        with plan_progress() as progress:
            found = run_comparison(
                BaseArguments(shared.base, shared.revision, shared.device, shared.pooling, shared.max_length).asking(
                    verbalizer
                ),
                origin,
                ALL if is_all(strategies) else names,
                seeds=counted,
                out=folder,
                strategy_settings=settings,
                training=dict(loop),
                reading=reading,
                data_settings=columns.settings() if folds is None else fold_settings(columns),
                folds=folds,
                resplit=resplit or repeats is not None,
                split_seed=seed,
                curve=curve,
                draws=draws or 10,
                tune=tune,
                jobs=jobs,
                threads=threads,
                save_adapters=save_adapters,
                adapter_dtype=adapter_dtype,
                checkpoint_every=checkpoint_every,
                force=force,
                plot_format=plot_format,
                margin=margin,
                command=shlex.join(["lora-clf", *map(without_folder, sys.argv[1:])]),
                progress=progress,
            )
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"Interrupted. Finished runs are kept in {folder}; the same command does only what is missing."
        ) from error
    if as_json:
        value = found.to_json()
        for long in ("predictions", "runs", "test_rows"):  # they are in the results file
            value.pop(long, None)
        document({**value, "out": str(folder)})
    else:
        show(found, folder)
    if found.failures:
        raise typer.Exit(1)


def chosen(strategies: str | None) -> list[str]:
    """The strategies' names: the five of the first table, those listed, or all.

    Raises:
        UsageError: there is no such strategy.
    """
    from lora_clf import tuners
    from lora_clf.comparison.contender import STRATEGIES

    if strategies is None:
        return list(STRATEGIES)
    if is_all(strategies):
        return list(tuners.strategies())
    names = [name.strip() for name in strategies.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--strategies {strategies!r} names none. There are: {', '.join(tuners.strategies())}.")
    for name in names:
        if name not in tuners.strategies():
            raise unknown("strategy", name, tuners.strategies())
    return names


def is_all(strategies: str | None) -> bool:
    """Whether every strategy is meant, those left out that the base cannot take."""
    return strategies is not None and strategies.strip() == "all"


def numbers(seeds: str) -> int | list[int]:
    """``"3"`` is three seeds, ``"0,1,5"`` are these.

    Raises:
        UsageError: neither.
    """
    try:
        values = [int(piece) for piece in seeds.split(",") if piece.strip()]
    except ValueError:
        values = []
    if not values or min(values) < 0 or values == [0]:
        raise UsageError(f"--seeds {seeds}: expected how many, as 3, or which, as 0,1,5.")
    return values[0] if len(values) == 1 and "," not in seeds else values


def fold_settings(columns: DataFlags) -> dict[str, Any]:
    """What says how a table is read, what is learned and how it is cut into folds."""
    cut = ("protocol", "group_column", "balance", "positive_label")
    usual = type(columns)()
    given = {name: value for name in cut if (value := getattr(columns, name)) is not None}
    asked = {name: value for name in LABELS if (value := getattr(columns, name)) != getattr(usual, name)}
    return {**columns.table_settings(beside=cut), **given, **asked}


def show(found: Comparison | TaskComparison, folder: Path) -> None:
    """Print the table, what has to be known to read it, the answer and the files."""
    from lora_clf.comparison.comparison import Comparison
    from lora_clf.reports.task_report import notes_of, table_of

    if isinstance(found, Comparison):
        show_classes(found)
    else:
        table(*table_of(found))
        line()
        for remark in notes_of(found):
            line(remark)
    line()
    line(found.verdict)
    line(f"Report, table, plots and results: {folder}")


def show_classes(found: Comparison) -> None:
    """Print the table of a classification, its notes and its learning curve."""
    from lora_clf.reports.table import as_rich, cells_of, columns_of, footnotes

    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        for each in as_rich(found, console.width):
            console.print(each)
    else:
        table([column.heading for column in columns_of(found)], cells_of(found))
    line()
    for remark in footnotes(found):
        line(remark)
    if found.curve is not None:
        from lora_clf.comparison.curve import sentence_of
        from lora_clf.reports.chapters import curve_table

        line()
        line("Test accuracy, %, by examples of each class, with the 95 % interval over draws:")
        table(*curve_table(found, "accuracy"))
        line(sentence_of(found))


@contextmanager
def plan_progress() -> Iterator[Callable[[PlanProgress], None]]:
    """A callback for the comparison: in a terminal a bar for the whole plan, elsewhere a line a run."""
    if not sys.stderr.isatty():
        yield _lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %, {task.fields[left]}"),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("loading", total=None, left="")

        def drawn(now: PlanProgress) -> None:
            inside = now.step / now.steps if now.steps else 0.0
            left = "" if now.seconds_left is None else f"{seconds(now.seconds_left)} left"
            place = f"run {min(now.done + 1, now.total)} of {now.total} {now.cell}".rstrip()
            bar.update(task, description=place, completed=now.done + inside, total=now.total, left=left)
            if text := _words(now):
                console.print(text, highlight=False, markup=False)

        yield drawn


def _lines(now: PlanProgress) -> None:
    if text := _words(now):
        note(text)


def _words(now: PlanProgress) -> str:
    """The line for an event that deserves one."""
    if now.event in ("estimate", "warning"):
        return now.message
    if now.event not in ("done", "kept", "failed"):
        return ""
    left = "" if not now.seconds_left else f", {seconds(now.seconds_left)} left"
    text = f"{now.cell}: {'kept from before' if now.event == 'kept' else now.event}"
    text += f", {now.done} of {now.total}{left}" if now.event != "kept" else ""
    return f"{text}: {now.message}" if now.message else text
