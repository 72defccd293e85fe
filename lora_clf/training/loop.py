"""The training loop: one for all strategies, or a comparison would compare scripts.

It knows nothing of what a strategy trains. The one exception is a linear head on a frozen backbone, a convex problem:
it is solved (`lora_clf.training.solver`), unless a learning rate asks for steps. Shapes: B batch, T tokens, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_clf.base.base import Base
from lora_clf.base.documents import Documents
from lora_clf.base.reading import PLAIN, Reading, read
from lora_clf.base.tokenizer import Tokens
from lora_clf.base.verbalizer import Verbalizer
from lora_clf.data.dataset import Dataset
from lora_clf.errors import TrainingError, UsageError
from lora_clf.inference.documents import check_outputs
from lora_clf.inference.precision import autocast, resolve_precision
from lora_clf.inference.runner import Runner
from lora_clf.tasks.classification import Classification
from lora_clf.training.checkpoints import CheckpointFolder, Checkpoints
from lora_clf.training.decision import Decision
from lora_clf.training.diagnosis import diagnose
from lora_clf.training.ending import Ending
from lora_clf.training.interruption import Interruption
from lora_clf.training.objective import check_recipe
from lora_clf.training.record import record_of
from lora_clf.training.result import Progress, Result
from lora_clf.training.run import Run
from lora_clf.training.settings import TrainSettings
from lora_clf.training.snapshot import Best, check_identity, check_snapshot, identity, restore
from lora_clf.training.usage import usage
from lora_clf.tuners.base import Tuned, Tuner

if TYPE_CHECKING:
    from numpy.typing import NDArray


def train(
    base: Base,
    data: Dataset,
    tuner: Tuner,
    settings: TrainSettings | None = None,
    *,
    pooling: str | None = None,
    verbalizer: Verbalizer | None = None,
    reading: Reading = PLAIN,
    decision: Decision | None = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoints: Checkpoints | Path | str | None = None,
) -> Result:
    """Tune ``base`` into a classifier of ``data`` and score it.

    The base itself is not changed. The weights of the epoch with the lowest validation loss are kept. The
    base's own dropout is off, in frozen and in trained layers alike; a strategy's ``dropout`` is its own. Where
    only a linear head trains and no learning rate is given, the head is solved for instead (`solver`).

    Args:
        base: the shared base.
        data: training, validation and test parts.
        tuner: the strategy, as ``LoRA(rank=8)``.
        settings: epochs, batch size, learning rate, seed and so on.
        pooling: "mean", "first", "last" or "family" in place of the base's default.
        verbalizer: of a decoder: a template around each text, and the language model's own scores of the labels'
            words in place of a linear head. With ``epochs`` 0 that is what the base says untuned.
        reading: how texts are read that are longer than the base reads; by default what is too long is cut off.
        decision: threshold and temperature; by default a temperature where validation has rows enough for one.
        progress: called after every optimizer step.
        checkpoints: where to keep checkpoints and whether to go on from them, or the folder alone; by default there
            are none. A resumed run ends with the bytes of one that never stopped. With checkpoints Ctrl-C and SIGTERM
            wait for the end of the step, write one and then end the run. A head that is solved for needs none.

    Raises:
        UsageError: a setting does not fit the base, or what would be trained could not be saved, or not kept in a
            checkpoint.
        TargetError: the strategy's targets match nothing.
        TrainingError: the loss is no longer a finite number.
        CheckpointError: another run writes to that folder or was interrupted there; or none of its checkpoints is whole
            or belongs to this run.
    """
    if not isinstance(base, Base):
        raise UsageError(f"train() takes a base from load_base(), got {base!r}.")
    if not isinstance(tuner, Tuner):
        raise UsageError(f"train() takes a strategy such as LoRA(rank=8), got {tuner!r}.")
    settings = settings or TrainSettings()
    decision = decision or Decision()
    decision.check(data.task)
    check_recipe(data.task, settings)
    if verbalizer is not None or base.prompt is not None:
        if not isinstance(data.task, Classification):
            raise UsageError(f"--head verbalizer chooses one of several labels; the task is {data.task.name}.")
        if pooling not in (None, "last"):
            raise UsageError(f"--head verbalizer reads the last token; --pooling {pooling} does not apply.")
    if verbalizer is not None:
        base = verbalizer.on(base, data.labels)
    if base.prompt is not None and reading != PLAIN:
        raise UsageError("--head verbalizer reads a text in its template at once: --long and --clean do not apply.")
    check_outputs(reading, data.task.softmax, data.task.name)
    started = time.perf_counter()
    if checkpoints is None:
        run = _begin(base, data, tuner, settings, pooling, reading, progress, None, Interruption())
        _ending(run, decision).check(run.tuned)
        return _finish(run, _trained(run), decision, started)
    if not isinstance(checkpoints, Checkpoints):
        checkpoints = Checkpoints(checkpoints)
    with CheckpointFolder(checkpoints) as kept, Interruption() as interruption:
        begun: Run | None = None
        try:
            begun = _begin(base, data, tuner, settings, pooling, reading, progress, kept, interruption)
            _ending(begun, decision).check(begun.tuned)
            return _finish(begun, _trained(begun), decision, started)
        except KeyboardInterrupt:
            if begun is not None and not interruption.torn:
                begun.checkpoint()
            raise
        except TrainingError:
            kept.clear()  # who went on from there would come to the same end
            raise


def _begin(
    base: Base,
    data: Dataset,
    tuner: Tuner,
    settings: TrainSettings,
    pooling: str | None,
    reading: Reading,
    progress: Callable[[Progress], None] | None,
    kept: CheckpointFolder | None,
    interruption: Interruption,
) -> Run:
    """A run at its start, or where the newest checkpoint stands."""
    resumes = kept is not None and kept.settings.resume
    found = kept.newest() if kept is not None and resumes else None
    precision = settings.precision
    if found is not None and precision == "auto":  # which may mean something else here than there
        precision = str(found.facts.get("identity", {}).get("--precision", precision))
    precision = resolve_precision(precision, base.device)
    max_length = base.check_length(settings.max_length, tuner.extra_tokens)
    tuned = tuner.prepare(base.view(data.task.outputs, pooling, settings.seed, reading.combiner))
    mine = identity(base, data, tuner, settings, precision=precision, pooling=tuned.view.pooling, reading=reading)
    if found is not None:
        check_identity(found, mine)
    tokens = {name: read(base.tokenizer, part.texts, max_length, reading=reading) for name, part in data.parts.items()}
    reading, tokens = _with_prior(reading, tokens, data)
    run = Run(
        base=base,
        data=data,
        settings=settings,
        learning_rate=settings.lr or tuner.learning_rate,
        precision=precision,
        tokens=tokens,
        usage={name: usage(base.tokenizer, part.texts, tokens[name], reading) for name, part in data.parts.items()},
        reading=reading,
        tuned=tuned,
        progress=progress,
        identity=mine,
        checkpoints=kept,
        interruption=interruption,
    )
    if kept is not None:
        check_snapshot(run)
    if found is not None:
        run.notes += restore(run, found)
        run.resumed_step = run.step
    if kept is not None and resumes:
        kept.settings.say(
            f"Resumed after step {run.step:,} of {run.steps:,}."
            if found is not None
            else f"There is no checkpoint in {kept.path}; training begins at the start."
        )
    return run


def _with_prior(reading: Reading, tokens: dict[str, Tokens], data: Dataset) -> tuple[Reading, dict[str, Tokens]]:
    """The reading with the labels' shares among the chunks of training, where the joined answer depends on them."""
    train = tokens["train"]
    if not isinstance(train, Documents) or not data.task.softmax:
        return reading, tokens
    counts = np.bincount(np.repeat(data.task.targets(data.train.labels), train.chunks), minlength=data.task.outputs)
    informed = reading.with_prior(((counts + 1) / (counts.sum() + len(counts))).tolist())
    return informed, {
        name: replace(each, reading=informed) if isinstance(each, Documents) else each for name, each in tokens.items()
    }


