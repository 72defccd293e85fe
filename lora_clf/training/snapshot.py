"""What a checkpoint holds of a run, and how a run goes on from one: bit for bit as if it had never stopped.

Random numbers depend on the seed and the step alone (`lora_clf.training.run`), and the order of the data on the seed
and the epoch, so neither has a state to keep. What is kept: the weights that train, the optimizer's moments and step
counts, the loss scaler, what the strategy carries from step to step, the best epoch so far with its weights, the
position inside the epoch with the loss so far, and the history. Loading is not resuming: it is checked that what was
loaded trains, and that the loss of the first training texts is the one that was stored with the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from lora_clf.base.base import Base
from lora_clf.base.reading import PLAIN, Reading
from lora_clf.base.source import rooms, source_of
from lora_clf.data.dataset import Dataset
from lora_clf.errors import CheckpointError, StateError, UsageError
from lora_clf.inference.attention import kernel_rule
from lora_clf.inference.cache import facts_of
from lora_clf.inference.prefix import NOTHING
from lora_clf.training.checkpoint import Checkpoint, storable
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners.base import Tuner

if TYPE_CHECKING:
    from lora_clf.training.run import Run

_PROBE_TEXTS: Final = 4
# A loss may differ by so much of max(1, loss): on the same machine, elsewhere.
_TOLERANCE, _TOLERANCE_ELSEWHERE = 1e-4, 0.02


@dataclass(frozen=True)
class Best:
    """The weights of the best epoch so far, and how bad it is (`lora_clf.training.stopping`)."""

    epoch: int
    worth: tuple[float, ...]
    state: dict[str, Tensor]


def identity(
    base: Base,
    data: Dataset,
    tuner: Tuner,
    settings: TrainSettings,
    *,
    precision: str,
    pooling: str,
    reading: Reading = PLAIN,
) -> dict[str, Any]:
    """All that a run is, by the names that people know: what differs in one of them is another run.

    Args:
        base: the base.
        data: the data.
        tuner: the strategy.
        settings: of the loop.
        precision: "fp32", "bf16" or "fp16", resolved.
        pooling: of the view.
        reading: of long texts.
    """
    flags = {**tuner.settings(), **settings.as_dict(), **reading.settings()}
    flags |= {
        "lr": settings.lr or tuner.learning_rate,
        "max_length": base.check_length(settings.max_length, tuner.extra_tokens),
        "precision": precision,
        "pooling": pooling,
        "strategy": tuner.name,
    }
    if base.prompt is not None:
        flags |= {"template": base.prompt.template, "verbalizer": list(base.prompt.words)}
    return {
        **{f"--{name.replace('_', '-')}": value for name, value in flags.items()},
        "base": base.name,
        "base digest": base.digest,
        "tokenizer digest": base.tokenizer_digest,
        "data": data.name,
        "data digest": data.digest,
        "labels": list(data.labels),
        "positive label": data.positive_label,
        **({} if data.other_task is None else {"task": data.task.name, "task settings": data.task.settings()}),
        "kernels": f"{base.device.type}/{kernel_rule(base.device)}",
    }


def check_identity(checkpoint: Checkpoint, mine: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another run.

    Raises:
        CheckpointError: settings, data, base or strategy are others; all of them are named.
    """
    theirs = checkpoint.facts["identity"]
    different = [
        f"{name} is {_short(mine.get(name))}, the checkpoint has {_short(theirs.get(name))}"
        for name in sorted(mine.keys() | theirs.keys())
        if _plain(mine.get(name)) != theirs.get(name)
    ]
    if different:
        raise CheckpointError(
            f"This is not the run that was interrupted: {'; '.join(different)}. Repeat its command with --resume, or "
            "start anew with --force in place of --resume."
        )


