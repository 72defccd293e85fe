"""What every strategy shares: the `Tuner` interface and `Tuned`, the handle of one prepared view.

A strategy differs from the others in one thing: what may change. Its `Tuner.prepare` freezes nothing and moves
nothing itself: a view arrives frozen; the strategy takes parameters as the view's own or inserts new ones, and
returns a `Tuned`. Everything else here has a default that fits most strategies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lora_clf.base.targets import Coverage
from lora_clf.base.view import View
from lora_clf.errors import NotMergeableError, StateError, UnsupportedBaseError, UsageError


@dataclass(frozen=True)
class Tuner(ABC):
    """A strategy: how a base is adapted. Its fields are its hyperparameters.

    What holds for a strategy is declared here and checked both ways by the contract tests.

    Attributes:
        name: what the command line calls it.
        summary: one line for people: what trains.
        learning_rate: the default, chosen on validation parts: of three data sets those in
            benchmarks/results/learning_rates.json, of SMS those in learning_rates_family.json
            (benchmarks/learning_rates.py).
        identity_at_init: whether a prepared view computes what the base computes, head aside.
        mergeable: whether the trained change can be written into plain weights of the base's own layout.
        changes_inputs: whether it changes what enters the first block, so that nothing below can be kept.
        order: where it stands in lists.
        search: what `compare --tune` may vary: values to try, the default among them, for each of some hyperparameters
            and for ``lr``, the learning rate (`rates_around`). Empty: there is nothing to tune.
        averages: whether the mean of two trained states means something: the mean of what they change.
        not_sizes: settings that are whole numbers and no size of any tensor, such as a seed.
        method: PEFT's name of the method, where it has it.
        peft_ending: where its files are in PEFT's layout, the ending of the tensor that every adapted layer has one of.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    learning_rate: ClassVar[float]
    identity_at_init: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True
    changes_inputs: ClassVar[bool] = False
    order: ClassVar[int] = 100
    search: ClassVar[dict[str, tuple[Any, ...]]] = {}
    averages: ClassVar[bool] = True
    not_sizes: ClassVar[tuple[str, ...]] = ()
    method: ClassVar[str | None] = None
    peft_ending: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Check that every setting is of its declared type; a strategy adds its own checks to this one.

        Raises:
            UsageError: settings of another type, all of them named.
        """
        check_types(self, self.name)

    @abstractmethod
    def prepare(self, view: View) -> Tuned:
        """Make in ``view`` exactly what this strategy trains trainable, and return the handle.

        Raises:
            TargetError: the targets match nothing.
            UsageError: more blocks than the base has.
            UnsupportedBaseError: the base has not what this strategy needs (`refusal`).
        """

    @property
    def extra_tokens(self) -> int:
        """How many of the base's positions it takes beside those of the text."""
        return 0

    def refusal(self, view: View) -> str | None:
        """Why this strategy cannot adapt the base of ``view``, as half a sentence for people; None where it can."""
        return None

    def check_base(self, view: View) -> None:
        """Refuse a base that `refusal` has a reason against.

        Raises:
            UnsupportedBaseError: with the reason.
        """
        if (reason := self.refusal(view)) is not None:
            raise UnsupportedBaseError(f"{self.name} cannot adapt this {view.architecture.model_type} base: {reason}.")

    def peft_settings(self) -> dict[str, Any]:
        """The fields of PEFT's config that say this strategy, the layers aside; nothing where it has no such layout."""
        return {}

    def peft_layers(self, layers: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """The fields of PEFT's config that say which layers, by their names and the shape of their `peft_ending`."""
        return {"target_modules": list(layers)}

    def settings(self) -> dict[str, Any]:
        """The hyperparameters, ready for JSON."""
        return asdict(self)

    @classmethod
    def flags(cls) -> dict[str, Any]:
        """The hyperparameters' names and defaults."""
        return {field.name: field.default for field in fields(cls)}


class Tuned:
    """A view prepared by a strategy: carries the state of one run.

    Attributes:
        tuner: the strategy and its settings.
        view: the classifier.
        coverage: what the targets matched, for strategies that have targets.
    """

    def __init__(self, tuner: Tuner, view: View, coverage: Coverage | None = None) -> None:
        self.tuner = tuner
        self.view = view
        self.coverage = coverage
        for parameter in view.head.parameters():
            parameter.requires_grad_(True)

    def trainable(self) -> dict[str, nn.Parameter]:
        """What trains, by its name in the saved file: ``head.`` for the head, paths in the backbone for the rest."""
        return {_saved_name(name): p for name, p in self.view.named_parameters() if p.requires_grad}

    @property
    def trainable_parameters(self) -> int:
        """How many numbers train, head included."""
        return sum(parameter.numel() for parameter in self.trainable().values())

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of what trains, in fp32 on the CPU, by name."""
        return {name: p.detach().to("cpu", torch.float32, copy=True) for name, p in self.trainable().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over ``state``, which must hold exactly what trains.

        Raises:
            StateError: names are missing or unexpected, or shapes differ; all of them at once, and nothing is changed.
        """
        mine = self.trainable()
        misshapen = [
            f"{name} is {tuple(state[name].shape)}, expected {tuple(mine[name].shape)}"
            for name in sorted(mine.keys() & state.keys())
            if state[name].shape != mine[name].shape
        ]
        missing, unexpected = sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys())
        if missing or unexpected or misshapen:
            raise StateError(
                f"This state does not fit a {self.tuner.name} adapter with {self.tuner.settings()}",
                missing=missing,
                unexpected=unexpected,
                misshapen=misshapen,
            )
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(state[name])

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups: weight decay for matrices, none for norms and biases."""
        matrices = [p for p in self.trainable().values() if p.ndim >= 2]
        vectors = [p for p in self.trainable().values() if p.ndim < 2]
        groups = [(matrices, weight_decay), (vectors, 0.0)]
        return [{"params": p, "lr": learning_rate, "weight_decay": decay} for p, decay in groups if p]

    def penalty(self) -> Tensor | None:
        """A term to add to the loss, or None; random numbers in it depend on the seed and the step alone."""
        return None

    @property
    def settled(self) -> bool:
        """Whether the weights of this moment may be kept: not while a strategy is still cutting down to its size."""
        return True

    def after_step(self, step: int, total_steps: int) -> None:
        """Called after every optimizer step (1-based), while the gradients of that step are still there.

        Random numbers in it depend on the seed and the step alone.
        """

    def run_state(self) -> dict[str, Any]:
        """What it carries from step to step beside what trains, for a checkpoint: tensors and plain JSON values."""
        return {}

    def load_run_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `run_state` returned, after what trains was taken over.

        Raises:
            StateError: names that this strategy does not have.
        """
        if state:
            raise StateError(f"A {self.tuner.name} run carries no state of its own", unexpected=sorted(state))

    def merge(self) -> View:
        """A new view with the same function in plain weights; this one is left as it is.

        Raises:
            NotMergeableError: the strategy's change does not fit into the base's own layers.
        """
        if not self.tuner.mergeable:
            raise NotMergeableError(
                f"{self.tuner.name} adds to the computation; its change fits no weights of the base."
            )
        merged = self.view.fresh()
        self._write_into(merged)
        merged.head.load_state_dict(self.view.head.state_dict())
        return merged.requires_grad_(False)

    def _write_into(self, merged: View) -> None:
        """Write the trained change of the backbone into ``merged``."""
        target = dict(merged.backbone.named_parameters())
        changed = {n: p for n, p in self.view.backbone.named_parameters() if p.requires_grad}
        merged.own(target[name] for name in changed)
        with torch.no_grad():
            for name, parameter in changed.items():
                target[name].copy_(parameter)