def _trained(run: Run) -> Best:
    """The best weights that training finds, or those that are solved for where nobody asked for steps."""
    solved = run.convex and run.solvable and run.resumed_step is None
    with autocast("fp32", run.device):  # a backward pass too would follow an autocast of the caller's
        return run.solve() if solved else run.fit()


def _kept(run: Run) -> bool:
    """Whether all chunks of documents have kept vectors, which in fp32 are those of another pass to 1e-5."""
    return run.runner.cut.pooled and run.precision == "fp32" and isinstance(run.tokens["train"], Documents)


def _answered(own: Tuned, runner: Runner, tuned: Tuned, part: str) -> NDArray[np.float32]:
    """The logits (N, C) of a part by the weights of ``tuned`` on kept vectors; ``own`` is what ``runner`` runs."""
    own.load_state_dict(tuned.state_dict())
    return runner.all_logits(part)


def _ending(run: Run, decision: Decision) -> Ending:
    """What it takes to score the weights of a run, as it stands now; of the run itself no more than that."""
    scored = ("validation", "test")
    return Ending(
        base=run.base,
        data=run.data,
        task=run.task,
        tokens={name: run.tokens[name] for name in scored},
        targets={name: run.targets[name] for name in scored},
        decision=decision,
        max_length=run.base.check_length(run.settings.max_length, run.tuned.tuner.extra_tokens),
        reading=run.reading.settings(),
        answers=partial(_answered, run.tuned, run.runner.only(scored)) if _kept(run) else None,
        precision=run.precision,
        seed=run.settings.seed,
        learning_rate=run.learning_rate,
        recipe=run.recipe(),
    )


def _finish(run: Run, best: Best, decision: Decision, started: float) -> Result:
    """The adapter with the best weights, and its scores."""
    # The trained state moves into a fresh view: frozen matrices that were cast for speed stay behind.
    tuned = run.tuned.tuner.prepare(run.view.fresh())
    tuned.load_state_dict(best.state)
    ending = _ending(run, decision)
    found = ending.score(tuned)
    return Result(
        adapter=found.adapter,
        history=run.history,
        best_epoch=best.epoch,
        validation=found.scores["validation"],
        test=found.scores["test"],
        validation_logits=found.logits["validation"],
        test_logits=found.logits["test"],
        trainable_parameters=tuned.trainable_parameters,
        total_parameters=sum(parameter.numel() for parameter in tuned.view.parameters()),
        training_seconds=run.training_seconds + run.runner.prefix_seconds.get("train", 0.0),
        prefix_seconds=run.runner.prefix_seconds.get("train", 0.0),
        seconds=time.perf_counter() - started,
        warnings=(*run.data.warnings, *run.warnings(), *found.decided.warnings),
        decided=found.decided,
        resumed_step=run.resumed_step,
        checkpoints=run.checkpoints,
        ending=ending,
        diagnosis=diagnose(record_of(run, best.epoch)),
        usage=run.usage,
    )
