"""`lora-clf train`: tune a base with one strategy, score it, save the adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_clf.adapters.disk import folder_bytes
from lora_clf.cli.checkpoints import CheckpointFlags, going_on
from lora_clf.cli.decisions import DecisionFlags, decision_lines
from lora_clf.cli.findings import show_diagnosis
from lora_clf.cli.flags import AdapterDtype, BaseFlags, DataFlags, Force, Json, Seed, StrategyFlags, TrainFlags, takes
from lora_clf.cli.heads import HeadFlags
from lora_clf.cli.long_texts import ReadingFlags, usage_lines
from lora_clf.cli.opening import weightless
from lora_clf.cli.output import document, line, measured, note, percent, seconds, share, size, table, training_progress
from lora_clf.cli.places import check_writable, file_name
from lora_clf.cli.quiet import quiet_third_parties
from lora_clf.cli.scores import show_scores
from lora_clf.cli.sources import leak_lines, one_source, show_source

if TYPE_CHECKING:
    from lora_clf.data.dataset import Dataset
    from lora_clf.training.result import Result

app = typer.Typer(add_completion=False)
HOME = Path("my-adapters")


@app.command()
@takes
def train(
    context: typer.Context,
    source: Annotated[str | None, typer.Argument(metavar="DATA", help="A table, or a corpus: sms-spam, demo.")] = None,
    data: Annotated[str | None, typer.Option(help="The same as DATA.", rich_help_panel="Data")] = None,
    strategy: Annotated[str, typer.Option(help="See `lora-clf strategies`.", rich_help_panel="Strategy")] = "lora",
    out: Annotated[
        Path | None, typer.Option(help="The adapter's folder; by default my-adapters/DATA-STRATEGY.")
    ] = None,
    seed: Seed = 0,
    adapter_dtype: AdapterDtype = "fp32",
    force: Force = False,
    as_json: Json = False,
    *,
    tuning: StrategyFlags,
    shared: BaseFlags,
    heads: HeadFlags,
    columns: DataFlags,
    loop: TrainFlags,
    answers: DecisionFlags,
    texts: ReadingFlags,
    breaks: CheckpointFlags,
) -> None:
    """Tune a base into your classifier with one strategy, and save it as a small adapter."""
    quiet_third_parties()
    origin = one_source(source, data)
    from lora_clf.adapters.file import check_free

    tuner = tuning.create(strategy)
    decision = answers.decision()
    verbalizer = heads.chosen(shared.pooling)
    reading = texts.reading()
    folder = out or HOME / f"{file_name(origin)}-{strategy}"
    check_free(folder, force=force)  # before an hour of training, not after it
    check_writable(folder, "--out")
    checkpoints = breaks.checkpoints(folder, force=force)
    from lora_clf.adapters.adapter import check_dtype
    from lora_clf.base.base import load_base, pick_device
    from lora_clf.base.pooling import check_pooling
    from lora_clf.data.dataset import load_data
    from lora_clf.inference.documents import check_outputs
    from lora_clf.inference.precision import resolve_precision
    from lora_clf.training.loop import train as run_training
    from lora_clf.training.objective import check_recipe
    from lora_clf.training.settings import TrainSettings

    check_dtype(adapter_dtype)
    settings = TrainSettings(**loop, seed=seed, max_length=shared.max_length)
    resolve_precision(settings.precision, pick_device(shared.device))
    if shared.pooling is not None:
        check_pooling(shared.pooling)
    dataset = load_data(origin, **columns.settings(), seed=seed)
    decision.check(dataset.task)
    check_recipe(dataset.task, settings)
    check_outputs(reading, dataset.task.softmax, dataset.task.name)
    for warning in dataset.warnings:
        note(f"Warning: {warning.rstrip('.')}.")
    base = load_base(
        shared.base,
        revision=shared.revision,
        device=shared.device,
        pooling=shared.pooling,
        max_length=shared.max_length,
    )
    base.check_length(settings.max_length)
    if verbalizer is not None:
        verbalizer.on(base, dataset.labels)  # words that cannot be told apart end here
    # Targets and blocks that do not exist end here.
    tuner.prepare(weightless(base).view(dataset.task.outputs, combine=reading.combiner))
    if not as_json:
        show_source(dataset, columns.positive_label)
        line(leak_lines(dataset))
        line(f"Base: {base.name}, {base.total_parameters:,} parameters, on {base.device}.")
        line()
    with going_on(checkpoints, context.find_root().obj or ()):
        with training_progress() as progress:
            result = run_training(
                base,
                dataset,
                tuner,
                settings,
                verbalizer=verbalizer,
                reading=reading,
                decision=decision,
                progress=progress,
                checkpoints=checkpoints,
            )
        result = result.cast(adapter_dtype)  # what is shown are the scores of what is saved
        for warning in set(result.warnings) - set(dataset.warnings):  # those were told before it began
            note(f"Warning: {warning.rstrip('.')}.")
        saved = result.save(folder, force=force, dtype=adapter_dtype)
    if as_json:
        document(_json(result, dataset, saved))
    else:
        _show(result, dataset, saved)


def _json(result: Result, dataset: Dataset, saved: Path) -> dict[str, Any]:
    tuner = result.adapter.tuned.tuner
    return {
        "strategy": tuner.name,
        "settings": tuner.settings(),
        "validation": result.validation,
        "test": result.test,
        "hard": hard_scores(result, dataset),
        "temperature": result.decided and result.decided.temperature and result.decided.temperature.as_dict(),
        "threshold": result.decided and result.decided.threshold and result.decided.threshold.as_dict(),
        "diagnosis": [finding.as_dict() for finding in result.diagnosis],
        "history": result.history,
        "trainable_parameters": result.trainable_parameters,
        "total_parameters": result.total_parameters,
        "share": result.share,
        "adapter": str(saved),
        "adapter_bytes": folder_bytes(saved),
        "best_epoch": result.best_epoch,
        "resumed_step": result.resumed_step,
        "seconds": result.seconds,
        "training_seconds": result.training_seconds,
        "task": dataset.task.name,
        "task_reason": dataset.task_reason,
        "labels": list(dataset.labels),
        "positive_label": dataset.positive_label,
        "protocol": dataset.protocol,
        "leaks": dataset.leaks().as_dict()["parts"],
        "reading": {name: used.as_dict() for name, used in result.usage.items()},
        "warnings": list(dict.fromkeys([*dataset.warnings, *result.warnings])),
        "data_digest": dataset.digest,
        "base": result.adapter.base.name,
        "base_digest": result.adapter.base.digest,
    }


def _show(result: Result, dataset: Dataset, saved: Path) -> None:
    from lora_clf.tasks.base import Measure

    task = dataset.task
    measures = (task.primary, task.shown[1] if task.softmax else Measure("loss", "loss", share=False))
    table(
        ("epoch", "training loss", *(f"validation {each.title}" for each in measures)),
        [
            (
                entry["epoch"],
                f"{entry['train_loss']:.4f}",
                *(measured((entry.get("validation") or {}).get(each.key), each.share) for each in measures),
            )
            for entry in result.history
        ],
    )
    line()
    show_scores(task, {"validation": result.validation, "test": result.test}, dataset.positive_label)
    for name, hard in hard_scores(result, dataset).items():
        line(f"Of the {hard['n']} rows of {name} marked hard: accuracy {percent(hard['accuracy'])}.")
    for said in decision_lines(result.decided, dataset.positive_label) if result.decided else ():
        line(said)
    show_diagnosis(result.diagnosis)
    for said in usage_lines(result.usage, result.adapter.header.how):
        line(said)
    tuned = result.adapter.tuned
    if tuned.coverage is not None:
        line(f"Adapted: {tuned.coverage}.")
    line(
        f"Trainable parameters: {result.trainable_parameters:,} of {result.total_parameters:,} "
        f"({share(result.share)}); trained in {seconds(result.seconds)}."
    )
    line(f'Adapter: {saved} ({size(folder_bytes(saved))}). Use it: lora-clf predict {saved} "..."')


def hard_scores(result: Result, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Accuracy apart on the rows that the corpus marks as hard; nothing where it marks none."""
    from lora_clf.data.hard import hard_rows

    if not dataset.task.softmax:
        return {}
    found = {}
    for name, part, logits in (
        ("validation", dataset.validation, result.validation_logits),
        ("test", dataset.test, result.test_logits),
    ):
        hard = hard_rows(part)
        if hard.any():
            right = logits.argmax(axis=1) == dataset.label_ids(part)
            found[name] = {"n": int(hard.sum()), "accuracy": float(right[hard].mean())}
    return found