def check_snapshot(run: Run) -> None:
    """Refuse a strategy of whose run no checkpoint could be made, before it trains.

    Raises:
        UsageError: its optimizer moves what `Tuned.trainable` does not name, or what it carries cannot be stored.
    """
    trainable, carried = run.tuned.trainable(), run.tuned.run_state()
    named = {id(parameter) for parameter in trainable.values()}
    problems = []
    if unnamed := sum(1 for parameter in run.parameters if id(parameter) not in named):
        problems.append(f"parameter_groups() holds {unnamed} tensors that trainable() does not name")
    tensors = {**trainable, **{f"run_state() {n}": value for n, value in carried.items() if isinstance(value, Tensor)}}
    problems += [f"{name} is of type {each.dtype}" for name, each in tensors.items() if not storable(each.dtype)]
    for name, value in carried.items():
        if not isinstance(value, Tensor):
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                problems.append(f"run_state() {name} is a {type(value).__name__} that is no tensor and no plain JSON")
    if problems:
        raise UsageError(
            f"No checkpoint can be made of a {run.tuned.tuner.name} run: {'; '.join(problems)}. Mend the strategy, or "
            "call train() without checkpoints."
        )


def snapshot(run: Run) -> Checkpoint:
    """The moment at which ``run`` stands, between two steps; tensors are the run's own, to be written at once."""
    trainable = run.tuned.trainable()
    names = {id(parameter): name for name, parameter in trainable.items()}
    moments: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter in run.parameters:
        for key, value in run.optimizer.state.get(parameter, {}).items():
            kind: dict[str, Any] = moments if isinstance(value, Tensor) else numbers
            kind[f"{key}/{names[id(parameter)]}"] = value
    carried = run.tuned.run_state()
    facts = {
        "identity": _plain(run.identity),
        "environment": _plain(environment(run)),
        "position": {
            "step": run.step,
            "steps": run.steps,
            "epoch": run.epoch,
            "batch": run.batch,
            "weight": run.weight,
            "loss_sum": float(run.loss_sum),
        },
        "history": run.history,
        "best": None if run.best is None else {"epoch": run.best.epoch, "worth": list(run.best.worth)},
        "optimizer": numbers,
        "scaler": run.scaler.state_dict(),
        "strategy": {name: value for name, value in carried.items() if not isinstance(value, Tensor)},
        "seconds": run.elapsed(),
        "probe": probe(run),
    }
    tensors = {
        "weights": {name: parameter.detach() for name, parameter in trainable.items()},
        "optimizer": moments,
        "best": {} if run.best is None else run.best.state,
        "strategy": {name: value for name, value in carried.items() if isinstance(value, Tensor)},
    }
    return Checkpoint(facts, tensors)