_SHOWN = 80  # characters of a wrong value
_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def check_types(settings: Any, name: str) -> None:
    """Hold the fields of a dataclass of settings to their annotations: int, float, str or bool, perhaps ``| None``.

    Raises:
        UsageError: fields of another type, all of them named.
    """
    wrong = []
    for field in fields(settings):
        value, annotation = getattr(settings, field.name), str(field.type)
        kind = annotation.split("|")[0].strip()
        fine = "None" in annotation if value is None else isinstance(value, _KINDS.get(kind, (object,)))
        if not fine or (isinstance(value, bool) and kind != "bool"):
            shown = repr(value)
            shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
            wrong.append(f"{field.name}={shown}, expected {annotation}")
    if wrong:
        raise UsageError(f"{name}: {'; '.join(wrong)}.")


def rates_around(rate: float) -> tuple[float, ...]:
    """Learning rates to try: the default and three on either side of it, each about twice the one before."""
    return tuple(float(f"{rate * factor:.3g}") for factor in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8))


def _saved_name(name: str) -> str:
    return name.removeprefix("backbone.")


def unfreeze(tuner: Tuner, view: View, parameters: Iterable[nn.Parameter]) -> Tuned:
    """The handle of a strategy that trains ``parameters`` of the base and the head."""
    view.own(parameters)
    return Tuned(tuner, view)