def restore(run: Run, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Put ``run``, which has not begun, where the checkpoint stands; what a person should know about that.

    Raises:
        CheckpointError: it does not fit the run, nothing would train, or the loss is another one.
    """
    facts, tensors = checkpoint.facts, checkpoint.tensors
    try:
        _load_weights(run, tensors.get("weights", {}))
        _load_optimizer(run, {**tensors.get("optimizer", {}), **facts["optimizer"]})
        run.tuned.load_run_state({**tensors.get("strategy", {}), **facts["strategy"]})
        if run.scaler.is_enabled():
            run.scaler.load_state_dict(facts["scaler"])
        at = facts["position"]
        run.step, run.epoch, run.batch, run.weight = at["step"], at["epoch"], at["batch"], at["weight"]
        run.loss_sum = torch.tensor(at["loss_sum"], device=run.device)
        run.history = facts["history"]
        if facts["best"] is not None:
            run.best = Best(facts["best"]["epoch"], tuple(facts["best"]["worth"]), tensors["best"])
        run.training_seconds = facts["seconds"]
    except StateError as error:
        raise CheckpointError(f"The checkpoint does not fit this run: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"The checkpoint does not hold what a run needs ({error!r}).") from error
    _check_trains(run)
    return _check_loss(run, facts)


def environment(run: Run) -> dict[str, Any]:
    """What besides the run itself decides the last bits: versions, code, machine, threads, what is kept of the base."""
    facts = facts_of(run.base, run.view.pooling, NOTHING, run.precision)
    names = ("torch", "transformers", "code", "machine")
    return {name: facts[name] for name in names} | {
        "peft": version("peft"),
        "training code": _code_digest(),
        "threads": torch.get_num_threads(),
        "frozen blocks kept": run.runner.cut.blocks,
    }


def probe(run: Run) -> float:
    """The loss of the first training texts, without dropout; nothing of the run changes."""
    rows = np.arange(min(_PROBE_TEXTS, len(run.lengths)))
    was_training = run.view.training
    run.view.eval()
    try:
        with torch.no_grad():
            answers = run.runner.logits("train", rows, training=False).float().cpu()  # (B, C)
    finally:
        run.view.train(was_training)
    return float(run.task.summed_loss(answers, torch.from_numpy(run.targets["train"][rows]))) / len(rows)


def _load_weights(run: Run, weights: Mapping[str, Tensor]) -> None:
    """Take over what trains as it is: not by the strategy's own state, which may be what is saved in the end."""
    mine = run.tuned.trainable()
    misshapen = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(mine[name].shape)}"
        for name in sorted(mine.keys() & weights.keys())
        if weights[name].shape != mine[name].shape or weights[name].dtype != mine[name].dtype
    ]
    missing, unexpected = sorted(mine.keys() - weights.keys()), sorted(weights.keys() - mine.keys())
    if missing or unexpected or misshapen:
        raise StateError("its weights are others", missing=missing, unexpected=unexpected, misshapen=misshapen)
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(weights[name])


def _load_optimizer(run: Run, values: Mapping[str, Any]) -> None:
    names = {id(parameter): name for name, parameter in run.tuned.trainable().items()}
    places = {names[id(parameter)]: place for place, parameter in enumerate(run.parameters)}
    state: dict[int, dict[str, Any]] = {}
    for name, value in values.items():
        key, _, parameter = name.partition("/")
        if parameter not in places:
            raise StateError("its optimizer is another", unexpected=[name])
        own = value.clone() if isinstance(value, Tensor) else value
        state.setdefault(places[parameter], {})[key] = own
    run.optimizer.load_state_dict({"state": state, "param_groups": run.optimizer.state_dict()["param_groups"]})


def _check_trains(run: Run) -> None:
    optimized = {id(parameter) for parameter in run.parameters}
    trainable = run.tuned.trainable()
    idle = [name for name, p in trainable.items() if not p.requires_grad or id(p) not in optimized]
    if idle or not trainable:
        raise CheckpointError(f"After loading the checkpoint nothing would train: {', '.join(idle) or 'no weights'}.")


def _check_loss(run: Run, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Hold the loss to the stored one; what a person should know."""
    found, stored = probe(run), facts["probe"]
    mine, theirs = _plain(environment(run)), facts["environment"]
    other = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    tolerance = _TOLERANCE_ELSEWHERE if other else _TOLERANCE
    if not abs(found - stored) <= tolerance * max(1.0, abs(stored)):
        changed = f"; other than then: {', '.join(other)}" if other else ""
        raise CheckpointError(
            f"The loss of the first training texts is {found:.6g} after loading the checkpoint and was {stored:.6g} "
            f"when it was written{changed}. Start anew with --force in place of --resume."
        )
    if other:
        return (f"Resumed with another {', '.join(other)}: the last bits may not be those of a run without a break.",)
    if found != stored:
        return ("The last bits of the first loss are not those of the checkpoint, so those of the result may differ.",)
    return ()


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """A digest of the code of the loop and the strategies."""
    return hashlib.sha256(source_of(rooms("training", "tuners"))).hexdigest()


def _plain(value: Any) -> Any:
    """``value`` as it comes back from JSON."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
